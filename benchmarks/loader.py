"""Training rows from disk: ours against a bare memory-mapped gather and MosaicML's streaming loader.

Contract: the same packed rows of 8,192 tokens. Ours gives token ids, the loss mask of each token, and the boundaries
and sources of the documents; spreading those over tokens is measured apart. The gather and the MDS reader give token
ids only, of rows that were packed before. `equal`: the token ids of the first batch are those of the plan (MDS: of the
same row).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import Side, interleaved
from benchmarks.pack import web_lengths
from benchmarks.peers import against, peer
from benchmarks.result import Comparison, Found, Spread
from benchmarks.settings import Settings, SizeName
from mixes.loader import MixLoader
from mixes.plan import append_segment
from mixes.spec import PlanConfig
from pipeline.core.documents import document_id, table_from_rows
from pipeline.core.plans import Plan, read_plan
from pipeline.core.record import Record, output_hashes, write_record
from pipeline.core.shards import DOCUMENT_TABLE_SCHEMA, write_shard
from pipeline.core.steps import StepOutput

NAME = "loader"
CONTEXT = 8192
BATCH_ROWS = 8
EOS = 1
VOCABULARY = 150_000
FINGERPRINT = "0" * 64


@dataclass(frozen=True)
class Load:
    rows: int
    rounds: int


LOADS: dict[SizeName, Load] = {"full": Load(4000, 3), "quick": Load(64, 1)}


def run(settings: Settings) -> Iterator[Found]:
    """Against the gather and, where it is installed, MosaicML streaming."""
    load = LOADS[settings.size]
    with tempfile.TemporaryDirectory() as folder:
        plan = make_plan(Path(folder), load.rows)
        rows = packed_rows(plan)
        gathered = _gather(Path(folder), rows)
        yield _compared(plan, gathered, load, "memory-mapped gather to int64", by_token=False)
        yield _compared(plan, gathered, load, "memory-mapped gather to int64", by_token=True)
        yield from against(
            "MosaicML StreamingDataLoader",
            ("streaming", "torchvision"),
            lambda: _compared(
                plan, _streaming(Path(folder), rows), load, "MosaicML StreamingDataLoader, 0 workers", by_token=False
            ),
        )


def _compared(plan: Plan, theirs: Side, load: Load, peer_name: str, *, by_token: bool) -> Comparison:
    loader = MixLoader(plan)

    def ours() -> np.ndarray:
        first = loader.batch(0, BATCH_ROWS).token_ids_RT
        for position in range(BATCH_ROWS, plan.rows, BATCH_ROWS):
            batch = loader.batch(position, min(BATCH_ROWS, plan.rows - position))
            if by_token:
                assert batch.document_ids_RT.shape == batch.source_ids_RT.shape
        return first

    equal = bool(np.array_equal(ours(), theirs()))
    seconds = interleaved([ours, theirs], load.rounds)
    tokens = plan.rows * CONTEXT
    return Comparison(
        NAME,
        f"rows of {CONTEXT:,} tokens, {BATCH_ROWS} a batch" + (", ids of every token" if by_token else ""),
        "tokens/s",
        Spread.rate(tokens, seconds[0]),
        Spread.rate(tokens, seconds[1]),
        peer_name,
        f"generated: {tokens / 1e6:.1f} million tokens of packed documents, page cache warm",
        equal=equal,
    )


def make_plan(
    store: Path, rows: int, *, context_tokens: int = CONTEXT, vocabulary_size: int = VOCABULARY
) -> Plan:  # fmt: skip
    """A plan of `rows` rows over one generated token shard below `store`."""
    lengths = web_lengths(rows * context_tokens // 1000 + 100, context_tokens)
    lengths = np.tile(lengths, 1 + rows * context_tokens * 11 // 10 // int(lengths.sum()))
    ends = np.cumsum(lengths)
    token_ids = np.random.default_rng(1).integers(2, vocabulary_size, int(ends[-1]), np.uint32)
    token_ids[ends - 1] = EOS
    table = table_from_rows(
        [
            {
                "id": document_id("benchmark", str(number)),
                "source": "benchmark",
                "license": "CC0-1.0",
                "start": end - length,
                "length": length,
            }
            for number, (end, length) in enumerate(zip(ends.tolist(), lengths.tolist(), strict=True))
        ],
        DOCUMENT_TABLE_SCHEMA,
    )
    folder = store / "encode.benchmark-00000000"
    write_shard(folder / "tokens" / "00000", token_ids, table, eos_id=EOS)
    inputs = {"tokenizer": FINGERPRINT}
    record = Record(folder.name, "stages.encode", 1, FINGERPRINT, {}, inputs, {}, {}, {}, {}, output_hashes(folder))
    write_record(folder, record, {})
    mix: Mapping[str, Any] = {"components": {"all": {"from": ("benchmark",), "weight": 1.0}}}
    config = PlanConfig.model_validate(
        {"phase": "one", "context_tokens": context_tokens, "budget_tokens": rows * context_tokens,
         "rows_per_batch": BATCH_ROWS, "seed": 0, "mix": mix}
    )  # fmt: skip
    append_segment(store, {"encode.benchmark": StepOutput("encode.benchmark", folder)}, config, None, store / "mix.one")
    return read_plan(store, store / "mix.one")


def packed_rows(plan: Plan) -> np.ndarray:
    """[rows, context] uint32 token ids of every row, in the plan's order."""
    loader = MixLoader(plan)
    starts = range(0, plan.rows, BATCH_ROWS)
    parts = [loader.batch(start, min(BATCH_ROWS, plan.rows - start)).token_ids_RT for start in starts]
    return np.concatenate(parts).astype(np.uint32)


def _gather(folder: Path, rows: np.ndarray) -> Side:
    """Rows of a flat file in a shuffled order, as int64; the file holds them so that the order is the plan's."""
    order = np.random.default_rng(2).permutation(rows.shape[0])
    shuffled = np.empty_like(rows)
    shuffled[order] = rows
    path = folder / "rows.bin"
    shuffled.tofile(path)
    stored = np.memmap(path, np.uint32, "r", shape=rows.shape)

    def gather() -> np.ndarray:
        batches = [order[start : start + BATCH_ROWS] for start in range(0, rows.shape[0], BATCH_ROWS)]
        first = stored[batches[0]].astype(np.int64)
        for batch in batches[1:]:
            stored[batch].astype(np.int64)
        return first

    return gather


def _streaming(folder: Path, rows: np.ndarray) -> Side:
    streaming = peer("streaming")
    peer("streaming.base.util").clean_stale_shared_memory()
    place = str(folder / "mds")
    with streaming.MDSWriter(out=place, columns={"tokens": f"ndarray:uint32:{CONTEXT}"}) as writer:
        for row in rows:
            writer.write({"tokens": row})
    dataset = streaming.StreamingDataset(local=place, shuffle=False, batch_size=BATCH_ROWS)
    loader = streaming.StreamingDataLoader(dataset, batch_size=BATCH_ROWS, num_workers=0)

    def read() -> np.ndarray:
        batches = [batch["tokens"].numpy() for batch in loader]
        return batches[0].astype(np.int64)

    return read
