"""Near-duplicate removal: MinHash LSH clusters, one document of each survives.

Contract: `stages.dedup.corpus`. Defaults are FineWeb's 14 bands of 8 rows over 5-gram shingles (arXiv 2406.17557,
section 3.4): two texts of Jaccard similarity 0.75 share a bucket with probability 0.77, of 0.85 with 0.99. A shared
bucket is then checked with all values of the signature. Reason `dedup.minhash`, detail the id of the document kept.
Cost: about 100 MB/s for signatures on one core; 560 bytes a document in memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from pipeline.core.documents import DOCUMENT_SCHEMA, read_table
from pipeline.core.record import ShardResult
from pipeline.core.steps import StepTask
from stages.dedup.cluster import clusters
from stages.dedup.corpus import (
    DedupConfig,
    Survivors,
    choose,
    input_files,
    load_corpus,
    merged_facts,
    write_survivors,
)
from stages.dedup.signatures import band_keys, compared_texts, signatures

VERSION = 1
REASON = "dedup.minhash"


class MinhashConfig(DedupConfig):
    """Parameters of the search for near-duplicates."""

    bands: int = Field(default=14, ge=1, le=256)
    rows: int = Field(default=8, ge=1, le=64)  # of signature values a band
    shingle: int = Field(default=5, ge=1, le=32)  # tokens
    minimum_similarity: float = Field(default=0.7, ge=0.0, le=1.0)  # ours; 0.0 trusts the buckets, as FineWeb did


@lru_cache(maxsize=1)
def minhash_survivors(files: tuple[Path, ...], config: MinhashConfig) -> Survivors:
    """Who survives among the documents of `files`; kept for the other shards this process makes."""
    corpus = load_corpus(files, config.quality_signal)
    values = np.concatenate([_file_signatures(file, config) for file in files])
    order = np.argsort(corpus.id_ranks, kind="stable")
    values = values[order]
    found = clusters(values, band_keys(values, config.bands, config.rows), config.minimum_similarity)
    labels = np.empty_like(found)
    labels[order] = found
    return choose(corpus, labels)


def _file_signatures(file: Path, config: MinhashConfig) -> np.ndarray:
    table = read_table(file, DOCUMENT_SCHEMA, ["text", "messages"])
    return signatures(compared_texts(table), config.shingle, config.bands * config.rows)


class MinhashWork:
    """The step's work: one output shard for each input file."""

    def shard_count(self, task: StepTask) -> int:
        return len(input_files(task))

    def make_shard(self, task: StepTask, shard: int) -> ShardResult:
        return write_survivors(task, shard, minhash_survivors(input_files(task), task.config), REASON)

    def finish(self, task: StepTask, results: Sequence[ShardResult]) -> Mapping[str, Any]:
        return merged_facts(results)


WORK = MinhashWork()
