"""What a synthesis shard writes: kept samples in the document schema, refused ones with their reason.

Contract: `documents_in == documents_out + sum(dropped)`. A sample's id is a hash of the set's name and what the
sample was made from, so that it stays the same whatever shard it is in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from pipeline.core.documents import (
    DROPPED_SCHEMA,
    document_id,
    table_from_rows,
    text_hash,
    write_documents,
    write_dropped,
    write_table,
)
from pipeline.core.record import ShardResult
from pipeline.core.steps import StepTask
from synth.requests_table import REQUEST_SCHEMA, REQUESTS

DROPPED_TEXTS_KEPT = 50  # of each reason and shard
SET_PREFIX = "synth."
Facts = dict[str, dict[str, dict[str, Any]]]


def set_name(step: str) -> str:
    """`think-ko` of the step `synth.think-ko`."""
    return step.removeprefix(SET_PREFIX)


class ShardWriter:
    """Collects one shard's samples and writes them at the end."""

    def __init__(self, task: StepTask, shard: int) -> None:
        self.task = task
        self.shard = shard
        self.source = set_name(task.name)
        self.rows: list[dict[str, Any]] = []
        self.requests: list[dict[str, Any]] = []
        self.refused: list[dict[str, Any]] = []
        self.counts: Counter[str] = Counter(documents_in=0, documents_out=0, bytes_in=0, bytes_out=0)
        self.dropped: Counter[str] = Counter()
        self.licenses: Counter[str] = Counter()
        self.facts: Facts = {"by_source": {}, "by_language": {}, "by_maker": {}}

    def keep(self, key: str, text: str, *, bytes_in: int, extra: Mapping[str, Any] | str, **columns: Any) -> None:
        """Take a sample in. `key` names what it was made from; `columns` are further document columns; `extra` is JSON
        text where the order of its keys counts."""
        row = {
            "id": document_id(self.source, key),
            "text_hash": text_hash(text),
            "text": text,
            "source": self.source,
            "extra": extra if isinstance(extra, str) else orjson.dumps(extra, option=orjson.OPT_SORT_KEYS).decode(),
            **columns,
        }
        self.rows.append(row)
        bytes_out = len(text.encode("utf-8"))
        self.counts.update(documents_in=1, documents_out=1, bytes_in=bytes_in, bytes_out=bytes_out)
        self.licenses[row.get("license") or "unknown"] += 1
        for entry in self._entries(row.get("lang"), row.get("maker")):
            entry["in"] += 1
            entry["out"] += 1

    def request(self, row: Mapping[str, Any]) -> None:
        """Note where an answer came from."""
        self.requests.append(dict(row))

    def drop(self, key: str, reason: str, detail: str, text: str, *, bytes_in: int, lang: str | None) -> None:
        """Refuse a sample; its text is kept for the first few of each reason."""
        shown = text if self.dropped[reason] < DROPPED_TEXTS_KEPT else None
        refused = {"id": document_id(self.source, key), "source": self.source, "lang": lang, "reason": reason}
        self.refused.append({**refused, "detail": detail, "text": shown})
        self.dropped[reason] += 1
        self.counts.update(documents_in=1, bytes_in=bytes_in)
        for entry in self._entries(lang, None):
            entry["in"] += 1
            entry["dropped"][reason] = entry["dropped"].get(reason, 0) + 1

    def _entries(self, lang: str | None, maker: str | None) -> list[dict[str, Any]]:
        names = {"by_source": self.source, "by_language": lang or "unknown", "by_maker": maker}
        return [
            self.facts[group].setdefault(name, {"in": 0, "out": 0, "dropped": {}})
            for group, name in names.items()
            if name is not None
        ]

    def commit(self) -> ShardResult:
        """Write the files and give the shard's result."""
        write_documents(self.task.folder, self.shard, table_from_rows(self.rows))
        write_dropped(self.task.folder, self.shard, table_from_rows(self.refused, DROPPED_SCHEMA))
        if self.requests:
            path = self.task.folder / REQUESTS / f"{self.shard:05d}.parquet"
            write_table(path, table_from_rows(self.requests, REQUEST_SCHEMA))
        assert self.counts["documents_in"] == self.counts["documents_out"] + self.dropped.total()
        return ShardResult(
            counts=dict(self.counts), dropped=dict(self.dropped), licenses=dict(self.licenses), facts=self.facts
        )


def merged_facts(results: Sequence[ShardResult]) -> Facts:
    """The shards' funnels added up, keys sorted."""
    total: Facts = {"by_source": {}, "by_language": {}, "by_maker": {}}
    for result in results:
        for group, entries in result.facts.items():
            for name, part in entries.items():
                entry = total[group].setdefault(name, {"in": 0, "out": 0, "dropped": {}})
                entry["in"] += part["in"]
                entry["out"] += part["out"]
                for reason, count in part["dropped"].items():
                    entry["dropped"][reason] = entry["dropped"].get(reason, 0) + count
    return {group: dict(sorted(entries.items())) for group, entries in total.items()}
