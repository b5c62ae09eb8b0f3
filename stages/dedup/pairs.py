"""Pairs of documents that share a bucket: step kind `stages.dedup.pairs`, a shard for each range of keys.

Contract: reads signature files only (`stages.dedup.keyfiles`), those of earlier crawls included; writes
`pairs/00000.npy`, [pairs, 2] int64 document numbers to join. Key ranges are independent: bands' keys are hashes, so
ranges are of one size and any worker may do any. Memory: `RANGE_DOCUMENTS` x bands x 16 bytes plus one chunk of
values. Cost: each signature file is opened once a range.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.core.record import ShardResult
from pipeline.core.steps import StepTask
from stages.dedup.cluster import WINDOW, bucket_pairs, shared, values_needed
from stages.dedup.keyfiles import Signed, node_count, open_signed, save_array
from stages.dedup.layout import PAIRS

RANGE_DOCUMENTS = 1 << 19  # documents a key range, about (ours: 120 MB of keys at 14 bands)
CHUNK = 1 << 16  # bucket members whose values are in memory at once


class PairsWork:
    """The step's work."""

    def shard_count(self, task: StepTask) -> int:
        return -(-max(1, node_count(open_signed(task))) // RANGE_DOCUMENTS)

    def make_shard(self, task: StepTask, shard: int) -> ShardResult:
        pairs, compared = range_pairs(open_signed(task), shard, self.shard_count(task), task.config.minimum_similarity)
        save_array(task.folder / PAIRS / f"{shard:05d}.npy", pairs)
        return ShardResult(counts={"pairs": pairs.shape[0], "compared": compared})

    def finish(self, task: StepTask, results: Sequence[ShardResult]) -> Mapping[str, Any]:
        return {}


def range_pairs(signed: Signed, part: int, parts: int, minimum_similarity: float) -> tuple[np.ndarray, int]:
    """([pairs, 2] int64 nodes, comparisons made) of the buckets in one of `parts` equal ranges of keys."""
    low, high = ((part + k) * (1 << 64) // parts for k in (0, 1))
    keys: list[list[np.ndarray]] = []
    nodes: list[list[np.ndarray]] = []
    for shard_keys, shard_nodes in signed.key_ranges(low, high):
        keys.append(shard_keys)
        nodes.append(shard_nodes)
    found: list[np.ndarray] = [np.empty((0, 2), np.int64)]
    compared = 0
    for band in range(len(keys[0])):
        band_keys = np.concatenate([one[band] for one in keys])
        band_nodes = np.concatenate([one[band] for one in nodes])
        pairs, more = _band_pairs(signed, band_keys, band_nodes, minimum_similarity)
        found += pairs
        compared += more
    return np.concatenate(found), compared


def _band_pairs(
    signed: Signed, keys: np.ndarray, nodes: np.ndarray, minimum_similarity: float
) -> tuple[list[np.ndarray], int]:
    members = shared(keys)
    keys, nodes = keys[members], nodes[members]
    documents = signed.documents(nodes)
    ages = signed.ages[signed.shards_of(nodes)]
    order = np.lexsort((documents["low"], documents["high"], ages, keys))
    keys, nodes = keys[order], nodes[order]
    found: list[np.ndarray] = []
    compared = 0
    for first in range(0, keys.shape[0], CHUNK):
        begin = max(0, first - WINDOW)
        chunk = slice(begin, first + CHUNK)
        values = signed.values(nodes[chunk])
        needed = values_needed(minimum_similarity, values.shape[1])
        pairs, more = bucket_pairs(keys[chunk], values, first - begin, needed)
        found.append(nodes[chunk][pairs])
        compared += more
    return found, compared


WORK = PairsWork()
