"""Pairs of documents that share a bucket: step kind `stages.dedup.pairs`, a shard for each range of keys.

Contract: reads signature files only (`stages.dedup.keyfiles`), those of earlier crawls included; writes
`pairs/00000.npy`, [pairs, 2] int64 document numbers to join, the smaller first, ascending, each once. Key ranges are
independent: bands' keys are hashes, so ranges are of one size and any worker may do any. Memory: `RANGE_DOCUMENTS` x
bands x 16 bytes plus `MEMBERS` x 160. Cost: each signature file is opened once a range.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.core.record import ShardResult
from pipeline.core.steps import StepTask
from stages.dedup.cluster import bucket_pairs, ranked, shared, values_needed
from stages.dedup.keyfiles import Signed, node_count, open_signed, save_array
from stages.dedup.layout import PAIRS

RANGE_DOCUMENTS = 1 << 19  # documents a key range, about (ours: 120 MB of keys at 14 bands)
MEMBERS = 1 << 20  # bucket members that are looked up at once (ours: 160 MB)


class PairsWork:
    """The step's work."""

    def shard_count(self, task: StepTask) -> int:
        return range_count(open_signed(task))

    def make_shard(self, task: StepTask, shard: int) -> ShardResult:
        signed = open_signed(task)
        pairs, compared = range_pairs(signed, shard, range_count(signed), task.config.minimum_similarity)
        save_array(task.folder / PAIRS / f"{shard:05d}", "", pairs)
        return ShardResult(counts={"pairs": pairs.shape[0], "compared": compared})

    def finish(self, task: StepTask, results: Sequence[ShardResult]) -> Mapping[str, Any]:
        return {}


def range_count(signed: Signed) -> int:
    """Key ranges that so many documents are compared in."""
    return -(-max(1, node_count(signed)) // RANGE_DOCUMENTS)


def range_pairs(signed: Signed, part: int, parts: int, minimum_similarity: float) -> tuple[np.ndarray, int]:
    """([pairs, 2] int64 nodes, comparisons made) of the buckets in one of `parts` equal ranges of keys."""
    low, high = ((part + k) * (1 << 64) // parts for k in (0, 1))
    bands = list(zip(*signed.key_ranges(low, high), strict=True))
    found: list[np.ndarray] = [np.empty((0, 2), np.int64)]
    compared = 0
    waiting: list[tuple[np.ndarray, np.ndarray]] = []
    for band in range(len(bands)):
        keys, nodes = (np.concatenate(parts) for parts in zip(*bands[band], strict=True))
        bands[band] = ()
        members = shared(keys)
        waiting.append((keys[members], nodes[members]))
        if band == len(bands) - 1 or sum(len(keys) for keys, _ in waiting) > MEMBERS:
            pairs, more = _bucket_pairs(signed, waiting, minimum_similarity)
            found += pairs
            compared += more
            waiting = []
    return distinct_pairs(np.concatenate(found)), compared


def distinct_pairs(pairs: np.ndarray) -> np.ndarray:
    """[distinct, 2] int64: smaller first, ascending. Documents that share several buckets were found as often."""
    smaller, larger = pairs.min(axis=1), pairs.max(axis=1)
    order = np.lexsort((larger, smaller))
    ascending = np.stack([smaller[order], larger[order]], axis=1)
    first = np.ones(ascending.shape[0], bool)
    first[1:] = (ascending[1:] != ascending[:-1]).any(axis=1)
    return ascending[first]


def _bucket_pairs(
    signed: Signed, bands: Sequence[tuple[np.ndarray, np.ndarray]], minimum_similarity: float
) -> tuple[list[np.ndarray], int]:
    """Of some bands' (keys, nodes), all of them in buckets of two and more: each document is looked up once."""
    known, places_of_all = ranked(np.concatenate([nodes for _, nodes in bands]))
    documents, checks = signed.documents(known), signed.checks(known)
    ages = signed.ages[signed.shards_of(known)]
    needed = values_needed(minimum_similarity, checks.shape[1])
    found: list[np.ndarray] = []
    compared = 0
    ends = np.cumsum([len(keys) for keys, _ in bands])
    for (keys, nodes), places in zip(bands, np.split(places_of_all, ends[:-1]), strict=True):
        order = np.lexsort((documents["low"][places], documents["high"][places], ages[places], keys))
        pairs, more = bucket_pairs(keys[order], checks[places[order]], needed)
        found.append(nodes[order][pairs])
        compared += more
    return found, compared


WORK = PairsWork()
