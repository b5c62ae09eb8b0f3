"""Exact substrings: of each string of `minimum_bytes` that occurs twice one occurrence stays, in the best document.

Contract: a byte is cut exactly when it lies in a window of `minimum_bytes` that occurs elsewhere in a better document
(quality, size, id) or earlier in the same one; characters are cut whole. The bytes found repeated are those of a suffix
array over the whole corpus (tested against one), in memory that does not grow with the corpus. Steps:

`anchors.substring`  a hash for about one place in `minimum_bytes` / 4    (`stages.dedup.anchors`), a shard each
`shared.substring`   anchors that occur twice                              (`stages.dedup.spans`), by range of hashes
`windows.substring`  hashes of all windows of those anchors                a shard each
`copies.substring`   windows of which a better one stays                   by range of hashes
`dedup.substring`    cuts                                                  a shard each

Texts are read three times. Disk: 12 bytes for each repeated window, nothing like it for what occurs once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.core.documents import DOCUMENT_SCHEMA, read_table
from pipeline.core.record import ShardResult
from pipeline.core.steps import StepTask
from stages.dedup.anchors import anchors, byte_values, covered, window_hashes
from stages.dedup.pieces import Ranges, write_without
from stages.dedup.sign import document_records, input_files, known_signals
from stages.dedup.signatures import text_buffers
from stages.dedup.spans import found_items, open_items, write_items
from stages.dedup.survivors import merged_facts

REASON = "dedup.substring"
ANCHORS, SHARED, WINDOWS, COPIES = "anchors", "shared", "windows", "copies"  # roles


def text_anchors(texts: pa.Array | pa.ChunkedArray, window: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """For each text: (its bytes, [N] uint64 anchor hashes, [N, 2] int64 starts of their windows)."""
    data, offsets = text_buffers(texts)
    gram = window // 2
    for first, last in pairwise(offsets.tolist()):
        text = data[first:last]
        room = text.shape[0] // max(1, gram // 4) + 16
        while True:
            keys, runs = np.empty(room, np.uint64), np.empty((room, 2), np.int64)
            count = anchors(text, gram, window, byte_values(), keys, runs)
            if count <= room:
                break
            room = count
        yield text, keys[:count], runs[:count]


def _records(task: StepTask, shard: int, table: pa.Table) -> np.ndarray:
    files = input_files(task)
    signal = task.config.quality_signal
    return document_records(table, files[shard], signal, known_signals(files) if signal else set[str]())


def _table(task: StepTask, shard: int) -> pa.Table:
    return read_table(input_files(task)[shard], DOCUMENT_SCHEMA, ["id", "text", "cluster_size"])


class ShardsWork:
    """One output shard for each input shard."""

    def shard_count(self, task: StepTask) -> int:
        return len(input_files(task))

    def finish(self, task: StepTask, results: Sequence[ShardResult]) -> Mapping[str, Any]:
        return merged_facts(results)


class AnchorsWork(ShardsWork):
    """Hashes of anchors."""

    def make_shard(self, task: StepTask, shard: int) -> ShardResult:
        table = _table(task, shard)
        found = [np.array(keys) for _, keys, _ in text_anchors(table["text"], task.config.minimum_bytes)]
        counts = np.array([keys.shape[0] for keys in found], np.int64)
        keys = np.concatenate([np.empty(0, np.uint64), *found])
        write_items(task.folder, shard, keys, counts, _records(task, shard, table))
        return ShardResult(counts={"anchors": keys.shape[0]})


def shared_runs(task: StepTask, shard: int, texts: pa.ChunkedArray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each text: (its bytes, [N, 2] starts of the windows whose anchors occur twice)."""
    items = open_items(task.inputs[ANCHORS].folder)
    twice = found_items(items, task.inputs[SHARED].folder, shard)
    seen = 0
    for text, keys, runs in text_anchors(texts, task.config.minimum_bytes):
        first, last = np.searchsorted(twice, (seen, seen + keys.shape[0]))
        yield text, runs[twice[first:last] - seen]
        seen += keys.shape[0]
    assert seen == items.first_nodes[shard + 1] - items.first_nodes[shard], "another text was hashed"


class WindowsWork(ShardsWork):
    """Hashes of the windows of shared anchors."""

    def make_shard(self, task: StepTask, shard: int) -> ShardResult:
        table = _table(task, shard)
        found: list[np.ndarray] = [np.empty(0, np.uint64)]
        for text, runs in shared_runs(task, shard, table["text"]):
            hashes = np.empty(int((runs[:, 1] - runs[:, 0] + 1).sum()), np.uint64)
            window_hashes(text, task.config.minimum_bytes, runs, byte_values(), hashes)
            found.append(hashes)
        counts = np.array([part.shape[0] for part in found[1:]], np.int64)
        keys = np.concatenate(found)
        write_items(task.folder, shard, keys, counts, _records(task, shard, table))
        return ShardResult(counts={"windows": keys.shape[0]})


class CutWork(ShardsWork):
    """The documents without what is repeated."""

    def make_shard(self, task: StepTask, shard: int) -> ShardResult:
        return write_without(task, shard, REASON, lambda table: repeated(task, shard, table["text"]))


def repeated(task: StepTask, shard: int, texts: pa.ChunkedArray) -> Ranges:
    """The byte ranges to cut."""
    window = task.config.minimum_bytes
    copies = found_items(open_items(task.inputs[WINDOWS].folder), task.inputs[COPIES].folder, shard)
    rows: list[np.ndarray] = [np.empty(0, np.int64)]
    ranges: list[np.ndarray] = [np.empty((0, 2), np.int64)]
    seen = 0
    for row, (text, runs) in enumerate(shared_runs(task, shard, texts)):
        ends = np.cumsum(runs[:, 1] - runs[:, 0] + 1)
        count = int(ends[-1]) if len(ends) else 0
        first, last = np.searchsorted(copies, (seen, seen + count))
        own = copies[first:last] - seen
        seen += count
        if own.shape[0]:
            run = np.searchsorted(ends, own, side="right")
            starts = runs[run, 1] - (ends[run] - 1 - own)
            out = np.empty((starts.shape[0], 2), np.int64)
            found = out[: covered(starts, window, text, out)]
            rows.append(np.full(found.shape[0], row))
            ranges.append(found)
    cut = np.concatenate(ranges)
    return np.concatenate(rows), cut[:, 0], cut[:, 1]


FIND_ANCHORS = AnchorsWork()
HASH_WINDOWS = WindowsWork()
CUT = CutWork()
