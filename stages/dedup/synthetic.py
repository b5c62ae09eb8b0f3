"""Deduplication of one synthetic set, over all its shards: the steps of `dedup.exact` or `dedup.minhash` for a set.

Contract: the last part is `distinct.SET`; it drops copies as `guard.duplicate` or `guard.near_duplicate`, the sample
kept in `detail`. Near-duplicates are found by what the maker wrote (`pipeline.core.written`): two samples about one
document are alike only if what they say about it is. Defaults are those of `dedup.minhash`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from stages.dedup.layout import FilterConfig, Part, document_parts
from stages.dedup.methods import MinhashConfig, TextKeys, WrittenKeys

Method = Literal["exact", "minhash"]
REASONS: Mapping[Method, str] = {"exact": "guard.duplicate", "minhash": "guard.near_duplicate"}


def set_parts(name: str, method: Method) -> tuple[Part, ...]:
    """The parts for the set `name`."""
    if method == "exact":
        parts = document_parts("dedup.exact", TextKeys(), "stages.dedup.sign:TEXT", 1.0, (), name)
    else:
        least = MinhashConfig().minimum_similarity
        parts = document_parts("dedup.minhash", WrittenKeys(), "stages.dedup.sign:WRITTEN", least, (), name)
    names = {part.name: f"{part.name.removesuffix(f'.{method}')}.synth.{name}" for part in parts[:-1]}
    renamed = [
        replace(
            part,
            name=names.get(part.name, f"distinct.{name}"),
            after={role: names[other] for role, other in part.after.items()},
        )
        for part in parts
    ]
    renamed[-1] = replace(renamed[-1], config=FilterConfig(reason=REASONS[method]))
    return tuple(renamed)
