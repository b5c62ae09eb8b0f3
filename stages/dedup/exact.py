"""Exact deduplication: one document of each distinct text survives.

Contract: `stages.dedup.corpus`. Two documents are equal when their NFC texts (and messages, where there are any) are.
Reason `dedup.exact`, detail the id of the document kept. Cost: one pass over ids and hashes, one over the rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.core.documents import DOCUMENT_SCHEMA, read_table
from pipeline.core.record import ShardResult
from pipeline.core.steps import StepTask
from stages.dedup.corpus import (
    DedupConfig,
    Survivors,
    choose,
    distinct_labels,
    input_files,
    load_corpus,
    merged_facts,
    message_hashes,
    write_survivors,
)

VERSION = 1
REASON = "dedup.exact"


class ExactConfig(DedupConfig):
    """Nothing of its own."""


@lru_cache(maxsize=1)
def exact_survivors(files: tuple[Path, ...], config: ExactConfig) -> Survivors:
    """Who survives among the documents of `files`; kept for the other shards this process makes."""
    corpus = load_corpus(files, config.quality_signal)
    hashes = [
        value
        for file in files
        for value in message_hashes(read_table(file, DOCUMENT_SCHEMA, ["text_hash", "messages"]))
    ]
    return choose(corpus, distinct_labels(pa.array(hashes, pa.string())))


class ExactWork:
    """The step's work: one output shard for each input file."""

    def shard_count(self, task: StepTask) -> int:
        return len(input_files(task))

    def make_shard(self, task: StepTask, shard: int) -> ShardResult:
        return write_survivors(task, shard, exact_survivors(input_files(task), task.config), REASON)

    def finish(self, task: StepTask, results: Sequence[ShardResult]) -> Mapping[str, Any]:
        return merged_facts(results)


WORK = ExactWork()
