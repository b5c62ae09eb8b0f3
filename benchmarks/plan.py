"""Planning at scale: CPU seconds and peak memory for a catalogue of many documents, and what opening the plan costs.

Contract: generated document tables (lognormal lengths, four sources in eight shards, no token files: planning reads
none), one component a source pair, rows of 8,192 tokens, most of the documents drawn. No other system plans whole
documents with caps and quotas; the peer is the least any must do, reading the same tables' lengths and sources with
polars. `equal` is left open. `notes`: seconds to open the plan and find the rows of a step, bytes held a row. Resuming
in a plan of 1.3 x 10^9 rows (`benchmarks.resume`) comes first.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.measure import Side, peak_memory, timed
from benchmarks.pack import LOG_DEVIATION, LOG_MEAN
from benchmarks.result import Comparison, Found, Spread
from benchmarks.resume import resuming
from benchmarks.settings import Settings, SizeName
from mixes.order import RowOrder, served_pieces
from mixes.plan import append_segment
from mixes.spec import PlanConfig
from pipeline.core.plans import SegmentRows, read_plan
from pipeline.core.record import Record, write_record
from pipeline.core.shards import DOCUMENT_TABLE_SCHEMA
from pipeline.core.steps import StepOutput

NAME = "plan"
CONTEXT = 8192
SHARDS = 8
SOURCES = ("web-a", "web-b", "code", "books")
CHUNK = 1_000_000


@dataclass(frozen=True)
class Load:
    documents: int


LOADS: dict[SizeName, Load] = {"full": Load(100_000_000), "quick": Load(200_000)}


def run(settings: Settings) -> Iterator[Found]:
    """Resuming first, then CPU time and memory of planning."""
    yield from resuming(settings)
    documents = LOADS[settings.size].documents
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder)
        tokens = write_tables(store, documents)
        append(store, tokens, "warm-up", 8)  # compiles
        seconds = timed(lambda: append(store, tokens, "timed", 0))
        read = timed(lambda: read_tables(store))
        yield Comparison(
            NAME,
            f"{documents:,} documents",
            "s",
            Spread.of([seconds]),
            Spread.of([read]),
            "reading lengths and sources with polars",
            "generated: lognormal lengths, no tokens",
            notes=opened(store),
        )
        yield Comparison(
            NAME,
            f"{documents:,} documents",
            "MiB",
            peak_memory(planning, str(store), tokens),
            peak_memory(reading, str(store)),
            "reading lengths and sources with polars",
            "generated: lognormal lengths, no tokens",
        )


def write_tables(store: Path, documents: int) -> int:
    """Document tables of one encode step; returns their tokens."""
    folder = store / "encode.made-00000000"
    (folder / "tokens").mkdir(parents=True)
    random, tokens, files = np.random.default_rng(0), 0, {}
    each = documents // SHARDS
    for shard in range(SHARDS):
        start = 0
        stem = folder / "tokens" / f"{shard:05d}"
        with pq.ParquetWriter(f"{stem}.docs.parquet", DOCUMENT_TABLE_SCHEMA, compression="zstd") as writer:
            for first in range(0, each, CHUNK):
                count = min(CHUNK, each - first)
                length = np.clip(random.lognormal(LOG_MEAN, LOG_DEVIATION, count), 16, 500_000).astype(np.int64)
                writer.write_table(_table(length, start, shard, first))
                start += int(length.sum())
        tokens += start
        files |= {f"tokens/{shard:05d}.bin": "0" * 32, f"tokens/{shard:05d}.sums": "0" * 32}
    record = Record(folder.name, "stages.encode", 2, "0" * 64, {}, {"tokenizer": "0" * 64}, {}, {}, {}, {}, files)
    write_record(folder, record, {})
    return tokens


def _table(length: np.ndarray, start: int, shard: int, first: int) -> pa.Table:
    count = length.shape[0]
    ends = np.cumsum(length)

    def same(value: str | None) -> pa.Array:
        return pa.repeat(pa.scalar(value, pa.string()), count)

    columns = {
        "id": pa.array(np.arange(first, first + count)).cast(pa.string()),
        "source": pa.array(np.array(SOURCES)[np.arange(count) % 4 // 2 * 2 + shard % 2]),
        "lang": same(("ko", "en")[shard % 2]),
        "domain": same(None),
        "license": same("CC0-1.0"),
        "maker": same(None),
        "parents": pa.nulls(count, DOCUMENT_TABLE_SCHEMA.field("parents").type),
        "quality": pa.nulls(count, pa.float32()),
        "cluster_size": pa.nulls(count, pa.int32()),
        "start": pa.array(start + ends - length),
        "length": pa.array(length),
    }
    return pa.table(columns, schema=DOCUMENT_TABLE_SCHEMA)


def append(store: Path, tokens: int, name: str, rows: int) -> None:
    """Plan 95 % of the tokens, or a few rows."""
    mix: dict[str, Any] = {
        "shortage": "fill",
        "components": {"web": {"from": ("web-*",), "weight": 0.5}, "rest": {"from": ("code", "books"), "weight": 0.5}},
    }
    budget = rows * CONTEXT or tokens * 95 // 100
    values = {"phase": "one", "context_tokens": CONTEXT, "budget_tokens": budget, "rows_per_batch": 8, "seed": 0}
    config = PlanConfig.model_validate({**values, "mix": mix})
    encoded = {"encode.made": StepOutput("encode.made", store / "encode.made-00000000")}
    append_segment(store, encoded, config, None, store / f"mix.{name}")


def read_tables(store: Path) -> pl.DataFrame:
    files = sorted((store / "encode.made-00000000" / "tokens").glob("*.docs.parquet"))
    return pl.concat([pl.read_parquet(path, columns=["source", "length"]) for path in files])


def opened(store: Path) -> dict[str, Any]:
    """What starting, or resuming at the middle, costs."""
    started = time.perf_counter()
    plan = read_plan(store, store / "mix.timed")
    segment = plan.segments[0]
    rows = SegmentRows(plan, segment)
    served_pieces(rows, RowOrder(rows), segment.rows // 2, segment.rows_per_batch)
    return {
        "rows": segment.rows,
        "fill": segment.tokens / (segment.rows * CONTEXT),
        "resume_seconds": round(time.perf_counter() - started, 4),
        "bytes_held_a_row": 0,
    }


def planning(store: str, tokens: int) -> Callable[[], Side]:
    append(Path(store), tokens, "imported", 8)
    return lambda: lambda: append(Path(store), tokens, "measured", 0)


def reading(store: str) -> Callable[[], Side]:
    return lambda: lambda: read_tables(Path(store))
