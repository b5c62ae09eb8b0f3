"""Prompt templates: one YAML file a purpose, each template with a version and one wording per language.

Contract: `prompt(name, language)` gives the template and its identity `name@version`; `fill` replaces the named
places and nothing else, so that braces in documents stay as they are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from pipeline.core.fingerprint import fingerprint
from synth.language import read_package_yaml

PLACE = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Prompt:
    """One template in one language."""

    identity: str  # name@version
    system: str
    user: str

    @property
    def hash(self) -> str:
        """16 hex digits of the wording: shows a change that forgot its version."""
        return fingerprint(self.system, self.user)[:16]

    def messages(self, **places: str) -> tuple[dict[str, str], ...]:
        """Chat messages with the places filled; a place without a value raises `KeyError`."""
        user = PLACE.sub(lambda match: places[match[1]], self.user)
        return ({"role": "system", "content": self.system}, {"role": "user", "content": user})


@cache
def prompt(name: str, language: str) -> Prompt:
    """`name` is `file.template`, for example `thinking.document`."""
    file, template = name.split(".")
    entry = read_package_yaml("prompts", f"{file}.yaml")[template]
    wording = entry["languages"][language]
    return Prompt(f"{name}@{entry['version']}", wording["system"], wording["user"])
