"""Starting, or resuming anywhere, in a plan of 1.3 x 10^9 rows of 8,192 tokens: seconds to the first batch, and memory.

Contract: a plan as the planner writes it, 11 x 10^12 tokens in 11,000 shards, on sparse files: only the rows that are
served have content, the rest are holes, and all shards are links to one. A fresh process, its imports and compiled
kernels not counted, reads the chain, opens the segment and loads a rank's rows of global batches at the start, the
middle and the end. The peers are the limit of 1 s and what an order stored as 8 bytes a row takes.
"""

from __future__ import annotations

import gc
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from benchmarks.loader import make_plan
from benchmarks.measure import Side, peak_memory
from benchmarks.result import Comparison, Found, Spread
from benchmarks.settings import Settings, SizeName
from mixes.catalog import ABSENT
from mixes.loader import MixLoader
from pipeline.core.files import write_json
from pipeline.core.plans import (
    BATCH_ENTRIES,
    ORDER_VERSION,
    PIECES_SCHEMA,
    ROWS_SCHEMA,
    Segment,
    ShardRef,
    SourcePlan,
    read_plan,
    sealed,
    write_chain,
)
from pipeline.core.rng import Permutation
from pipeline.core.shards import SUM_BYTES

NAME = "plan"  # the benchmark that it is part of
CONTEXT = 8192
PIECES = 8  # a row
BATCH_ROWS = 512  # of a global batch: 4 million tokens
RANK_ROWS = 8
SEED = 11
LIMIT_SECONDS = 1.0
HOLE = 1 << 16  # bytes, from which on zeros are not written
HEAD = 64  # bytes by which zeros are told


@dataclass(frozen=True)
class Load:
    rows: int
    shards: int
    shard_tokens: int


LOADS: dict[SizeName, Load] = {
    "full": Load(1_342_177_280, 11_000, 1_000_000_000),
    "quick": Load(1_342_464, 16, 1_000_000_000),
}


def resuming(settings: Settings) -> Iterator[Found]:
    """Seconds and memory."""
    load = LOADS[settings.size]
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder)
        positions = make_sparse_plan(store / "large", load)
        make_plan(store / "small", 64)  # its batches load and compile the kernels
        where = f"{load.rows:,} rows, {load.shards:,} shards, sparse files"
        seconds = [first_batch(store, position) for position in positions]
        yield Comparison(
            NAME, "resuming, to the first batch", "s", Spread.of(seconds), Spread.of([LIMIT_SECONDS]), "1 s", where,
            notes={"positions": positions, "seconds": seconds},
        )  # fmt: skip
        yield Comparison(
            NAME,
            f"resuming, memory after {len(positions)} batches",
            "MiB",
            peak_memory(loading, str(store), positions),
            Spread.of([load.rows * 8 / 2**20]),
            "a stored order of 8 bytes a row (computed)",
            where,
        )


def first_batch(store: Path, position: int) -> float:
    """Wall seconds from nothing open to a rank's rows; kernels are ready."""
    warm(store)
    gc.collect()
    started = time.perf_counter()
    plan = read_plan(store / "large", store / "large" / "mix.one")
    batch = MixLoader(plan).batch(position, RANK_ROWS)
    seconds = time.perf_counter() - started
    assert batch.pieces.length_P.sum() == RANK_ROWS * CONTEXT
    return seconds


def warm(store: Path) -> None:
    """Kernels compiled or read from their caches, by a small plan."""
    MixLoader(read_plan(store / "small", store / "small" / "mix.one")).batch(0, RANK_ROWS)


def loading(store: str, positions: list[int]) -> Callable[[], Side]:
    """For `peak_memory`."""
    warm(Path(store))
    large = Path(store) / "large"

    def load_all() -> None:
        loader = MixLoader(read_plan(large, large / "mix.one"))
        for position in positions:
            loader.batch(position, RANK_ROWS)

    return lambda: load_all


def make_sparse_plan(store: Path, load: Load) -> list[int]:
    """A chain of one segment in `store`; returns positions that can be served."""
    folder = store / "mix.one"
    folder.mkdir(parents=True)
    shards = _shards(store, load)
    tokens = load.rows * CONTEXT
    share = SourcePlan("all", "made", 1.0, 1.0, tokens, tokens, load.rows * PIECES, load.rows * PIECES)
    segment = Segment(
        name="one",
        context_tokens=CONTEXT,
        rows=load.rows,
        rows_per_batch=BATCH_ROWS,
        first_row=0,
        seed=SEED,
        order_version=ORDER_VERSION,
        tokenizer="0" * 64,
        components=("all",),
        sources=("made",),
        shards=shards,
        shares=(share,),
        tokens=tokens,
        padding_tokens=0,
        truncated_documents=0,
        folder="mix.one",
    )
    write_json(folder / "kinds.json", [ABSENT._replace(source="made")._asdict()])
    write_chain(folder, (sealed(segment, ""),))
    batches = load.rows // BATCH_ROWS
    numbers = sorted({0, 1, batches // 3, batches // 2, batches // 2 + 1, batches - 1})
    row_R = np.concatenate([_rows_of(load, number) for number in numbers])
    entry_R = np.unique(np.concatenate([row_R, row_R + 1]))
    cost = np.full(entry_R.shape[0], PIECES * (CONTEXT // PIECES) ** 2)
    _fill(folder / "rows.arrow", ROWS_SCHEMA, load.rows + 1, entry_R, {
        "first_piece": entry_R * PIECES, "attention": cost,
    })  # fmt: skip
    piece_P = (row_R[:, None] * PIECES + np.arange(PIECES)).reshape(-1)
    length = CONTEXT // PIECES
    places = load.shard_tokens // length
    _fill(folder / "pieces.arrow", PIECES_SCHEMA, load.rows * PIECES, piece_P, {
        "shard": piece_P // places % load.shards,
        "start": piece_P % places * length,
        "length": np.full(piece_P.shape[0], length),
        "document": piece_P % places,
    })  # fmt: skip
    return [number * BATCH_ROWS + BATCH_ROWS // 2 for number in numbers]


def _rows_of(load: Load, batch: int) -> np.ndarray:
    order = Permutation(load.rows, SEED)
    return order.take(np.arange(batch * BATCH_ROWS, (batch + 1) * BATCH_ROWS, dtype=np.int64))


def _shards(store: Path, load: Load) -> tuple[ShardRef, ...]:
    """One sparse shard under many names."""
    folder = store / "encode.made" / "tokens"
    folder.mkdir(parents=True)
    first = folder / "00000"
    with open(f"{first}.bin", "wb") as stream:
        stream.truncate(load.shard_tokens * 4)
    whole, rest = divmod(load.shard_tokens * 4, SUM_BYTES)
    sums = [xxhash.xxh3_64_intdigest(bytes(SUM_BYTES))] * whole + [xxhash.xxh3_64_intdigest(bytes(rest))] * bool(rest)
    data = np.array(sums, "<u8").tobytes()
    Path(f"{first}.sums").write_bytes(data)
    for number in range(1, load.shards):
        for ending in (".bin", ".sums"):
            os.link(f"{first}{ending}", folder / f"{number:05d}{ending}")
    digest = xxhash.xxh3_128_hexdigest(data)
    return tuple(
        ShardRef(f"encode.made/tokens/{number:05d}", "0" * 32, digest, load.shard_tokens)
        for number in range(load.shards)
    )


class _Sparse:
    """A file that leaves holes where large parts, which are zeros, are written."""

    closed = False

    def __init__(self, path: Path) -> None:
        self._stream = path.open("wb", buffering=0)

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        if size < HOLE or any(memoryview(data).cast("B")[:HEAD]):  # the footer is large too
            self._stream.write(data)
        else:
            self._stream.seek(size, os.SEEK_CUR)
        return size

    def tell(self) -> int:
        return self._stream.tell()

    def flush(self) -> None:
        self._stream.flush()

    def close(self) -> None:
        self._stream.close()


def _fill(path: Path, schema: pa.Schema, entries: int, entry_N: np.ndarray, columns: dict[str, np.ndarray]) -> None:
    """An Arrow file of `entries` entries in record batches, zero but for the given ones."""
    sink = _Sparse(path)
    zeros = [np.zeros(BATCH_ENTRIES, field.type.to_pandas_dtype()) for field in schema]
    full = pa.RecordBatch.from_arrays([pa.array(column) for column in zeros], schema=schema)
    with pa.ipc.new_file(pa.PythonFile(sink, "w"), schema) as writer:
        for _ in range(entries // BATCH_ENTRIES):
            writer.write_batch(full)
        if entries % BATCH_ENTRIES:
            writer.write_batch(full.slice(0, entries % BATCH_ENTRIES))
    sink.close()
    mapped = pa.memory_map(str(path))
    base = mapped.read_buffer(1).address
    mapped.seek(0)
    reader, file = pa.ipc.open_file(mapped), np.memmap(path, np.uint8, "r+")
    number_N = entry_N // BATCH_ENTRIES
    for number in np.unique(number_N).tolist():
        batch, own = reader.get_batch(number), number_N == number
        for name, values in columns.items():
            offset = batch[name].buffers()[1].address - base
            stored = np.ndarray(batch.num_rows, schema.field(name).type.to_pandas_dtype(), file.data, offset)
            stored[entry_N[own] - number * BATCH_ENTRIES] = values[own]
    file.flush()
