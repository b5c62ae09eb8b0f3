"""Exact substrings: of each string of `minimum_bytes` that occurs twice one occurrence stays, in the best document.

Contract: a byte is cut exactly when it lies in a window of `minimum_bytes` that occurs elsewhere in a better document
(quality, size, id) or earlier in the same one; characters are cut whole. The bytes found repeated are those of a suffix
array over the whole corpus (tested against one), in memory that does not grow with the corpus. Steps:

`anchors.substring`  anchors: two in `minimum_bytes` / 2 places            (`stages.dedup.anchors`), a shard each
`shared.substring`   anchors that occur twice, sorted out by their regions by range of hashes
`windows.substring`  hashes of the windows of regions that are equal in part only      a shard each
`copies.substring`   windows of which a better one stays                   (`stages.dedup.spans`), by range of hashes
`dedup.substring`    cuts                                                  a shard each

Of anchors whose whole regions are equal all but the best are copies, and the best stands for them where other regions
have the same anchor: so text that is repeated whole is never looked at window by window, only where repetition begins
and ends. Texts are read three times and hashed once. Memory: a batch of texts, 22 bytes an anchor of the shard, and
`spans.PART_ITEMS` windows, whatever is repeated. Disk: 25 bytes an anchor, 12 bytes a window at an edge.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numba import njit

from pipeline.core.record import ShardResult
from pipeline.core.steps import StepTask
from stages.dedup import spans
from stages.dedup.anchors import COPY, KEPT, MIXED, anchors, byte_values, cut_ranges, powers, window_hashes
from stages.dedup.batches import table_batches
from stages.dedup.keyfiles import save_array
from stages.dedup.pieces import write_without
from stages.dedup.sign import Records, input_files
from stages.dedup.signatures import text_buffers
from stages.dedup.spans import FOLDER, FOUND, Items, ItemsWriter, found_items, key_range, open_items, range_count
from stages.dedup.survivors import merged_facts

REASON = "dedup.substring"
ANCHORS, SHARED, WINDOWS, COPIES = "anchors", "shared", "windows", "copies"  # roles
FULL, PARTLY = "copies", "mixed"  # folders: anchors whose windows are all copies, and those of which some may be


@dataclass(frozen=True)
class Found:
    """Anchors of some texts: [I] arrays in the order of the text, and how many each text has."""

    keys: np.ndarray
    checks: np.ndarray
    lengths: np.ndarray
    spans: np.ndarray
    counts: np.ndarray


def text_anchors(texts: pa.Array | pa.ChunkedArray, window: int) -> Found:
    """The anchors of each text of a large_string column."""
    data, offsets = text_buffers(texts)
    gram = window // 2
    counts = np.zeros(offsets.shape[0] - 1, np.int64)
    room = (int(offsets[-1] - offsets[0]) * 5 // (window - gram + 2)) // 2 + 2 * offsets.shape[
        0
    ]  # 2 and a quarter more
    while True:
        types = (np.uint64, np.uint64, np.uint16, np.uint32)
        keys, checks, lengths, repeated = (np.empty(room, kind) for kind in types)
        count = anchors(data, offsets, gram, window, byte_values(), powers(), keys, checks, lengths, repeated, counts)
        if count <= room:
            return Found(keys[:count], checks[:count], lengths[:count], repeated[:count], counts)
        room = count


class ShardsWork:
    """One output shard for each input shard."""

    def shard_count(self, task: StepTask) -> int:
        return len(input_files(task))

    def finish(self, task: StepTask, results: Sequence[ShardResult]) -> Mapping[str, Any]:
        return merged_facts(results)


class AnchorsWork(ShardsWork):
    """Anchors with the hashes of their regions."""

    def make_shard(self, task: StepTask, shard: int) -> ShardResult:
        records, items = Records(task, shard), ItemsWriter(task.folder, shard)
        for table in table_batches(records.file, ("id", "text", "cluster_size")):
            found = text_anchors(table["text"], task.config.minimum_bytes)
            columns = {"checks": found.checks, "lengths": found.lengths, "spans": found.spans}
            items.add(found.keys, found.counts, records.of(table), **columns)
        items.finish()
        return ShardResult(counts={"anchors": items.items})


class SharedWork:
    """Sorts out the anchors that occur twice, by range of hashes; the input has the role `items`."""

    def shard_count(self, task: StepTask) -> int:
        return range_count(open_items(task.inputs[FOLDER].folder))

    def make_shard(self, task: StepTask, shard: int) -> ShardResult:
        items = open_items(task.inputs[FOLDER].folder)
        keys, nodes = items.of_range(*key_range(items, shard))
        kinds = np.empty(nodes.shape[0], np.uint8)
        if nodes.shape[0]:
            _sort_out(keys, items.values(nodes, "checks"), items.ranks(nodes), nodes, kinds)
        counts: dict[str, int] = {}
        for name, kind in ((FULL, COPY), (PARTLY, MIXED)):
            chosen = np.sort(nodes[kinds == kind])
            save_array(task.folder / name / f"{shard:05d}", "", chosen)
            counts[f"anchors_{name}"] = chosen.shape[0]
        return ShardResult(counts=counts)

    def finish(self, task: StepTask, results: Sequence[ShardResult]) -> Mapping[str, Any]:
        return {}


@njit(cache=True)
def _sort_out(keys: np.ndarray, checks: np.ndarray, ranks: np.ndarray, nodes: np.ndarray, kinds: np.ndarray) -> None:
    """Fill `kinds` of items whose equal keys stand side by side.

    Of equal checks all but the least by rank, then node, are copies; that one is mixed where its key has other checks.
    """
    first = 0
    while first < keys.shape[0]:
        last = first + 1
        while last < keys.shape[0] and keys[last] == keys[first]:
            last += 1
        order = np.argsort(checks[first:last])
        is_one = checks[first + order[0]] == checks[first + order[-1]]
        best = first + order[0]
        kinds[best] = KEPT if is_one else MIXED
        for place in range(1, last - first):
            item = first + order[place]
            kinds[item] = COPY
            if checks[item] != checks[best]:
                best = item
                kinds[best] = MIXED
            elif (ranks[item], nodes[item]) < (ranks[best], nodes[best]):
                kinds[item] = kinds[best]
                kinds[best] = COPY
                best = item
        first = last


@dataclass(frozen=True)
class Runs:
    """The windows of a shard's texts: [I] arrays of its anchors in order, [R + 1] the first of each text."""

    starts: np.ndarray  # of the first window, in bytes of the text
    lengths: np.ndarray
    spans: np.ndarray
    kinds: np.ndarray
    firsts: np.ndarray

    def of_rows(self, first: int, last: int) -> tuple[slice, np.ndarray]:
        """(items of some rows, [rows + 1] the first of each among them)."""
        return slice(self.firsts[first], self.firsts[last]), self.firsts[first : last + 1] - self.firsts[first]


def shard_runs(task: StepTask, items: Items) -> Runs:
    """Of the anchors of one shard, with what is shared among them."""
    firsts = np.cumsum([0, *items.counts()])
    lengths, repeated = items.column("lengths"), items.column("spans")
    ends = np.cumsum(repeated, dtype=np.int64)
    begins = ends - repeated
    starts = begins - np.repeat(begins[firsts[:-1][firsts[:-1] < firsts[1:]]], np.diff(firsts)[np.diff(firsts) > 0])
    kinds = np.zeros(lengths.shape[0], np.uint8)
    for name, kind in ((FULL, COPY), (PARTLY, MIXED)):
        kinds[found_items(items, task.inputs[SHARED].folder / name)] = kind
    return Runs(starts, lengths, repeated, kinds, firsts)


class WindowsWork(ShardsWork):
    """Hashes of the windows of mixed anchors."""

    def make_shard(self, task: StepTask, shard: int) -> ShardResult:
        window = task.config.minimum_bytes
        items = open_items(task.inputs[ANCHORS].folder).of_shard(shard)
        runs, documents, written = shard_runs(task, items), items.column("documents"), ItemsWriter(task.folder, shard)
        row = 0
        for table in table_batches(input_files(task)[shard], ("text",)):
            data, offsets = text_buffers(table["text"])
            chosen, firsts = runs.of_rows(row, row + table.num_rows)
            mixed = np.flatnonzero(runs.kinds[chosen] == MIXED)
            rows = np.searchsorted(firsts, mixed, side="right") - 1
            starts, lengths = runs.starts[chosen][mixed] + offsets[rows], runs.lengths[chosen][mixed]
            for part in _parts(lengths, spans.PART_ITEMS):
                hashes = np.empty(int(lengths[part].sum()), np.uint64)
                window_hashes(data, window, starts[part], lengths[part], byte_values(), powers(), hashes)
                distinct, places = np.unique(rows[part], return_inverse=True)
                counts = np.bincount(places, lengths[part], distinct.shape[0]).astype(np.int64)
                written.add(hashes, counts, documents[row + distinct])
            row += table.num_rows
        assert row == documents.shape[0], "another text was hashed"
        written.finish()
        return ShardResult(counts={"windows": written.items})


def _parts(lengths: np.ndarray, most: int) -> Iterator[slice]:
    """Neighbouring runs of about `most` windows."""
    ends = np.cumsum(lengths, dtype=np.int64)
    first = 0
    while first < lengths.shape[0]:
        last = max(first + 1, int(np.searchsorted(ends, (ends[first - 1] if first else 0) + most, side="right")))
        yield slice(first, last)
        first = last


class CutWork(ShardsWork):
    """The documents without what is repeated."""

    def make_shard(self, task: StepTask, shard: int) -> ShardResult:
        runs = shard_runs(task, open_items(task.inputs[ANCHORS].folder).of_shard(shard))
        windows = open_items(task.inputs[WINDOWS].folder).of_shard(shard)
        copies = found_items(windows, task.inputs[COPIES].folder / FOUND)
        seen = np.cumsum(np.concatenate([[0], np.where(runs.kinds == MIXED, runs.lengths, 0)]), dtype=np.int64)
        window = task.config.minimum_bytes

        def repeated(table: pa.Table, row: int) -> np.ndarray:
            data, offsets = text_buffers(table["text"])
            chosen, firsts = runs.of_rows(row, row + table.num_rows)
            before = seen[chosen.start]
            listed = copies[slice(*np.searchsorted(copies, (before, seen[chosen.stop])))] - before
            room = np.empty((2 * (chosen.stop - chosen.start) + listed.shape[0], 3), np.int64)
            of_items = (runs.lengths[chosen], runs.spans[chosen], runs.kinds[chosen])
            return room[: cut_ranges(data, offsets, window, firsts, *of_items, listed, room)]

        return write_without(task, shard, REASON, repeated)


FIND_ANCHORS = AnchorsWork()
SORT_ANCHORS = SharedWork()
HASH_WINDOWS = WindowsWork()
CUT = CutWork()
