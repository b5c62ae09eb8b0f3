"""Set some documents aside for evaluation, before anything is trained on them.

Contract: step kind `stages.split`. Reads the documents of every input role that starts with `documents`; writes
`documents/` (the rest) and `heldout/` (set aside), one shard for each input shard, and counts those set aside under
the reason `split.held_out`. Which side a document falls on is a pure function of its parallel group or id, so that
translations of one page are never on both sides and a new source moves no old document. Signals of the documents that
stay are handed on, so that mixes can select by them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from pydantic import Field

from pipeline.core.config import Config
from pipeline.core.documents import (
    DOCUMENT_SCHEMA,
    DROPPED_SCHEMA,
    document_files,
    read_table,
    write_documents,
    write_table,
)
from pipeline.core.documents import write_dropped as write_dropped_table
from pipeline.core.errors import InputError
from pipeline.core.record import ShardResult
from pipeline.core.steps import StepTask

REASON = "split.held_out"


class SplitConfig(Config):
    """Identity of the step."""

    heldout_permille: int = Field(default=20, ge=0, le=500)  # documents of a thousand; ours


def is_held_out(group: str, permille: int) -> bool:
    """Whether a parallel group or document id is set aside."""
    return xxhash.xxh3_64_intdigest(f"held-out\x1f{group}".encode()) % 1000 < permille


def _shards(task: StepTask) -> list[Path]:
    roles = sorted(role for role in task.inputs if role.startswith("documents"))
    return [path for role in roles for path in document_files(task.inputs[role].folder)]


class SplitWork:
    """Work of the step: see the module's contract."""

    def shard_count(self, task: StepTask) -> int:
        return len(_shards(task))

    def make_shard(self, task: StepTask, shard: int) -> ShardResult:
        path = _shards(task)[shard]
        documents = read_table(path, DOCUMENT_SCHEMA)
        groups = [
            group or own
            for group, own in zip(documents["parallel_id"].to_pylist(), documents["id"].to_pylist(), strict=True)
        ]
        aside = np.array([is_held_out(group, task.config.heldout_permille) for group in groups], dtype=bool)
        kept, held = documents.filter(pa.array(~aside)), documents.filter(pa.array(aside))
        write_table(task.folder / "heldout" / f"{shard:05d}.parquet", held)
        write_dropped_table(task.folder, shard, _dropped(held))
        write_documents(task.folder, shard, kept)
        signals = path.parent.parent / "signals" / path.name
        if signals.is_file():
            table = pq.read_table(signals)
            stay = np.isin(table["id"].to_pylist(), kept["id"].to_pylist())
            write_table(task.folder / "signals" / f"{shard:05d}.parquet", table.filter(pa.array(stay)))
        counts = {"documents_in": documents.num_rows, "documents_out": kept.num_rows}
        return ShardResult(counts=counts, dropped={REASON: held.num_rows} if held.num_rows else {})

    def finish(self, task: StepTask, results: Sequence[ShardResult]) -> Mapping[str, Any]:
        """Raises `InputError` when cleaning left nothing to train on."""
        if not sum(result.counts["documents_out"] for result in results):
            raise InputError(
                "no document is left after cleaning",
                where=task.name,
                fix="`seodang status` counts what each step dropped, `seodang peek STEP --dropped all` shows it; "
                "keep more languages or loosen the rules",
            )
        return {}


def _dropped(held: pa.Table) -> pa.Table:
    rows = held.num_rows
    columns = {name: held[name] for name in ("id", "source", "url", "lang")}
    nothing = pa.nulls(rows, pa.string())
    columns |= {"reason": pa.array([REASON] * rows, pa.string()), "detail": nothing, "text": nothing}
    return pa.table(columns).select(DROPPED_SCHEMA.names).cast(DROPPED_SCHEMA)


def heldout_documents(folder: Path) -> pa.Table:
    """Every document set aside by a finished split step."""
    paths = sorted((folder / "heldout").glob("[0-9]*.parquet"))
    tables = [read_table(path, DOCUMENT_SCHEMA) for path in paths]
    return pa.concat_tables(tables) if tables else DOCUMENT_SCHEMA.empty_table()


WORK = SplitWork()
