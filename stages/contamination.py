"""Which benchmark item was quoted by which document: the evidence that decontamination leaves behind.

Contract: `STEP/decontamination/NNNNN.parquet` has a row for every (document, item, method) of every dropped document:
how many of the item's grams or substrings it quotes, of how many, and the beginning of the quotation. When a step is
finished `STEP/benchmarks/items.parquet` has a row an item of every benchmark, with how it was searched for and how
many documents quote it, and the record's fact `decontamination` adds them up by benchmark.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.core.documents import read_table, write_table
from pipeline.core.files import PARTIAL
from stages.benchmark_files import Item

TABLE = "decontamination"  # folder of the evidence, and the record's fact
ITEMS = "benchmarks"

EVIDENCE_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),  # of the document
        pa.field("source", pa.string(), nullable=False),
        pa.field("lang", pa.string()),
        pa.field("url", pa.string()),
        pa.field("benchmark", pa.string(), nullable=False),
        pa.field("record", pa.string(), nullable=False),  # the benchmark's own name of it
        pa.field("field", pa.string(), nullable=False),
        pa.field("item", pa.string(), nullable=False),  # file:line
        pa.field("method", pa.string(), nullable=False),
        pa.field("quoted", pa.int32(), nullable=False),  # distinct grams or substrings of the item
        pa.field("of", pa.int32(), nullable=False),
        pa.field("excerpt", pa.string(), nullable=False),  # the document where the quotation begins
    ]
)
ITEM_SCHEMA = pa.schema(
    [
        pa.field("benchmark", pa.string(), nullable=False),
        pa.field("record", pa.string(), nullable=False),
        pa.field("field", pa.string(), nullable=False),
        pa.field("item", pa.string(), nullable=False),
        pa.field("characters", pa.int32(), nullable=False),
        pa.field("searched", pa.string(), nullable=False),  # ngram, whole, substring; empty: too short for any
        pa.field("documents", pa.int32(), nullable=False),
    ]
)


@dataclass(frozen=True)
class Hit:
    """An item quoted by a document."""

    item: Item
    method: str
    quoted: int
    of: int
    excerpt: str


def evidence_table(documents: pa.Table, hits: Sequence[tuple[int, Hit]]) -> pa.Table:
    """`EVIDENCE_SCHEMA` rows of (row of `documents`, hit)."""
    found = documents.take(pa.array([row for row, _ in hits], pa.int64()))
    columns = {name: found[name] for name in ("id", "source", "lang", "url")}
    for name in ("benchmark", "record", "field"):
        columns[name] = [getattr(hit.item, name) for _, hit in hits]
    columns["item"] = [hit.item.place for _, hit in hits]
    for name in ("method", "quoted", "of", "excerpt"):
        columns[name] = [getattr(hit, name) for _, hit in hits]
    return pa.table([columns[name] for name in EVIDENCE_SCHEMA.names], names=EVIDENCE_SCHEMA.names).cast(
        EVIDENCE_SCHEMA
    )


def report_items(folder: Path, items: Sequence[Item], searched: Sequence[str]) -> dict[str, Any]:
    """Write the items' table of a finished step; returns benchmark -> counts.

    `searched` says of each item by which methods it was, joined by `+`; empty: it was too short for any.
    """
    quoting: Counter[tuple[str, str]] = Counter()
    documents: dict[str, set[str]] = {}
    for path in sorted(p for p in (folder / TABLE).glob("*.parquet") if not p.name.startswith(PARTIAL)):
        rows = read_table(path, EVIDENCE_SCHEMA, ["id", "benchmark", "field", "item"]).to_pylist()
        quoting.update(_distinct(rows))
        for row in rows:
            documents.setdefault(row["benchmark"], set()).add(row["id"])
    found = [quoting[item.place, item.field] for item in items]
    table = pa.table(
        {
            **{name: [getattr(item, name) for item in items] for name in ("benchmark", "record", "field")},
            "item": [item.place for item in items],
            "characters": [len(item.text) for item in items],
            "searched": list(searched),
            "documents": found,
        }
    )
    write_table(folder / ITEMS / "items.parquet", table.select(ITEM_SCHEMA.names).cast(ITEM_SCHEMA))
    summary: dict[str, dict[str, int]] = {}
    for item, how, count in zip(items, searched, found, strict=True):
        row = summary.setdefault(item.benchmark, {"items": 0, "too_short": 0, "items_quoted": 0, "documents": 0})
        row["items"] += 1
        row["too_short"] += not how
        row["items_quoted"] += count > 0
        row["documents"] = len(documents.get(item.benchmark, ()))
    return dict(sorted(summary.items()))


def _distinct(rows: Sequence[Mapping[str, str]]) -> Counter[tuple[str, str]]:
    """(item, field) -> documents that quote it; a document counts once, whichever methods found it."""
    return Counter((item, field) for _, item, field in {(row["id"], row["item"], row["field"]) for row in rows})
