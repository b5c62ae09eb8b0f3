"""The takedown filter: what was asked to be forgotten is dropped, and what was made from it.

Contract: runs first and last in every cleaning step, whatever the configuration lists, with the list that the task's
`paths` name; reason `compliance.takedown`, detail the entry that fits. A document fits by its id, by the id of one it
was made from, by its address or by the canonical address its page declares. Cost: columns only.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import orjson
import pyarrow as pa

from pipeline.core.takedown import REASON, TakedownList, read_takedowns
from stages.block import Dropped, Outcome, outcome

TAKEDOWNS = "takedowns"  # role in a task's paths, and of the list's identity in its content
CANONICAL = "canonical_url"  # key of `extra`


class TakedownFilter:
    """The block."""

    def __init__(self, takedowns: TakedownList) -> None:
        self._takedowns = takedowns

    def apply(self, documents: pa.Table) -> Outcome:
        columns = (documents[name].to_pylist() for name in ("id", "parents", "url", "extra"))
        found = ((row, self._entry(*values)) for row, values in enumerate(zip(*columns, strict=True)))
        return outcome(documents, [Dropped(row, REASON, entry) for row, entry in found if entry is not None])

    def _entry(self, identity: str, parents: list[str] | None, url: str | None, extra: str | None) -> str | None:
        ids = self._takedowns.ids
        for one in (identity, *(parents or ())):
            if one in ids:
                return one
        return next(filter(None, map(self._takedowns.entry_of, addresses(url, extra))), None)


def addresses(url: str | None, extra: str | None) -> list[str]:
    """Where a document was found and where its page says it belongs."""
    canonical = orjson.loads(extra).get(CANONICAL) if extra and CANONICAL in extra else None
    return [address for address in (url, canonical) if isinstance(address, str) and address]


def takedown_filters(paths: Mapping[str, tuple[str, ...]]) -> list[TakedownFilter]:
    """The filter of a step whose `paths` name a list, or none."""
    return [TakedownFilter(read_takedowns(Path(path))) for path in paths.get(TAKEDOWNS, ())]
