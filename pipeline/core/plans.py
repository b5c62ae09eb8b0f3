"""The mix plan: which documents make which training rows, in which order (contract 3, version 1).

A plan is a chain of segments, each in its own step folder and never changed afterwards:

`segments.json`   the whole chain up to and with this segment (`Segment` each), oldest first
`rows.arrow`      one row a training row: `first_piece` (int64, ascending; one more than the rows, the last = pieces)
`pieces.arrow`    one row a piece: `shard` (int32 index into the segment's `shards`), `start` (int64 token offset in the
                  shard), `length` (int32 tokens), `source` (int32 index into `sources`), `document` (int64 row of the
                  shard's document table), `component` (int32 index into `components`)
`excluded.json`   documents left out, counted by source and reason

`fingerprint` of segment k = H(fingerprint of k-1, segment k without its fingerprint). A checkpoint fits a plan when
its fingerprint is anywhere in the chain. Positions count rows over the whole chain: segment k holds positions
[first_row, first_row + rows). Which stored row is served at a position is `Permutation(rows, seed)` of the offset in
the segment, so that the order is a pure function of (plan, position) and nothing per row is held in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.core.errors import InputError
from pipeline.core.files import atomic_path, read_json, write_json
from pipeline.core.fingerprint import fingerprint

PLANS_VERSION = 1
ORDER_VERSION = 1  # of the row permutation: pipeline.core.rng.Permutation

ROWS_SCHEMA = pa.schema([pa.field("first_piece", pa.int64(), nullable=False)])
PIECES_SCHEMA = pa.schema(
    [
        pa.field("shard", pa.int32(), nullable=False),
        pa.field("start", pa.int64(), nullable=False),
        pa.field("length", pa.int32(), nullable=False),
        pa.field("source", pa.int32(), nullable=False),
        pa.field("document", pa.int64(), nullable=False),
        pa.field("component", pa.int32(), nullable=False),
    ]
)


@dataclass(frozen=True)
class SourcePlan:
    """What a segment takes from one source within one component."""

    component: str
    source: str
    weight: float  # share of the segment's tokens asked for
    max_repeats: float
    tokens_planned: int
    tokens_unique: int  # of the planned ones, seen for the first time in this chain
    documents_planned: int
    cursor_after: int  # documents drawn from this source since the chain began, repeats counted


@dataclass(frozen=True)
class ShardRef:
    """A token shard a segment reads: where it lies relative to the store, and what it must contain."""

    stem: str  # relative to the store, for example encode.web-1a2b3c4d/tokens/00000
    content: str  # xxh3-128 of its `.bin`


@dataclass(frozen=True)
class Segment:
    """One append-only part of a plan."""

    name: str  # phase name, with `+1`, `+2` … for rounds after a red gate
    context_tokens: int
    rows: int
    first_row: int
    seed: int
    order_version: int
    tokenizer: str  # fingerprint
    components: tuple[str, ...]
    sources: tuple[str, ...]
    shards: tuple[ShardRef, ...]
    shares: tuple[SourcePlan, ...]
    tokens: int  # all pieces; rows * context_tokens - tokens is padding
    padding_tokens: int
    truncated_documents: int  # cut at multiples of a row, or served in part, where the component allows it
    fingerprint: str = ""
    folder: str = ""  # relative to the store; not part of the fingerprint

    def identity(self) -> dict[str, Any]:
        known = asdict(self)
        del known["fingerprint"], known["folder"]
        return known


def sealed(segment: Segment, previous: str) -> Segment:
    """The segment with its chain fingerprint."""
    return replace(segment, fingerprint=fingerprint(PLANS_VERSION, previous, segment.identity()))


@dataclass(frozen=True)
class Plan:
    """A chain of segments, oldest first, below one store."""

    store: Path
    segments: tuple[Segment, ...]

    @property
    def fingerprint(self) -> str:
        return self.segments[-1].fingerprint

    @property
    def rows(self) -> int:
        return self.segments[-1].first_row + self.segments[-1].rows

    def holds(self, chain_fingerprint: str) -> bool:
        return any(segment.fingerprint == chain_fingerprint for segment in self.segments)

    def segment_at(self, position: int) -> Segment:
        """The segment that holds row `position`."""
        for segment in self.segments:
            if segment.first_row <= position < segment.first_row + segment.rows:
                return segment
        raise InputError(f"row {position} is outside the plan's {self.rows} rows", where=self.segments[-1].folder)


def write_segment(folder: Path, chain: Sequence[Segment], first_piece: np.ndarray, pieces: pa.Table) -> None:
    """Write a sealed segment's files; `chain` ends with it. `segments.json` comes last."""
    segment = chain[-1]
    assert segment.fingerprint, "seal the segment first"
    assert first_piece.shape[0] == segment.rows + 1, (first_piece.shape, segment.rows)
    assert int(first_piece[-1]) == pieces.num_rows, (int(first_piece[-1]), pieces.num_rows)
    rows = pa.table({"first_piece": pa.array(first_piece, pa.int64())}, schema=ROWS_SCHEMA)
    for name, table in (("rows.arrow", rows), ("pieces.arrow", pieces.cast(PIECES_SCHEMA))):
        with (
            atomic_path(folder / name) as partial,
            pa.OSFile(str(partial), "wb") as sink,
            pa.ipc.new_file(sink, table.schema) as writer,
        ):
            writer.write_table(table.combine_chunks())
    write_json(folder / "segments.json", {"version": PLANS_VERSION, "segments": [asdict(s) for s in chain]})


def read_plan(store: Path, folder: Path) -> Plan:
    """Open the chain that ends with the segment in `folder`; every link is checked. Raises `InputError`."""
    path = folder / "segments.json"
    if not path.is_file():
        raise InputError("not a mix plan: no segments.json", where=str(folder), fix="run the mix step first")
    stored = read_json(path)
    if stored.get("version") != PLANS_VERSION:
        raise InputError(f"plan version {stored.get('version')}, this program reads {PLANS_VERSION}", where=str(path))
    segments = tuple(_segment(item) for item in stored["segments"])
    previous = ""
    for segment in segments:
        if sealed(replace(segment, fingerprint=""), previous).fingerprint != segment.fingerprint:
            raise InputError(f"segment `{segment.name}` was changed after it was made", where=str(path))
        previous = segment.fingerprint
    return Plan(store, segments)


def _segment(item: dict[str, Any]) -> Segment:
    item = dict(item)
    item["components"] = tuple(item["components"])
    item["sources"] = tuple(item["sources"])
    item["shards"] = tuple(ShardRef(**ref) for ref in item["shards"])
    item["shares"] = tuple(SourcePlan(**share) for share in item["shares"])
    return Segment(**item)


def read_rows(plan: Plan, segment: Segment) -> tuple[np.ndarray, pa.Table]:
    """(first_piece [rows + 1] int64, pieces table) of a segment, memory-mapped."""
    folder = plan.store / segment.folder
    tables = []
    for name in ("rows.arrow", "pieces.arrow"):
        with pa.memory_map(str(folder / name)) as source:
            tables.append(pa.ipc.open_file(source).read_all())
    return tables[0]["first_piece"].to_numpy(), tables[1]
