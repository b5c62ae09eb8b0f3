"""Pairs joined part by part: step kind `stages.dedup.forests`, a shard for each range of documents.

Contract: shard k takes the pairs whose smaller document lies in its range, from the files of all key ranges (they
ascend: a slice is found by bisection), joins them, and writes `forests/00000.npy`, [joins, 2] int64: for each document
that is not the smallest of its tree, that smallest one and itself, ascending by document. All forests together join
what all pairs join, in one row for each document and range where the pairs have one for each bucket that two documents
share. Ranges are independent: any worker may do any. Memory: 24 bytes a document with a pair in the range, and
100 MB. Cost: each file of pairs is opened once a range.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core.record import ShardResult
from pipeline.core.steps import StepTask
from stages.dedup.cluster import components
from stages.dedup.keyfiles import load_array, node_count, open_signed, save_array
from stages.dedup.layout import FORESTS, PAIRS

FOREST_DOCUMENTS = 1 << 22  # documents a range (ours: 240 tasks for 10^9 documents)


class ForestsWork:
    """The step's work."""

    def shard_count(self, task: StepTask) -> int:
        return forest_count(node_count(open_signed(task)))

    def make_shard(self, task: StepTask, shard: int) -> ShardResult:
        joins = forest(load_arrays(task.inputs[PAIRS].folder / PAIRS), shard)
        save_array(task.folder / FORESTS / f"{shard:05d}", "", joins)
        return ShardResult(counts={"joins": joins.shape[0]})

    def finish(self, task: StepTask, results: Sequence[ShardResult]) -> Mapping[str, Any]:
        return {}


def forest_count(documents: int) -> int:
    """Ranges that so many documents are joined in."""
    return -(-max(1, documents) // FOREST_DOCUMENTS)


def forest(pairs: Sequence[np.ndarray], part: int) -> np.ndarray:
    """[joins, 2] int64 (smallest document of the tree, document) of the pairs whose smaller document is in the range.

    Args:
        pairs: Arrays [pairs, 2], smaller first, ascending; may be mapped files.
        part: Number of the range.
    """
    low, high = part * FOREST_DOCUMENTS, (part + 1) * FOREST_DOCUMENTS
    slices = [array[bisect_left(array[:, 0], low) : bisect_left(array[:, 0], high)] for array in pairs]
    nodes, labels = components(slices)
    others = np.flatnonzero(labels != np.arange(labels.shape[0]))
    return np.stack([nodes[labels[others]], nodes[others]], axis=1)


def load_arrays(folder: Path) -> list[np.ndarray]:
    """Every array file of a folder, mapped, in order."""
    return [load_array(path.with_suffix(""), "") for path in sorted(folder.glob("[!.]*.npy"))]


WORK = ForestsWork()
