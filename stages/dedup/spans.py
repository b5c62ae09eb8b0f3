"""Repeated pieces of text over the whole corpus, out of core: items with hashes in, the numbers of repeated items out.

Contract: an item is a piece of a document (a paragraph, a window of bytes); the items of a shard are numbered in the
order of its text, a node counts items over all shards. Files of an items step, an input shard each, below `items/`:

`00000.keys.npy`       [1, I] uint64 hashes, ascending     `00000.rows.npy`       [1, I] uint32 the item of each hash
`00000.documents.npy`  [D] records of `keyfiles.DOCUMENT`  `00000.firsts.npy`     [D + 1] int64 first item of each

Works, a shard for each range of hashes: `SHARED` lists all items whose hash another item has, `COPIES` those for which
a better one stays: of the best document (quality, size, id), the first in it. Equal 64-bit hashes are taken for equal
pieces: of 10^9 pieces one pair is wrong with a chance of 3 %. Memory: `RANGE_ITEMS` x 100 bytes, whatever the corpus.
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
from stages.dedup.keyfiles import load_array, place_of_key, save_array

FOLDER = "items"
FOUND = "found"
RANGE_ITEMS = 1 << 22  # items a range of hashes, about (ours: 400 MB)


@dataclass(frozen=True)
class Items:
    """The item files of a step in order; `first_nodes` is [shards + 1] int64."""

    stems: tuple[Path, ...]
    first_nodes: np.ndarray

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
        for shard in np.flatnonzero(np.diff(cuts)):
            place = slice(cuts[shard], cuts[shard + 1])
            items = ascending[place] - self.first_nodes[shard]
            rows = np.searchsorted(load_array(self.stems[shard], "firsts"), items, side="right") - 1
            distinct, own = ranked(rows)
            records.append(load_array(self.stems[shard], "documents")[distinct])
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


def write_items(folder: Path, shard: int, keys: np.ndarray, counts: np.ndarray, documents: np.ndarray) -> None:
    """Write one shard's files: keys [I] uint64 in the order of the text, counts [D] of items, documents [D]."""
    order = ascending_order(keys)
    stem = folder / FOLDER / f"{shard:05d}"
    save_array(stem, "documents", documents)
    save_array(stem, "firsts", np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))
    save_array(stem, "keys", keys[order][None])
    save_array(stem, "rows", order.astype(np.uint32)[None])


def open_items(folder: Path) -> Items:
    """The items of a finished step."""
    files = sorted(p for p in (folder / FOLDER).glob("*.keys.npy") if not p.name.startswith(PARTIAL))
    stems = tuple(file.with_name(file.name.removesuffix(".keys.npy")) for file in files)
    counts = [load_array(stem, "keys").shape[1] for stem in stems]
    return Items(stems, np.cumsum([0, *counts]).astype(np.int64))


def found_items(items: Items, folder: Path, shard: int) -> np.ndarray:
    """[found] int64 ascending numbers of the items of `shard` that the ranges below `folder` list."""
    first, last = items.first_nodes[shard : shard + 2]
    parts = [np.empty(0, np.int64)]
    for file in sorted((folder / FOUND).glob("[!.]*.npy")):
        nodes = load_array(file.with_suffix(""), "")
        parts.append(nodes[slice(*np.searchsorted(nodes, (first, last)))] - first)
    return np.sort(np.concatenate(parts))


class RangeWork:
    """A step's work over ranges of hashes; its input has the role `items`."""

    def shard_count(self, task: StepTask) -> int:
        return _ranges(_items(task))

    def make_shard(self, task: StepTask, shard: int) -> ShardResult:
        items = _items(task)
        low, high = ((shard + k) * (1 << 64) // _ranges(items) for k in (0, 1))
        keys, nodes = items.of_range(low, high)
        found = np.sort(self.chosen(items, keys, nodes))
        save_array(task.folder / FOUND / f"{shard:05d}", "", found)
        return ShardResult(counts={"items_found": found.shape[0]})

    def chosen(self, items: Items, keys: np.ndarray, nodes: np.ndarray) -> np.ndarray:
        """Which of the nodes, all with keys that occur more than once, to list."""
        del items, keys
        return nodes

    def finish(self, task: StepTask, results: Sequence[ShardResult]) -> Mapping[str, Any]:
        return {}


class CopiesWork(RangeWork):
    """Lists all but the best."""

    def chosen(self, items: Items, keys: np.ndarray, nodes: np.ndarray) -> np.ndarray:
        return nodes[_is_copy(keys, items.ranks(nodes), nodes)] if nodes.shape[0] else nodes


def _items(task: StepTask) -> Items:
    return open_items(task.inputs[FOLDER].folder)


def _ranges(items: Items) -> int:
    return -(-max(1, int(items.first_nodes[-1])) // RANGE_ITEMS)


SHARED = RangeWork()
COPIES = CopiesWork()
