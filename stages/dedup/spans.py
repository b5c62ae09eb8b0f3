"""Repeated pieces of text over the whole corpus, out of core: items with hashes in, the numbers of repeated items out.

Contract: an item is a piece of a document (a paragraph, a window of bytes, a run of windows); the items of a shard are
numbered in the order of its text, a node counts items over all shards. Files of an items step below `items/`, a set
for each part of an input shard; a part is some neighbouring documents, of which the last may go on in the next:

`00000-0000.keys.npy`       [1, I] uint64 hashes, ascending     `00000-0000.rows.npy`    [1, I] uint32 item of each
`00000-0000.documents.npy`  [D] records of `keyfiles.DOCUMENT`  `00000-0000.firsts.npy`  [D + 1] int64 first item of one

and further columns [I] in the order of the items. Works, a shard for each range of hashes: `COPIES` lists all items for
which a better one with the same hash stays: of the best document (quality, size, id), the first in it. Equal 64-bit
hashes are taken for equal pieces: of 10^9 pieces one pair is wrong with a chance of 3 %. Memory: `RANGE_ITEMS` x 100
bytes for a range, `PART_ITEMS` x 40 for a part, whatever the corpus.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit

from pipeline.core.files import PARTIAL
from pipeline.core.record import ShardResult
from pipeline.core.steps import StepTask
from stages.dedup.cluster import ascending_order, ranked, shared
from stages.dedup.keyfiles import DOCUMENT, load_array, place_of_key, save_array

FOLDER = "items"
FOUND = "found"
RANGE_ITEMS = 1 << 22  # items a range of hashes, about (ours: 400 MB)
PART_ITEMS = 1 << 22  # items that are sorted at once (ours: 160 MB)


@dataclass(frozen=True)
class Items:
    """The item files of a step in order: [P] parts of shards; `first_nodes` is [P + 1], `shards` [P] int64."""

    stems: tuple[Path, ...]
    first_nodes: np.ndarray
    shards: np.ndarray

    def of_shard(self, shard: int) -> Items:
        """The parts of one shard."""
        first, last = np.searchsorted(self.shards, (shard, shard + 1))
        return Items(self.stems[first:last], self.first_nodes[first : last + 1], self.shards[first:last])

    def column(self, name: str) -> np.ndarray:
        """[I] one column in the order of the items."""
        return np.concatenate([load_array(stem, name) for stem in self.stems])

    def counts(self) -> np.ndarray:
        """[D] items of each document, where no document goes on in the next part."""
        return np.concatenate([np.diff(load_array(stem, "firsts")) for stem in self.stems])

    def values(self, nodes: np.ndarray, name: str) -> np.ndarray:
        """[nodes] one column, of nodes in any order."""
        order = np.argsort(nodes)
        ascending = nodes[order]
        cuts = np.searchsorted(ascending, self.first_nodes)
        out = np.empty(nodes.shape[0], load_array(self.stems[0], name).dtype)
        for part in np.flatnonzero(np.diff(cuts)):
            place = slice(cuts[part], cuts[part + 1])
            out[order[place]] = load_array(self.stems[part], name)[ascending[place] - self.first_nodes[part]]
        return out

    def of_range(self, low: int, high: int) -> tuple[np.ndarray, np.ndarray]:
        """(keys, nodes) with low <= key < high that occur more than once, equal keys side by side."""
        keys: list[np.ndarray] = []
        nodes: list[np.ndarray] = []
        for stem, first in zip(self.stems, self.first_nodes[:-1], strict=True):
            own = load_array(stem, "keys")[0]
            cut = slice(place_of_key(own, low), place_of_key(own, high))
            keys.append(np.array(own[cut]))
            nodes.append(load_array(stem, "rows")[0][cut].astype(np.int64) + first)
        all_keys, all_nodes = np.concatenate(keys), np.concatenate(nodes)
        members = shared(all_keys)
        return all_keys[members], all_nodes[members]

    def ranks(self, nodes: np.ndarray) -> np.ndarray:
        """[nodes] int64, less for a piece of a better document, of nodes in any order."""
        order = np.argsort(nodes)
        ascending = nodes[order]
        cuts = np.searchsorted(ascending, self.first_nodes)
        owners = np.empty(nodes.shape[0], np.int64)  # places in `records`
        records: list[np.ndarray] = []
        count = 0
        for part in np.flatnonzero(np.diff(cuts)):
            place = slice(cuts[part], cuts[part + 1])
            items = ascending[place] - self.first_nodes[part]
            rows = np.searchsorted(load_array(self.stems[part], "firsts"), items, side="right") - 1
            distinct, own = ranked(rows)
            records.append(load_array(self.stems[part], "documents")[distinct])
            owners[place] = own + count
            count += distinct.shape[0]
        all_records = np.concatenate([load_array(self.stems[0], "documents")[:0], *records])
        best_first = np.lexsort(
            (all_records["low"], all_records["high"], -all_records["size"], -all_records["quality"])
        )
        rank = np.empty(count, np.int64)
        rank[best_first] = np.arange(count)
        out = np.empty(nodes.shape[0], np.int64)
        out[order] = rank[owners]
        return out


@njit(cache=True)
def _is_copy(keys: np.ndarray, ranks: np.ndarray, nodes: np.ndarray) -> np.ndarray:
    """Of each run of equal keys all but the one of least rank, then node."""
    out = np.ones(keys.shape[0], np.bool_)
    best = 0
    for place in range(1, keys.shape[0] + 1):
        if place == keys.shape[0] or keys[place] != keys[best]:
            out[best] = False
            best = place
        elif (ranks[place], nodes[place]) < (ranks[best], nodes[best]):
            best = place
    return out


class ItemsWriter:
    """Writes one shard's files, a part whenever `PART_ITEMS` are there."""

    def __init__(self, folder: Path, shard: int) -> None:
        self._stem = folder / FOLDER / f"{shard:05d}"
        self._parts = self.items = 0
        self._start()

    def add(self, keys: np.ndarray, counts: np.ndarray, documents: np.ndarray, **columns: np.ndarray) -> None:
        """Items in the order of the text: keys [I], how many of each document [D], records [D], columns [I]."""
        self._columns.append({"keys": keys, "counts": counts, "documents": documents, **columns})
        self.items += keys.shape[0]
        self._waiting += keys.shape[0]
        if self._waiting >= PART_ITEMS:
            self._write()

    def finish(self) -> None:
        """Write what is left; a shard has one part at least."""
        if self._columns or not self._parts:
            self._write()

    def _start(self) -> None:
        self._columns: list[dict[str, np.ndarray]] = []
        self._waiting = 0

    def _write(self) -> None:
        if not self._columns:
            self.add(np.empty(0, np.uint64), np.empty(0, np.int64), np.empty(0, DOCUMENT))
        joined = {name: np.concatenate([part[name] for part in self._columns]) for name in self._columns[0]}
        self._start()
        keys, counts = joined.pop("keys"), joined.pop("counts")
        stem = self._stem.with_name(f"{self._stem.name}-{self._parts:04d}")
        for name, column in joined.items():
            save_array(stem, name, column)
        save_array(stem, "firsts", np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))
        order = ascending_order(keys)
        save_array(stem, "rows", order.astype(np.uint32)[None])
        save_array(stem, "keys", keys[order][None])
        self._parts += 1


def open_items(folder: Path) -> Items:
    """The items of a finished step."""
    files = sorted(p for p in (folder / FOLDER).glob("*.keys.npy") if not p.name.startswith(PARTIAL))
    stems = tuple(file.with_name(file.name.removesuffix(".keys.npy")) for file in files)
    counts = [load_array(stem, "keys").shape[1] for stem in stems]
    shards = [int(stem.name.partition("-")[0]) for stem in stems]
    return Items(stems, np.cumsum([0, *counts]).astype(np.int64), np.array(shards, np.int64))


def found_items(items: Items, folder: Path) -> np.ndarray:
    """[found] int64 ascending numbers of the items (of a shard) that the ranges below `folder` list."""
    first, last = items.first_nodes[0], items.first_nodes[-1]
    parts = [np.empty(0, np.int64)]
    for file in sorted(folder.glob("[!.]*.npy")):
        nodes = load_array(file.with_suffix(""), "")
        parts.append(nodes[slice(*np.searchsorted(nodes, (first, last)))] - first)
    return np.sort(np.concatenate(parts))


class CopiesWork:
    """Lists all but the best of equal items, a shard for each range of hashes; the input has the role `items`."""

    def shard_count(self, task: StepTask) -> int:
        return range_count(_items(task))

    def make_shard(self, task: StepTask, shard: int) -> ShardResult:
        items = _items(task)
        keys, nodes = items.of_range(*key_range(items, shard))
        found = np.sort(nodes[_is_copy(keys, items.ranks(nodes), nodes)]) if nodes.shape[0] else nodes
        save_array(task.folder / FOUND / f"{shard:05d}", "", found)
        return ShardResult(counts={"items_found": found.shape[0]})

    def finish(self, task: StepTask, results: Sequence[ShardResult]) -> Mapping[str, Any]:
        return {}


def _items(task: StepTask) -> Items:
    return open_items(task.inputs[FOLDER].folder)


def range_count(items: Items) -> int:
    """Ranges of hashes that so many items are compared in."""
    return -(-max(1, int(items.first_nodes[-1])) // RANGE_ITEMS)


def key_range(items: Items, part: int) -> tuple[int, int]:
    """(least, end) of one of them."""
    low, high = ((part + k) * (1 << 64) // range_count(items) for k in (0, 1))
    return low, high


COPIES = CopiesWork()
