"""Fingerprints: the identity of configurations, inputs and steps.

Contract: a fingerprint is the SHA-256 (64 hex digits) of a canonical JSON text; equal on every machine and in every
process. A value with no canonical form is refused, never turned into text by `str`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

SHORT = 8  # hex digits of a fingerprint that name an output folder


def canonical(value: Any) -> Any:
    """Reduce to JSON types; raises `TypeError` for anything without one deterministic form."""
    if isinstance(value, BaseModel):
        return {name: canonical(getattr(value, name)) for name in type(value).model_fields}
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < 2**53 else value
    if isinstance(value, tuple | list):
        return [canonical(child) for child in value]
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                message = f"a fingerprint needs text keys, not {type(key).__name__}"
                raise TypeError(message)
        return {key: canonical(value[key]) for key in sorted(value)}
    message = f"a {type(value).__name__} has no canonical form for a fingerprint; use a config model, text or a number"
    raise TypeError(message)


def fingerprint(*parts: Any) -> str:
    """SHA-256 of the canonical JSON of `parts`."""
    text = json.dumps([canonical(part) for part in parts], ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
