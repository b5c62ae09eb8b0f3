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
    HEAP,
    LISTED,
    MERGES,
    OPEN,
    REPLAYED,
    SEGMENT,
    STEP,
    TOKENS,
    VETOED,
    Tables,
    first_slot,
    grown,
    lists_with_room,
    longer_records,
    pair_key,
    pair_number,
    pop,
    push,
    slot_of,
    weight_of,
    with_room,
)
from stages.tokenizer.prefetch import prefetch
from stages.tokenizer.tables import Integer

HASH_BASE = 0x9E3779B97F4A7C15  # of a token's bytes, a polynomial modulo 2^64; any large odd number
WORDS, START_INSIDE, END_INSIDE, START_SPACE, END_SPACE = range(5)  # columns of a token's traits
AHEAD = 4  # sequences of a list, and pairs, that are asked for before they are needed
MORE, DONE, DRY = range(3)  # how a slice ended


class Neighbours(NamedTuple):
    """What one merge does: N new pairs, by the token before (0) or behind (1) the merged pair.

    By token there is only where a new pair's own stand, which are close together.
    """

    places: np.ndarray  # [2, tokens] int64 step << 32 | place among the new pairs
    beside: np.ndarray  # [N, 2] int32 (side, token)
    gains: np.ndarray  # [N * C] int64 what the new pair gains and the old one loses
    last: np.ndarray  # [N] int32 the sequence that was listed last
    sizes: np.ndarray  # [N] int32 sequences to list; then the place in the lists for the next one, or -1
    touched: np.ndarray  # [N] int32 number of the pair


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
    records: np.ndarray,
    numbers: np.ndarray,
    merged_pair: Integer,
    left: Integer,
    right: Integer,
    result: Integer,
):
    """Merge one pair everywhere. `records` is [R, 2] int32 (new pair, sequence), overwritten.

    Returns the lists and the records (they may have grown) and how many pairs gained weight."""
    keys, values, pairs, counts, heads = tables.keys, tables.values, tables.pairs, tables.counts, tables.heads
    places, beside, gains, last, sizes, touched = neighbours
    lists = tables.lists
    numbers[STEP] += 1
    step = numbers[STEP]
    found, recorded = 0, 0
    doubled = -1  # the new pair (result, result), which may come up on both sides
    segment = heads[merged_pair]
    heads[merged_pair] = -1
    while segment != -1:
        if segment < 0:
            first, size = 0, 1
        else:
            first, size = segment + SEGMENT, lists[segment]
        for at in range(first, first + size):
            sequence = lists[at] if segment >= 0 else -2 - segment
            if at + 2 * AHEAD < first + size:
                prefetch(rows, np.int64(lists[at + 2 * AHEAD]) * rows.shape[1])
                prefetch(token_ids, rows[lists[at + AHEAD], 0])
            start = rows[sequence, 0]
            end = start + rows[sequence, 1]
            place = start
            while place + 1 < end and not (token_ids[place] == left and token_ids[place + 1] == right):
                place += 1
            if place + 1 >= end:
                continue
            if recorded + 2 * (end - start) > records.shape[0]:
                records = longer_records(records, 2 * records.shape[0] + 2 * (end - start))
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
                        for column in range(columns):
                            counts[old * columns + column] -= rows[sequence, 2 + column]
                        new = doubled
                    else:
                        known = places[side, token]
                        new = known & 0xFFFFFFFF if known >> 32 == step else -1
                    if new < 0:
                        new = found
                        found += 1
                        if token == result:
                            doubled = new
                        else:
                            places[side, token] = step << 32 | new
                        beside[new, 0], beside[new, 1] = side, token
                        last[new], sizes[new] = -1, 0
                        for column in range(columns):
                            gains[new * columns + column] = 0
                    for column in range(columns):
                        gains[new * columns + column] += rows[sequence, 2 + column]
                    if last[new] != sequence:
                        last[new] = sequence
                        sizes[new] += 1
                        records[recorded, 0], records[recorded, 1] = new, sequence
                        recorded += 1
                token_ids[written] = result
                written, place, fresh = written + 1, place + 2, True
            rows[sequence, 1] = written - start
        segment = lists[segment + 1] if segment >= 0 else -1
    lists = lists_with_room(lists, heads, numbers, recorded + SEGMENT * found)
    used = numbers[LISTED]
    for new in range(found):
        if new + AHEAD < found:
            token = beside[new + AHEAD, 1]
            is_before = beside[new + AHEAD, 0] == 0
            prefetch(keys, first_slot(keys, pair_key(token, result) if is_before else pair_key(result, token)))
            prefetch(keys, first_slot(keys, pair_key(token, left) if is_before else pair_key(right, token)))
        side, token = beside[new, 0], beside[new, 1]
        pair = pair_number(
            keys, values, pairs, numbers, pair_key(token, result) if side == 0 else pair_key(result, token)
        )
        touched[new] = pair
        for column in range(columns):
            counts[pair * columns + column] += gains[new * columns + column]
        if new != doubled:
            old = pair_number(
                keys, values, pairs, numbers, pair_key(token, left) if side == 0 else pair_key(right, token)
            )
            for column in range(columns):
                counts[old * columns + column] -= gains[new * columns + column]
        if sizes[new] == 1 and heads[pair] == -1:
            heads[pair], sizes[new] = -2 - last[new], -1
        else:
            lists[used], lists[used + 1] = sizes[new], heads[pair]
            heads[pair] = used
            used, sizes[new] = used + SEGMENT + sizes[new], used + SEGMENT
    for record in range(recorded):
        new = records[record, 0]
        if sizes[new] >= 0:
            lists[sizes[new]] = records[record, 1]
            sizes[new] += 1
    for column in range(columns):
        counts[merged_pair * columns + column] = 0
    numbers[LISTED] = used
    return lists, records, found


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
    records = np.empty((1 << 12, 2), np.int32)
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
            lists, records, gained = _applied(
                token_ids, rows, columns, tables, neighbours, records, numbers, pair, chosen.lefts[rank],
                chosen.rights[rank], chosen.results[rank],
            )  # fmt: skip
            tables = Tables(
                tables.keys, tables.values, tables.pairs, tables.counts, tables.heads, tables.ranks, lists,
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
