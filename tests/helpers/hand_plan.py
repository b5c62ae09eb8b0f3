"""A small plan written by hand, and training on it: shared by the tests of the loop and of resuming."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.core.files import hash_file
from pipeline.core.plans import (
    ORDER_VERSION,
    PIECES_SCHEMA,
    Plan,
    Segment,
    SegmentWriter,
    ShardRef,
    SourcePlan,
    read_plan,
    sealed,
    write_chain,
)
from pipeline.core.runlog import StepLine, read_lines
from pipeline.core.shards import DOCUMENT_TABLE_SCHEMA, TokenShard, sidecar, write_shard
from trainer.checkpoint import checkpoints
from trainer.config import LearningRate, ModelConfig, OptimizerConfig, PhaseConfig
from trainer.phase import TrainExecution, train_segment

VOCABULARY = 64
EOS = 0
CONTEXT = 32
ROWS = 21
MODEL = ModelConfig(
    hidden_size=32,
    num_layers=4,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=16,
    window_tokens=8,
    intermediate_size=48,
    num_experts=4,
    experts_per_token=2,
    expert_intermediate_size=16,
)
PHASE = PhaseConfig(
    name="p",
    mix="m",
    context_tokens=CONTEXT,
    budget_tokens=CONTEXT * ROWS,
    rows_per_batch=4,
    learning_rate=LearningRate(peak=1e-2, warmup_steps=2, decay_fraction=0.5),
)
STEPS = 6  # of 4 rows each, the last of 1
TOKENIZER = "t" * 64


def write_tokens(store: Path, source: str, language: str, lengths: list[int], masked: bool) -> None:
    """A shard of documents that count upwards from a seeded start: something a small model can learn."""
    generator = np.random.default_rng(sum(source.encode()))
    documents = [[*((int(generator.integers(60)) + np.arange(n - 1)) % (VOCABULARY - 1) + 1), EOS] for n in lengths]
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    table = pa.Table.from_pylist(
        [
            {"id": f"{source}{n}", "source": source, "lang": language, "domain": f"d{n % 2}", "start": int(start),
             "length": length, "parents": [], "license": "CC0-1.0"}
            for n, (start, length) in enumerate(zip(starts, lengths, strict=True))
        ],
        schema=DOCUMENT_TABLE_SCHEMA,
    )  # fmt: skip
    tokens = np.array([token for document in documents for token in document])
    loss = np.arange(len(tokens)) % 3 > 0 if masked else None
    write_shard(store / f"encode.{source}" / "tokens" / "00000", tokens, table, eos_id=EOS, loss=loss)


def hashes(stem: Path) -> tuple[str, str]:
    """Of a shard's tokens and of its checksums."""
    return hash_file(sidecar(stem, ".bin")), hash_file(sidecar(stem, ".sums"))


def make_segment(store: Path, name: str, previous: Plan | None, rows: int = ROWS) -> Plan:
    """Rows of two or three documents of two sources in turn, most of them not full."""
    sources = ("alpha", "beta")
    shards = [TokenShard.open(store / f"encode.{source}" / "tokens" / "00000") for source in sources]
    cursor = [0, 0]
    first_piece, pieces = [0], []
    for row in range(rows):
        room = CONTEXT
        while True:
            source = (row + len(pieces)) % 2
            document = cursor[source] % len(shards[source].ends)
            start = int(shards[source].ends[document - 1]) if document else 0
            length = int(shards[source].ends[document]) - start
            if length > room:
                break
            pieces.append((source, start, length, source, document, 0, 2 * source + document % 2))
            cursor[source] += 1
            room -= length
        first_piece.append(len(pieces))
    columns = {name: np.array([piece[i] for piece in pieces]) for i, name in enumerate(PIECES_SCHEMA.names)}
    kinds = [
        {"source": source, "lang": language, "domain": domain, "license": "CC0-1.0", "maker": "none"}
        for source, language in zip(sources, ("en", "ko"), strict=True)
        for domain in ("d0", "d1")
    ]
    tokens = Counter[int]()
    for piece in pieces:
        tokens[piece[3]] += piece[2]
    shares = tuple(
        SourcePlan("all", source, 0.5, 9.0, tokens[n], tokens[n], 0, cursor[n]) for n, source in enumerate(sources)
    )
    earlier = previous.segments if previous else ()
    segment = Segment(
        name=name,
        context_tokens=CONTEXT,
        rows=rows,
        rows_per_batch=1,
        first_row=previous.rows if previous else 0,
        seed=11,
        order_version=ORDER_VERSION,
        tokenizer=TOKENIZER,
        components=("all",),
        sources=sources,
        shards=tuple(
            ShardRef(f"encode.{source}/tokens/00000", *hashes(shard.stem), int(shard.ends[-1]))
            for source, shard in zip(sources, shards, strict=True)
        ),
        shares=shares,
        tokens=sum(tokens.values()),
        padding_tokens=rows * CONTEXT - sum(tokens.values()),
        truncated_documents=0,
        folder=f"mix.{name}",
    )
    segment = sealed(segment, earlier[-1].fingerprint if earlier else "")
    folder = store / segment.folder
    folder.mkdir(parents=True)
    (folder / "kinds.json").write_text(json.dumps(kinds))
    with SegmentWriter(folder) as writer:
        writer.append(np.diff(first_piece), columns)
    write_chain(folder, (*earlier, segment))
    return read_plan(store, folder)


def train(plan: Plan, folder: Path, **changes: object) -> Path:
    given = {
        "model_config": MODEL,
        "optimizer_config": OptimizerConfig(),
        "phase": PHASE,
        "plan": plan,
        "segment": "p",
        "vocabulary_size": VOCABULARY,
        "tokenizer_fingerprint": TOKENIZER,
        "parent_checkpoint": None,
        "folder": folder,
        "seed": 3,
        "execution": TrainExecution(checkpoint_every_steps=2),
    }
    return train_segment(**{**given, **changes})


def lines(folder: Path) -> list[dict[str, object]]:
    """The log without what a clock says."""
    timed = {"seconds", "tokens_per_second", "flops_share", "memory_bytes"}
    return [{k: v for k, v in line.items() if k not in timed} for line in read_lines(folder / "train.jsonl")]


def same_end(one: Path, another: Path) -> None:
    assert lines(one) == lines(another)
    first, second = (checkpoints(folder)[-1] for folder in (one, another))
    assert {p.name: p.read_bytes() for p in first.iterdir()} == {p.name: p.read_bytes() for p in second.iterdir()}


def interrupt_at(step: int):
    def on_step(line: StepLine, done: int, steps: int) -> None:
        if done == step:
            raise KeyboardInterrupt

    return on_step
