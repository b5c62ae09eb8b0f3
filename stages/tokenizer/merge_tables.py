"""Pairs of neighbouring tokens in compiled code: their numbers, weights, lists of sequences, and the heap over them.

Contract: a pair's number is its place in `pairs`, by first appearance, and is found by its key through an open hash
table. The heap holds (weight, pair), highest weight first, among equals the smaller (left id, right id); weights change
without it, and who takes an entry compares. A list of sequences, some outdated, is a chain of segments in `lists`: how
many it holds, where the next is, and the sequences side by side; a reference to a list is a place there, -1 for none,
or -2 - sequence for one that stands alone and needs no segment. Growing copies, and leaves behind what is not used.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from stages.tokenizer.tables import Integer

OPEN, VETOED = -1, -2  # in `ranks`; from 0 on: merged
SEGMENT = 2  # what stands before the sequences of a segment
FEW = 512  # reserved ids and single bytes, and some more
PAIRS, HEAP, LISTED, TOKENS, MERGES, REPLAYED, STEP = range(7)  # places in `numbers`


class Tables(NamedTuple):
    """The arrays of the loop; they are replaced when they grow."""

    keys: np.ndarray  # [slots] int64 left << 32 | right, -1 where empty
    values: np.ndarray  # [slots] int32 number of the pair
    pairs: np.ndarray  # [pairs] int64 key
    counts: np.ndarray  # [pairs * C] int64
    heads: np.ndarray  # [pairs] int32 reference to the pair's list
    ranks: np.ndarray  # [pairs] int32
    lists: np.ndarray  # int32
    heap_counts: np.ndarray  # int64
    heap_pairs: np.ndarray  # int32


@njit(cache=True, inline="always")
def first_slot(keys: np.ndarray, key: Integer):
    """Where the search for a key begins."""
    return np.int64((np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(20)) & (keys.size - 1)


@njit(cache=True)
def slot_of(keys: np.ndarray, key: Integer):
    mask = keys.size - 1
    place = first_slot(keys, key)
    while keys[place] != -1 and keys[place] != key:
        place = (place + 1) & mask
    return place


@njit(cache=True)
def grown(array: np.ndarray, size: Integer, fill: Integer):
    larger = np.full(size, fill, array.dtype)
    larger[: array.size] = array
    return larger


@njit(cache=True)
def longer_records(records: np.ndarray, size: Integer):
    longer = np.empty((size, 2), np.int32)
    longer[: records.shape[0]] = records
    return longer


@njit(cache=True)
def lists_with_room(lists: np.ndarray, heads: np.ndarray, numbers: np.ndarray, more: Integer):
    """The lists with room for `more`; when they must grow, only segments that a pair still has are taken along."""
    if numbers[LISTED] + more <= lists.size:
        return lists
    live = 0
    for pair in range(numbers[PAIRS]):
        segment = heads[pair]
        while segment >= 0:
            live += lists[segment] + SEGMENT
            segment = lists[segment + 1]
    longer = np.empty(max(lists.size, live + (live >> 1) + more), np.int32)
    used = 0
    for pair in range(numbers[PAIRS]):
        segment, before = heads[pair], -1
        while segment >= 0:
            size = lists[segment] + SEGMENT
            longer[used : used + size] = lists[segment : segment + size]
            if before < 0:
                heads[pair] = used
            else:
                longer[before + 1] = used
            before, segment, used = used, lists[segment + 1], used + size
    numbers[LISTED] = used
    return longer


@njit(cache=True)
def pair_key(left: Integer, right: Integer):
    return (np.int64(left) << 32) | np.int64(right)


@njit(cache=True)
def with_room(tables: Tables, columns: Integer, numbers: np.ndarray, more: Integer):
    """The tables with room for `more` pairs, and for as many heap entries."""
    pairs = numbers[PAIRS]
    keys, values, known, counts, heads, ranks = (
        tables.keys, tables.values, tables.pairs, tables.counts, tables.heads, tables.ranks,
    )  # fmt: skip
    heap_counts, heap_pairs = tables.heap_counts, tables.heap_pairs
    if pairs + more > known.size:
        size = 2 * known.size + more
        known, counts = grown(known, size, 0), grown(counts, size * columns, 0)
        heads, ranks = grown(heads, size, -1), grown(ranks, size, OPEN)
    if 2 * (pairs + more) > keys.size:
        slots = keys.size
        while 2 * (pairs + more) > slots:
            slots *= 2
        keys, values = np.full(slots, -1, np.int64), np.zeros(slots, np.int32)
        for pair in range(pairs):
            place = slot_of(keys, known[pair])
            keys[place], values[place] = known[pair], pair
    if numbers[HEAP] + more > heap_counts.size:
        size = 2 * heap_counts.size + more
        heap_counts, heap_pairs = grown(heap_counts, size, 0), grown(heap_pairs, size, 0)
    return Tables(keys, values, known, counts, heads, ranks, tables.lists, heap_counts, heap_pairs)


@njit(cache=True)
def pair_number(keys: np.ndarray, values: np.ndarray, pairs: np.ndarray, numbers: np.ndarray, key: Integer):
    """The number of a pair, new or known; there must be room."""
    place = slot_of(keys, key)
    if keys[place] == -1:
        pair = numbers[PAIRS]
        numbers[PAIRS] += 1
        keys[place], values[place], pairs[pair] = key, pair, key
        return np.int32(pair)
    return values[place]


@njit(cache=True)
def _before(count: Integer, pair: Integer, other_count: Integer, other_pair: Integer, pairs: np.ndarray):
    return count > other_count or (count == other_count and pairs[pair] < pairs[other_pair])


@njit(cache=True)
def push(
    heap_counts: np.ndarray, heap_pairs: np.ndarray, size: Integer, count: Integer, pair: Integer, pairs: np.ndarray
):
    place = size
    while place > 0:
        above = (place - 1) >> 1
        if not _before(count, pair, heap_counts[above], heap_pairs[above], pairs):
            break
        heap_counts[place], heap_pairs[place] = heap_counts[above], heap_pairs[above]
        place = above
    heap_counts[place], heap_pairs[place] = count, pair


@njit(cache=True)
def pop(heap_counts: np.ndarray, heap_pairs: np.ndarray, size: Integer, pairs: np.ndarray):
    """Remove the first of `size` entries, which the caller has read."""
    size -= 1
    count, pair = heap_counts[size], heap_pairs[size]
    place = 0
    while True:
        below = 2 * place + 1
        if below >= size:
            break
        if below + 1 < size and _before(
            heap_counts[below + 1], heap_pairs[below + 1], heap_counts[below], heap_pairs[below], pairs
        ):
            below += 1
        if not _before(heap_counts[below], heap_pairs[below], count, pair, pairs):
            break
        heap_counts[place], heap_pairs[place] = heap_counts[below], heap_pairs[below]
        place = below
    heap_counts[place], heap_pairs[place] = count, pair


@njit(cache=True)
def counted(token_ids: np.ndarray, rows: np.ndarray, columns: Integer, numbers: np.ndarray):
    """The tables of the sequences as they are: every pair counted, listed and on the heap."""
    tables = Tables(
        np.full(1 << 16, -1, np.int64),
        np.zeros(1 << 16, np.int32),
        np.zeros(1 << 14, np.int64),
        np.zeros((1 << 14) * columns, np.int64),
        np.full(1 << 14, -1, np.int32),
        np.full(1 << 14, OPEN, np.int32),
        np.empty(0, np.int32),
        np.zeros(1 << 14, np.int64),
        np.zeros(1 << 14, np.int32),
    )
    few = np.full((FEW, FEW), -1, np.int32)  # pairs of the smallest ids, found without hashing
    found = np.empty(token_ids.size, np.int32)  # the pair that begins at each place
    for sequence in range(rows.shape[0]):
        length = rows[sequence, 1]
        if numbers[PAIRS] + length > tables.pairs.size or 2 * (numbers[PAIRS] + length) > tables.keys.size:
            tables = with_room(tables, columns, numbers, length)
        start = rows[sequence, 0]
        for place in range(start, start + length - 1):
            left, right = token_ids[place], token_ids[place + 1]
            pair = np.int32(-1)
            if left < FEW and right < FEW:
                pair = few[left, right]
            if pair < 0:
                pair = pair_number(tables.keys, tables.values, tables.pairs, numbers, pair_key(left, right))
                if left < FEW and right < FEW:
                    few[left, right] = pair
            found[place] = pair
            for column in range(columns):
                tables.counts[pair * columns + column] += rows[sequence, 2 + column]
    lists = _listed(found, rows, numbers, tables.heads)
    tables = Tables(
        tables.keys, tables.values, tables.pairs, tables.counts, tables.heads, tables.ranks, lists,
        tables.heap_counts, tables.heap_pairs,
    )  # fmt: skip
    tables = with_room(tables, columns, numbers, numbers[PAIRS])
    for pair in range(numbers[PAIRS]):
        push(
            tables.heap_counts, tables.heap_pairs, numbers[HEAP], weight_of(tables.counts, pair, columns), pair,
            tables.pairs,
        )  # fmt: skip
        numbers[HEAP] += 1
    return tables


@njit(cache=True)
def _listed(found: np.ndarray, rows: np.ndarray, numbers: np.ndarray, heads: np.ndarray):
    """The lists of all pairs, with `heads` set."""
    pairs = numbers[PAIRS]
    last, sizes = np.full(pairs, -1, np.int32), np.zeros(pairs, np.int32)
    for sequence in range(rows.shape[0]):
        for place in range(rows[sequence, 0], rows[sequence, 0] + rows[sequence, 1] - 1):
            pair = found[place]
            if last[pair] != sequence:
                last[pair] = sequence
                sizes[pair] += 1
    used = 0
    for pair in range(pairs):
        used += sizes[pair] + SEGMENT if sizes[pair] > 1 else 0
    lists = np.empty(used + (used >> 2), np.int32)
    used = 0
    for pair in range(pairs):
        if sizes[pair] > 1:
            heads[pair], lists[used], lists[used + 1] = used, sizes[pair], -1
            used += sizes[pair] + SEGMENT
        elif sizes[pair] == 1:
            heads[pair] = -2 - last[pair]
        last[pair], sizes[pair] = -1, 0
    numbers[LISTED] = used
    for sequence in range(rows.shape[0]):
        for place in range(rows[sequence, 0], rows[sequence, 0] + rows[sequence, 1] - 1):
            pair = found[place]
            if heads[pair] >= 0 and last[pair] != sequence:
                last[pair] = sequence
                lists[heads[pair] + SEGMENT + sizes[pair]] = sequence
                sizes[pair] += 1
    return lists


@njit(cache=True)
def refused(tables: Tables, columns: Integer, numbers: np.ndarray, keys: np.ndarray):
    """The tables with these pairs marked as refused."""
    tables = with_room(tables, columns, numbers, keys.size)
    for key in keys:
        tables.ranks[pair_number(tables.keys, tables.values, tables.pairs, numbers, key)] = VETOED
    return tables


@njit(cache=True)
def weight_of(counts: np.ndarray, pair: Integer, columns: Integer):
    total = np.int64(0)
    for column in range(columns):
        total += counts[pair * columns + column]
    return total
