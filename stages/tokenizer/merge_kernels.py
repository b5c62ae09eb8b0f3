"""The merge loop of `stages.tokenizer.merging`, compiled: choosing a pair, and merging it wherever it is.

Contract: `merge_slice` makes a bounded number of merges and can be called again; all state is in its arguments, which
it changes in place or gives back. `neighbours` finds, by the token beside the merged pair, the pair that ends and the
one that begins, so that hashing is done once a neighbour and merge and not once an occurrence.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from stages.tokenizer.merge_tables import (
    ENTRIES,
    FREE,
    HEAP,
    MERGES,
    OPEN,
    REPLAYED,
    STEP,
    TOKENS,
    VETOED,
    Tables,
    grown,
    longer_entries,
    pair_key,
    pair_number,
    pop,
    push,
    slot_of,
    weight_of,
    with_room,
)
from stages.tokenizer.tables import Integer

HASH_BASE = 0x9E3779B97F4A7C15  # of a token's bytes, a polynomial modulo 2^64; any large odd number
WORDS, START_INSIDE, END_INSIDE, START_SPACE, END_SPACE = range(5)  # columns of a token's traits
MORE, DONE, DRY = range(3)  # how a slice ended


class Neighbours(NamedTuple):
    """What one merge does to the tokens before (0) and behind (1) the merged pair, by token."""

    stamps: np.ndarray  # [2, tokens] int64 step that the rest belongs to
    lists: np.ndarray  # [2, tokens] int32 list of the new pair
    gains: np.ndarray  # [2, tokens, C] int64 what the new pair gains and the old one loses
    beside: np.ndarray  # [pairs, 2] int32 (side, token) of each new pair
    touched: np.ndarray  # [pairs] int32 the new pairs


class Vocabulary(NamedTuple):
    """By token id: hash, base ** length, and traits; and the hash table from a hash to its id."""

    hashes: np.ndarray  # uint64
    powers: np.ndarray  # uint64
    traits: np.ndarray  # [tokens, 5] int32
    hash_keys: np.ndarray  # [slots] int64
    hash_ids: np.ndarray  # [slots] int32


class Chosen(NamedTuple):
    """By rank."""

    lefts: np.ndarray
    rights: np.ndarray
    results: np.ndarray
    counts: np.ndarray
    by_class: np.ndarray  # new tokens
    by_column: np.ndarray  # new tokens


@njit(cache=True)
def _applied(
    token_ids: np.ndarray,
    rows: np.ndarray,
    columns: Integer,
    tables: Tables,
    neighbours: Neighbours,
    numbers: np.ndarray,
    merged_pair: Integer,
    left: Integer,
    right: Integer,
    result: Integer,
):
    """Merge one pair everywhere. Returns the entries (they may have grown) and how many pairs gained weight."""
    keys, values, pairs, counts, heads = tables.keys, tables.values, tables.pairs, tables.counts, tables.heads
    entries = tables.entries
    stamps, lists, gains, beside, touched = neighbours
    numbers[STEP] += 1
    step, free, used, found = numbers[STEP], numbers[FREE], numbers[ENTRIES], 0
    doubled = np.int32(-1)  # the pair (result, result), which may come up on both sides
    entry = heads[merged_pair]
    heads[merged_pair] = -1
    while entry >= 0:
        sequence, following = entries[entry, 0], entries[entry, 1]
        entries[entry, 1] = free
        free, entry = entry, following
        start = rows[sequence, 0]
        end = start + rows[sequence, 1]
        place = start
        while place + 1 < end and not (token_ids[place] == left and token_ids[place + 1] == right):
            place += 1
        if place + 1 >= end:
            continue
        if used + 2 * (end - start) > entries.shape[0]:
            entries = longer_entries(entries, used + (used >> 1) + 2 * (end - start))
        written, fresh = place, False
        while place < end:
            if not (token_ids[place] == left and place + 1 < end and token_ids[place + 1] == right):
                token_ids[written] = token_ids[place]
                written, place, fresh = written + 1, place + 1, False
                continue
            for side in range(2):
                if side == 0:  # what stands before it
                    if written == start:
                        continue
                    token = token_ids[written - 1]
                else:  # what stands behind it, unless that is merged next
                    if place + 2 >= end:
                        continue
                    token = token_ids[place + 2]
                    if token == left and place + 3 < end and token_ids[place + 3] == right:
                        continue
                if token == result:
                    if side == 1:
                        key = pair_key(right, result)
                    else:  # merged just before, as (right, left); or the same bytes by another cut
                        key = pair_key(right, left) if fresh else pair_key(result, left)
                    old = pair_number(keys, values, pairs, numbers, key)
                    if doubled < 0:
                        doubled = pair_number(keys, values, pairs, numbers, pair_key(result, result))
                    for column in range(columns):
                        counts[old * columns + column] -= rows[sequence, 2 + column]
                        counts[doubled * columns + column] += rows[sequence, 2 + column]
                    head = heads[doubled]
                else:
                    if stamps[side, token] != step:
                        stamps[side, token] = step
                        new_key = pair_key(token, result) if side == 0 else pair_key(result, token)
                        beside[found, 0], beside[found, 1] = side, token
                        touched[found] = pair_number(keys, values, pairs, numbers, new_key)
                        lists[side, token] = heads[touched[found]]
                        for column in range(columns):
                            gains[side, token, column] = 0
                        found += 1
                    for column in range(columns):
                        gains[side, token, column] += rows[sequence, 2 + column]
                    head = lists[side, token]
                if head < 0 or entries[head, 0] != sequence:
                    if free >= 0:
                        spare, free = free, entries[free, 1]
                    else:
                        spare = used
                        used += 1
                    entries[spare, 0], entries[spare, 1] = sequence, head
                    if token == result:
                        heads[doubled] = spare
                    else:
                        lists[side, token] = spare
            token_ids[written] = result
            written, place, fresh = written + 1, place + 2, True
        rows[sequence, 1] = written - start
    for one in range(found):
        side, token, new = beside[one, 0], beside[one, 1], touched[one]
        old_key = pair_key(token, left) if side == 0 else pair_key(right, token)
        old = pair_number(keys, values, pairs, numbers, old_key)
        heads[new] = lists[side, token]
        for column in range(columns):
            counts[old * columns + column] -= gains[side, token, column]
            counts[new * columns + column] += gains[side, token, column]
    if doubled >= 0:
        touched[found] = doubled
        found += 1
    for column in range(columns):
        counts[merged_pair * columns + column] = 0
    numbers[FREE], numbers[ENTRIES] = free, used
    return entries, found


@njit(cache=True)
def known_or_noted(vocabulary: Vocabulary, token: Integer):
    """The token of the same bytes that is known already, or `token`, which is then known."""
    mixed = (vocabulary.hashes[token] ^ (vocabulary.hashes[token] >> np.uint64(31))) * np.uint64(HASH_BASE)
    key = np.int64((mixed ^ (mixed >> np.uint64(29))) >> np.uint64(1))
    place = slot_of(vocabulary.hash_keys, key)
    if vocabulary.hash_keys[place] == -1:
        vocabulary.hash_keys[place], vocabulary.hash_ids[place] = key, token
    return vocabulary.hash_ids[place]


@njit(cache=True)
def _joined_words(traits: np.ndarray, left: Integer, right: Integer):
    words = traits[left, WORDS] + traits[right, WORDS]
    inside_one = traits[left, END_SPACE] == 0 and traits[right, START_SPACE] == 0
    return words - 1 if inside_one and traits[left, WORDS] > 0 and traits[right, WORDS] > 0 else words


@njit(cache=True)
def _result(vocabulary: Vocabulary, numbers: np.ndarray, left: Integer, right: Integer):
    """The token that a merge makes: a known one of the same bytes, or the next new one."""
    token = numbers[TOKENS]
    traits = vocabulary.traits
    vocabulary.hashes[token] = vocabulary.hashes[left] * vocabulary.powers[right] + vocabulary.hashes[right]
    found = known_or_noted(vocabulary, token)
    if found == token:
        vocabulary.powers[token] = vocabulary.powers[left] * vocabulary.powers[right]
        traits[token, WORDS] = _joined_words(traits, left, right)
        traits[token, START_INSIDE], traits[token, START_SPACE] = traits[left, START_INSIDE], traits[left, START_SPACE]
        traits[token, END_INSIDE], traits[token, END_SPACE] = traits[right, END_INSIDE], traits[right, END_SPACE]
        numbers[TOKENS] += 1
    return np.int32(found)


@njit(cache=True)
def _heaviest(counts: np.ndarray, pair: Integer, columns: Integer, classes: np.ndarray, weights: np.ndarray):
    """(class, column) of a pair: the class with most of its weight, and its column with most; the first of equals.

    `weights` is [classes] int64, overwritten."""
    weights[:] = 0
    for column in range(columns):
        weights[classes[column]] += counts[pair * columns + column]
    of_class, of_column = np.argmax(weights), -1
    for column in range(columns):
        if classes[column] == of_class and (
            of_column < 0 or counts[pair * columns + column] > counts[pair * columns + of_column]
        ):
            of_column = column
    return of_class, of_column


@njit(cache=True)
def _allowed(vocabulary: Vocabulary, limits: np.ndarray, left: Integer, right: Integer):
    traits = vocabulary.traits
    words = _joined_words(traits, left, right)
    whole = traits[left, START_INSIDE] == 0 and traits[right, END_INSIDE] == 0
    return limits[2] <= words <= limits[3] and (whole or limits[2] < 2)


@njit(cache=True)
def merge_slice(
    token_ids: np.ndarray,
    rows: np.ndarray,
    columns: Integer,
    tables: Tables,
    neighbours: Neighbours,
    vocabulary: Vocabulary,
    chosen: Chosen,
    replay: np.ndarray,
    limits: np.ndarray,
    classes: np.ndarray,
    quotas: np.ndarray,
    numbers: np.ndarray,
    merges: Integer,
):
    """At most `merges` merges. Returns the tables and how it ended."""
    room = 2 * vocabulary.hashes.size + 8  # pairs that one merge can make
    class_weights = np.empty(quotas.size, np.int64)
    pending = np.empty(64, np.int32)  # merged pairs that came up again
    last = numbers[MERGES] + merges
    while numbers[MERGES] < last:
        if numbers[MERGES] == chosen.lefts.size:
            return tables, DRY
        if numbers[REPLAYED] < replay.shape[0]:
            tables = with_room(tables, columns, numbers, room)
            left, right, result = replay[numbers[REPLAYED]]
            numbers[REPLAYED] += 1
            pair = pair_number(tables.keys, tables.values, tables.pairs, numbers, pair_key(left, right))
            count = weight_of(tables.counts, pair, columns)
            if tables.ranks[pair] >= 0:
                continue
        else:
            if numbers[TOKENS] >= limits[0]:
                return tables, DONE
            if numbers[HEAP] == 0:
                return tables, DRY
            count, pair = tables.heap_counts[0], tables.heap_pairs[0]
            pop(tables.heap_counts, tables.heap_pairs, numbers[HEAP], tables.pairs)
            numbers[HEAP] -= 1
            if tables.ranks[pair] != OPEN:
                continue
            now = weight_of(tables.counts, pair, columns)
            if now != count:
                if now >= limits[1]:
                    push(tables.heap_counts, tables.heap_pairs, numbers[HEAP], now, pair, tables.pairs)
                    numbers[HEAP] += 1
                continue
            if count < limits[1]:
                return tables, DRY
            left, right = np.int32(tables.pairs[pair] >> 32), np.int32(tables.pairs[pair] & 0xFFFFFFFF)
            of_class, of_column = _heaviest(tables.counts, pair, columns, classes, class_weights)
            if chosen.by_class[of_class] >= quotas[of_class] or not _allowed(vocabulary, limits, left, right):
                tables.ranks[pair] = VETOED
                continue
            tables = with_room(tables, columns, numbers, room)
            before = numbers[TOKENS]
            result = _result(vocabulary, numbers, left, right)
            chosen.by_class[of_class] += numbers[TOKENS] - before
            chosen.by_column[of_column] += numbers[TOKENS] - before
        rank = numbers[MERGES]
        chosen.lefts[rank], chosen.rights[rank], chosen.results[rank] = left, right, result
        tables.ranks[pair] = rank
        numbers[MERGES] += 1
        pending[0] = pair
        waiting = 1
        while waiting > 0:
            first = 0
            for place in range(1, waiting):
                if tables.ranks[pending[place]] < tables.ranks[pending[first]]:
                    first = place
            pair = pending[first]
            waiting -= 1
            pending[first] = pending[waiting]
            rank = tables.ranks[pair]
            chosen.counts[rank] += weight_of(tables.counts, pair, columns)
            entries, gained = _applied(
                token_ids, rows, columns, tables, neighbours, numbers, pair, chosen.lefts[rank], chosen.rights[rank],
                chosen.results[rank],
            )  # fmt: skip
            tables = Tables(
                tables.keys, tables.values, tables.pairs, tables.counts, tables.heads, tables.ranks, entries,
                tables.heap_counts, tables.heap_pairs,
            )  # fmt: skip
            for place in range(gained):
                touched = neighbours.touched[place]
                count = weight_of(tables.counts, touched, columns)
                if count <= 0 or tables.ranks[touched] == VETOED:
                    continue
                if tables.ranks[touched] == OPEN:
                    if count < limits[1]:  # it comes again when it gains
                        continue
                    push(tables.heap_counts, tables.heap_pairs, numbers[HEAP], count, touched, tables.pairs)
                    numbers[HEAP] += 1
                else:
                    if waiting == pending.size:
                        pending = grown(pending, 2 * waiting, 0)
                    pending[waiting] = touched
                    waiting += 1
            if waiting > 0:
                tables = with_room(tables, columns, numbers, room)
    return tables, MORE
