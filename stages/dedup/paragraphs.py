"""Exact paragraphs: of each distinct paragraph of some length one copy stays, in the best document that has it.

Contract: a paragraph is a line; two are equal when their words are, whatever their case, punctuation and spacing
(`stages.dedup.segment`, as CCNet's normalised paragraphs, Wenzek et al. 2019, section 3.1). It is cut with the blank
lines after it. Steps: `hashes.paragraphs` hashes (a shard each), `copies.paragraphs` finds copies by range of hashes,
`dedup.paragraphs` cuts. Cost: 300 MB/s for hashing; memory one batch of texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numba import njit

from pipeline.core.record import ShardResult
from pipeline.core.steps import StepTask
from stages.characters import mix64
from stages.dedup.batches import table_batches
from stages.dedup.pieces import write_without
from stages.dedup.segment import WEIGHTS, segment, tables
from stages.dedup.sign import Records, input_files
from stages.dedup.signatures import text_buffers
from stages.dedup.spans import FOLDER, FOUND, ItemsWriter, found_items, open_items
from stages.dedup.survivors import merged_facts

REASON = "dedup.paragraphs"
NEWLINE = 10


@njit(cache=True)
def _paragraphs(
    data: np.ndarray,
    offsets: np.ndarray,
    kinds: np.ndarray,
    folds: np.ndarray,
    weights: np.ndarray,
    least: int,
    out: np.ndarray,
    ranges: np.ndarray,
) -> int:
    """Fill hashes [N] and (row, start, end) [N, 3] of paragraphs that weigh `least` and more; returns N."""
    count = 0
    for row in range(offsets.shape[0] - 1):
        first, last = offsets[row], offsets[row + 1]
        start = first
        while start < last:
            end = start
            while end < last and data[end] != NEWLINE:
                end += 1
            hashes, found = segment(data, start, end, kinds, folds)
            weight = 0
            state = np.uint64(hashes.shape[0])
            for k in range(hashes.shape[0]):
                weight += weights[found[k]]
                state = mix64(state * np.uint64(0x9E3779B97F4A7C15) + hashes[k])
            after = end
            while after < last and data[after] == NEWLINE:
                after += 1
            if weight >= least:
                out[count] = state
                ranges[count, 0] = row
                ranges[count, 1] = start - first
                ranges[count, 2] = after - first
                count += 1
            start = after
    return count


def paragraphs(texts: pa.Array | pa.ChunkedArray, minimum_words: int) -> tuple[np.ndarray, np.ndarray]:
    """([N] uint64 hashes, [N, 3] int64 row, start, end) of the paragraphs of at least so many words, in order."""
    data, offsets = text_buffers(texts)
    known = tables()
    own = data[offsets[0] : offsets[-1]]
    most = int((own == NEWLINE).sum()) + offsets.shape[0]
    out, ranges = np.empty(most, np.uint64), np.empty((most, 3), np.int64)
    least = minimum_words * int(WEIGHTS[1])
    count = _paragraphs(data, offsets, known.kind, known.fold, WEIGHTS, least, out, ranges)
    return out[:count], ranges[:count]


class SignWork:
    """Hashes of paragraphs."""

    def shard_count(self, task: StepTask) -> int:
        return len(input_files(task))

    def make_shard(self, task: StepTask, shard: int) -> ShardResult:
        records, items = Records(task, shard), ItemsWriter(task.folder, shard)
        for table in table_batches(records.file, ("id", "text", "cluster_size")):
            keys, ranges = paragraphs(table["text"], task.config.minimum_words)
            items.add(keys, np.bincount(ranges[:, 0], minlength=table.num_rows), records.of(table))
        items.finish()
        return ShardResult(counts={"paragraphs": items.items})

    def finish(self, task: StepTask, results: Sequence[ShardResult]) -> Mapping[str, Any]:
        return {}


class CutWork:
    """The documents without the copies."""

    def shard_count(self, task: StepTask) -> int:
        return len(input_files(task))

    def make_shard(self, task: StepTask, shard: int) -> ShardResult:
        items = open_items(task.inputs[FOLDER].folder).of_shard(shard)
        copies = found_items(items, task.inputs["copies"].folder / FOUND)
        firsts = np.cumsum([0, *items.counts()])

        def found(table: pa.Table, row: int) -> np.ndarray:
            keys, ranges = paragraphs(table["text"], task.config.minimum_words)
            first, last = firsts[row], firsts[row + table.num_rows]
            assert keys.shape[0] == last - first, "another text was hashed"
            return ranges[copies[slice(*np.searchsorted(copies, (first, last)))] - first]

        return write_without(task, shard, REASON, found)

    def finish(self, task: StepTask, results: Sequence[ShardResult]) -> Mapping[str, Any]:
        return merged_facts(results)


SIGN = SignWork()
CUT = CutWork()
