"""The mix plan: which documents make which training rows, in which order (contract 3, version 2).

A plan is a chain of segments, each in its own step folder and never changed afterwards:

`segments.json`   the whole chain up to and with this segment (`Segment` each), oldest first
`rows.arrow`      one row a training row: `first_piece` (int64, ascending), `attention` (int64: sum of the squares of
                  its pieces' lengths, what attention inside documents costs); one more than the rows, the last =
                  pieces, 0
`pieces.arrow`    one row a piece: `shard` (int32 index into the segment's `shards`), `start` (int64 token offset in the
                  shard), `length` (int32 tokens), `source` (int32 index into `sources`), `document` (int64 row of the
                  shard's document table), `component` (int32 index into `components`), `kind` (int32 row of kinds.json)
`kinds.json`      each distinct (source, language, domain, licence, maker) of the segment's documents
`excluded.json`   documents left out, counted by source and reason

Both Arrow files are cut into record batches of `BATCH_ENTRIES`, so that any row is found by a division and read from
a memory map: opening a plan of a milliard rows reads two footers.

`fingerprint` of segment k = H(fingerprint of k-1, segment k without its fingerprint). A checkpoint fits a plan when
its fingerprint is anywhere in the chain. Positions count rows over the whole chain: segment k holds positions
[first_row, first_row + rows). Which stored row is served at a position is a pure function of (plan, position), see
`mixes.order`; nothing per row is held in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.core.errors import InputError
from pipeline.core.files import atomic_path, read_json, write_json
from pipeline.core.fingerprint import fingerprint
from pipeline.core.mapped_columns import MappedColumns

PLANS_VERSION = 2
ORDER_VERSION = 2  # of the row order: pipeline.core.rng.Permutation, then balanced within batches: mixes.order
BATCH_ENTRIES = 1 << 20  # rows or pieces of a record batch: 36 MiB of pieces

ROWS_SCHEMA = pa.schema(
    [pa.field("first_piece", pa.int64(), nullable=False), pa.field("attention", pa.int64(), nullable=False)]
)
PIECES_SCHEMA = pa.schema(
    [
        pa.field("shard", pa.int32(), nullable=False),
        pa.field("start", pa.int64(), nullable=False),
        pa.field("length", pa.int32(), nullable=False),
        pa.field("source", pa.int32(), nullable=False),
        pa.field("document", pa.int64(), nullable=False),
        pa.field("component", pa.int32(), nullable=False),
        pa.field("kind", pa.int32(), nullable=False),
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
    sums: str  # xxh3-128 of its `.sums`, which vouch for every block of `.bin` and `.bin.loss`
    tokens: int


@dataclass(frozen=True)
class Segment:
    """One append-only part of a plan."""

    name: str  # phase name, with `+1`, `+2` … for rounds after a red gate
    context_tokens: int
    rows: int
    rows_per_batch: int  # of a global batch, within which rows are balanced
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
        known = {**vars(self), "shards": tuple(map(vars, self.shards)), "shares": tuple(map(vars, self.shares))}
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


class SegmentWriter:
    """Writes a segment's rows and pieces as they come, in record batches of `BATCH_ENTRIES`; a context manager.

    Both files appear under their names when it is left without an error.
    """

    def __init__(self, folder: Path) -> None:
        self._stack = ExitStack()
        self._folder = folder
        self._pieces = 0
        self._rows = 0

    def __enter__(self) -> SegmentWriter:
        self._row_batches = self._open("rows.arrow", ROWS_SCHEMA)
        self._piece_batches = self._open("pieces.arrow", PIECES_SCHEMA)
        return self

    def _open(self, name: str, schema: pa.Schema) -> _Batches:
        partial = self._stack.enter_context(atomic_path(self._folder / name))
        sink = self._stack.enter_context(pa.OSFile(str(partial), "wb"))
        return _Batches(schema, self._stack.enter_context(pa.ipc.new_file(sink, schema)))

    def append(self, count_R: np.ndarray, columns: Mapping[str, np.ndarray]) -> None:
        """Rows with their numbers of pieces, and the pieces' columns, row by row."""
        end_R = np.cumsum(count_R)
        assert all(values.shape[0] == (end_R[-1] if end_R.size else 0) for values in columns.values())
        cost = np.concatenate([[0], np.cumsum(columns["length"].astype(np.int64) ** 2)])
        self._row_batches.add(
            {"first_piece": self._pieces + end_R - count_R, "attention": cost[end_R] - cost[end_R - count_R]}
        )
        self._piece_batches.add(columns)
        self._pieces += int(end_R[-1]) if end_R.size else 0
        self._rows += count_R.shape[0]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._stack.__exit__(kind, error, trace)
            return
        with self._stack:
            self._row_batches.add({"first_piece": np.array([self._pieces]), "attention": np.zeros(1, np.int64)})
            self._row_batches.close()
            self._piece_batches.close()


class _Batches:
    """Cuts a stream of columns into record batches of one size, which are filled in place."""

    def __init__(self, schema: pa.Schema, writer: pa.ipc.RecordBatchFileWriter) -> None:
        self._schema = schema
        self._writer = writer
        self._columns = [np.empty(BATCH_ENTRIES, field.type.to_pandas_dtype()) for field in schema]
        self._entries = 0

    def add(self, columns: Mapping[str, np.ndarray]) -> None:
        size, done = columns[self._schema.names[0]].shape[0], 0
        while done < size:
            taken = min(size - done, BATCH_ENTRIES - self._entries)
            for field, column in zip(self._schema, self._columns, strict=True):
                column[self._entries : self._entries + taken] = columns[field.name][done : done + taken]
            self._entries += taken
            done += taken
            if self._entries == BATCH_ENTRIES:
                self.close()

    def close(self) -> None:
        """Write what waits as one record batch."""
        if self._entries:
            arrays = [pa.array(column[: self._entries]) for column in self._columns]
            self._writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=self._schema))
        self._entries = 0


def write_chain(folder: Path, chain: Sequence[Segment]) -> None:
    """Write `segments.json`, the last of a segment's files; `chain` ends with it, sealed."""
    assert chain[-1].fingerprint, "seal the segment first"
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


class SegmentRows:
    """A segment's rows and pieces from memory maps, one record batch at a time: any of them, for a division each."""

    def __init__(self, plan: Plan, segment: Segment) -> None:
        self.segment = segment
        folder = plan.store / segment.folder
        self.row_columns = MappedColumns(folder / "rows.arrow", ROWS_SCHEMA, BATCH_ENTRIES)
        self.piece_columns = MappedColumns(folder / "pieces.arrow", PIECES_SCHEMA, BATCH_ENTRIES)

    @property
    def piece_count(self) -> int:
        return int(self.first_piece(np.array([self.segment.rows]))[0])

    def first_piece(self, row_R: np.ndarray) -> np.ndarray:
        """[R] int64 first piece of each stored row; of row `segment.rows` the number of pieces."""
        return self.row_columns.take(("first_piece",), row_R)["first_piece"]

    def attention(self, row_R: np.ndarray) -> np.ndarray:
        """[R] int64 sum of squared piece lengths of each stored row."""
        return self.row_columns.take(("attention",), row_R)["attention"]

    def pieces(self, piece_P: np.ndarray, names: Sequence[str] = tuple(PIECES_SCHEMA.names)) -> dict[str, np.ndarray]:
        """Columns of the given pieces."""
        return self.piece_columns.take(names, piece_P)

    def piece_batches(self) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        """(first piece, columns) of each record batch, as they are stored."""
        yield from self.piece_columns.batches()

    def row_batches(self) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        """(first row, columns) of each record batch; the last holds the entry after the last row too."""
        yield from self.row_columns.batches()
