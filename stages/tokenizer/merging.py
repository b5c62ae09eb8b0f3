"""The merge loop of BPE training, in compiled code: the most frequent pair of neighbours becomes one token, again and again.

Contract: sequences of token ids with int64 weights (one column a class) are merged in place. Order is that of the
`tokenizers` library's BpeTrainer: highest weight first, among equals the smaller (left id, right id); a merge whose
bytes are a token already gives that token. One difference: a pair that was merged earlier and comes up again, because
its bytes were reached by another cut, is merged at once, as every encoder would do. The result does not depend on the
order of the sequences. Inherited merges are replayed first, in their order.

How: each pair keeps a list of the sequences that hold it (some no longer do); a merge walks that list once, and the
changed pairs of one merge are found by neighbour in dense arrays, so that hashing is done once a neighbour and merge
and not once an occurrence. The heap is lazy: entries are corrected when they come up. Cost: 12 bytes a token and 50 a
distinct pair; a sequence is scanned once for each merge in it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit

OPEN, VETOED = -1, -2  # in `ranks`; from 0 on: merged
UNBOUNDED = 1 << 40
SLICE_MERGES = 512  # between two reports of progress
SPARE_MERGES = 1024  # for merges that make no new token
# Base of the polynomial hash of a token's bytes, modulo 2^64: any large odd number.
HASH_BASE = 0x9E3779B97F4A7C15
WORDS, START_INSIDE, END_INSIDE, START_SPACE, END_SPACE = range(5)  # columns of a token's traits
# Places in `numbers`.
PAIRS, HEAP, FREE, ENTRIES, TOKENS, MERGES, REPLAYED, STEP = range(8)
MORE, DONE, DRY = range(3)  # how a slice ended


@dataclass(frozen=True)
class Sequences:
    """What is merged: S sequences of token ids, one after the other, and their weights in C classes.

    Attributes:
        token_ids: [tokens] int32, overwritten by merging.
        starts: [S] int64 first place of each.
        lengths: [S] int32, overwritten.
        weights: [S, C] int64 how often it occurs in each column.
    """

    token_ids: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    weights: np.ndarray

    def of(self, sequence: int) -> np.ndarray:
        """Its token ids now."""
        start = int(self.starts[sequence])
        return self.token_ids[start : start + int(self.lengths[sequence])]


@dataclass(frozen=True)
class Rules:
    """What may be merged, after the inherited merges.

    Attributes:
        tokens: Number of tokens to reach.
        classes: For each column its class, from 0 on.
        quotas: How many new tokens each class may get; the class of a pair is the one with most of its weight.
        minimum_count: A pair of less weight is not merged.
        minimum_words: Words a new token must touch; from 2 on it must also be whole characters.
        maximum_words: Words it may touch.
    """

    tokens: int
    classes: tuple[int, ...] = (0,)
    quotas: tuple[int, ...] = (UNBOUNDED,)
    minimum_count: int = 1
    minimum_words: int = 0
    maximum_words: int = 1 << 30


@dataclass(frozen=True)
class Merged:
    """Merges by rank, inherited ones first, and the tokens after them."""

    tokens: list[bytes]
    merges: list[tuple[int, int, int]]  # left, right, result
    counts: list[int]  # weight at the time
    by_class: tuple[int, ...]  # new tokens
    by_column: tuple[int, ...]  # new tokens, each of the heaviest column of its class
    complete: bool


class Tables(NamedTuple):
    """The arrays of the loop; they are replaced when they grow."""

    keys: np.ndarray  # [slots] int64 left << 32 | right, -1 where empty
    values: np.ndarray  # [slots] int32 number of the pair
    pairs: np.ndarray  # [pairs] int64 key
    counts: np.ndarray  # [pairs * C] int64
    heads: np.ndarray  # [pairs] int32 first entry of the pair's list
    ranks: np.ndarray  # [pairs] int32
    entry_sequences: np.ndarray  # [entries] int32
    entry_next: np.ndarray  # [entries] int32
    heap_counts: np.ndarray  # int64
    heap_pairs: np.ndarray  # int32


class Neighbours(NamedTuple):
    """For each token beside the pair that is being merged: the pair it was part of, and the one it will be."""

    left_stamps: np.ndarray
    left_old: np.ndarray
    left_new: np.ndarray
    right_stamps: np.ndarray
    right_old: np.ndarray
    right_new: np.ndarray
    touched: np.ndarray  # pairs that gained weight


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


def merge(
    sequences: Sequences,
    tokens: Sequence[bytes],
    inherited: Sequence[tuple[int, int, int]],
    rules: Rules,
    told: Callable[[int], None] = lambda tokens: None,
) -> Merged:
    """Replay `inherited`, then go on to `rules.tokens` tokens; `told(tokens)` is called now and then.

    Args:
        sequences: Merged in place.
        tokens: Bytes of each id; empty for ids that text never has.
        inherited: Merges among `tokens`, in their order.
        rules: Where to go.
        told: Called with the number of tokens reached.
    """
    columns = sequences.weights.shape[1]
    room = max(rules.tokens, len(tokens))
    most = len(inherited) + (room - len(tokens)) * 5 // 4 + SPARE_MERGES
    vocabulary = _vocabulary(tokens, room + 1)
    chosen = Chosen(
        *(np.zeros(most, np.int32) for _ in range(3)),
        *(np.zeros(size, np.int64) for size in (most, len(rules.quotas), columns)),
    )
    replay = np.array(inherited, np.int32).reshape(-1, 3)
    numbers = np.zeros(8, np.int64)
    numbers[TOKENS], numbers[FREE] = len(tokens), -1
    limits = np.array([rules.tokens, rules.minimum_count, rules.minimum_words, rules.maximum_words], np.int64)
    classes, quotas = np.array(rules.classes, np.int64), np.array(rules.quotas, np.int64)
    texts = (sequences.token_ids, sequences.starts, sequences.lengths, sequences.weights.reshape(-1))
    tables = _counted(*texts, columns, numbers)
    neighbours = Neighbours(*(np.zeros(room + 1, np.int32) for _ in range(6)), np.zeros(2 * room + 8, np.int32))
    ended = MORE
    while ended == MORE:
        tables, ended = _slice(
            *texts, columns, tables, neighbours, vocabulary, chosen, replay, limits, classes, quotas, numbers,
            SLICE_MERGES,
        )
        told(int(numbers[TOKENS]))
    return _merged(tokens, chosen, int(numbers[MERGES]), complete=ended == DONE)


def _merged(tokens: Sequence[bytes], chosen: Chosen, merges: int, *, complete: bool) -> Merged:
    made = list(tokens)
    columns = (chosen.lefts, chosen.rights, chosen.results)
    triples = list(zip(*(column[:merges].tolist() for column in columns), strict=True))
    for left, right, result in triples:
        joined = made[left] + made[right]
        if result == len(made):
            made.append(joined)
        assert made[result] == joined, "two tokens of one hash"
    counts = chosen.counts[:merges].tolist()
    by_class, by_column = tuple(chosen.by_class.tolist()), tuple(chosen.by_column.tolist())
    return Merged(made, triples, counts, by_class, by_column, complete)


def _vocabulary(tokens: Sequence[bytes], room: int) -> Vocabulary:
    hashes, powers = np.zeros(room, np.uint64), np.ones(room, np.uint64)
    traits = np.zeros((room, 5), np.int32)
    slots = 1 << max(10, (4 * room).bit_length())
    vocabulary = Vocabulary(hashes, powers, traits, np.full(slots, -1, np.int64), np.zeros(slots, np.int32))
    for number, token in enumerate(tokens):
        value, power = 0, 1
        for byte in token:
            value = (value * HASH_BASE + byte + 1) % 2**64
            power = power * HASH_BASE % 2**64
        hashes[number], powers[number] = value, power
        traits[number] = token_traits(token)
        if token:
            _note_hash(vocabulary, np.int64(number))
    return vocabulary


def token_traits(token: bytes) -> tuple[int, int, int, int, int]:
    """(words touched, starts inside a character, ends inside one, starts with a space, ends with a space)."""
    words = sum(1 for part in token.split(b" ") if part)
    start_inside = int(bool(token) and 0x80 <= token[0] < 0xC0)
    return words, start_inside, int(ends_inside(token)), int(token[:1] == b" "), int(token[-1:] == b" ")


def ends_inside(token: bytes) -> bool:
    """Whether the last character of UTF-8 bytes is cut short."""
    for back, byte in enumerate(reversed(token[-4:]), start=1):
        if byte < 0x80:
            return False
        if byte >= 0xC0:
            return back < (2 if byte < 0xE0 else 3 if byte < 0xF0 else 4)
    return False


@njit(cache=True)
def _slot(keys, key):
    mask = keys.size - 1
    place = np.int64((np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(20)) & mask
    while keys[place] != -1 and keys[place] != key:
        place = (place + 1) & mask
    return place


@njit(cache=True)
def _grown(array, size, fill):
    larger = np.full(size, fill, array.dtype)
    larger[: array.size] = array
    return larger


@njit(cache=True)
def _key(left, right):
    return (np.int64(left) << 32) | np.int64(right)


@njit(cache=True)
def _with_room(tables, columns, numbers, more):
    """The tables with room for `more` pairs, and for as many heap entries."""
    pairs = numbers[PAIRS]
    keys, values, known, counts, heads, ranks = (
        tables.keys, tables.values, tables.pairs, tables.counts, tables.heads, tables.ranks,
    )  # fmt: skip
    heap_counts, heap_pairs = tables.heap_counts, tables.heap_pairs
    if pairs + more > known.size:
        size = 2 * known.size + more
        known, counts = _grown(known, size, 0), _grown(counts, size * columns, 0)
        heads, ranks = _grown(heads, size, -1), _grown(ranks, size, OPEN)
    if 2 * (pairs + more) > keys.size:
        slots = keys.size
        while 2 * (pairs + more) > slots:
            slots *= 2
        keys, values = np.full(slots, -1, np.int64), np.zeros(slots, np.int32)
        for pair in range(pairs):
            place = _slot(keys, known[pair])
            keys[place], values[place] = known[pair], pair
    if numbers[HEAP] + more > heap_counts.size:
        size = 2 * heap_counts.size + more
        heap_counts, heap_pairs = _grown(heap_counts, size, 0), _grown(heap_pairs, size, 0)
    return Tables(
        keys, values, known, counts, heads, ranks, tables.entry_sequences, tables.entry_next, heap_counts, heap_pairs
    )


@njit(cache=True)
def _pair(keys, values, pairs, numbers, key):
    """The number of a pair, new or known; there must be room."""
    place = _slot(keys, key)
    if keys[place] == -1:
        pair = numbers[PAIRS]
        numbers[PAIRS] += 1
        keys[place], values[place], pairs[pair] = key, pair, key
        return np.int32(pair)
    return values[place]


@njit(cache=True)
def _before(count, pair, other_count, other_pair, pairs):
    return count > other_count or (count == other_count and pairs[pair] < pairs[other_pair])


@njit(cache=True)
def _push(heap_counts, heap_pairs, size, count, pair, pairs):
    place = size
    while place > 0:
        above = (place - 1) >> 1
        if not _before(count, pair, heap_counts[above], heap_pairs[above], pairs):
            break
        heap_counts[place], heap_pairs[place] = heap_counts[above], heap_pairs[above]
        place = above
    heap_counts[place], heap_pairs[place] = count, pair


@njit(cache=True)
def _pop(heap_counts, heap_pairs, size, pairs):
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
def _counted(token_ids, starts, lengths, weights, columns, numbers):
    """The tables of the sequences as they are: every pair counted, listed and on the heap."""
    tables = Tables(
        np.full(1 << 16, -1, np.int64),
        np.zeros(1 << 16, np.int32),
        np.zeros(1 << 14, np.int64),
        np.zeros((1 << 14) * columns, np.int64),
        np.full(1 << 14, -1, np.int32),
        np.full(1 << 14, OPEN, np.int32),
        np.zeros(max(token_ids.size, 16), np.int32),
        np.zeros(max(token_ids.size, 16), np.int32),
        np.zeros(1 << 14, np.int64),
        np.zeros(1 << 14, np.int32),
    )
    entries = 0
    for sequence in range(starts.size):
        length = lengths[sequence]
        if numbers[PAIRS] + length > tables.pairs.size or 2 * (numbers[PAIRS] + length) > tables.keys.size:
            tables = _with_room(tables, columns, numbers, length)
        start = starts[sequence]
        for place in range(start, start + length - 1):
            key = _key(token_ids[place], token_ids[place + 1])
            pair = _pair(tables.keys, tables.values, tables.pairs, numbers, key)
            for column in range(columns):
                tables.counts[pair * columns + column] += weights[sequence * columns + column]
            head = tables.heads[pair]
            if head < 0 or tables.entry_sequences[head] != sequence:
                tables.entry_sequences[entries], tables.entry_next[entries] = sequence, head
                tables.heads[pair] = entries
                entries += 1
    numbers[ENTRIES] = entries
    tables = _with_room(tables, columns, numbers, numbers[PAIRS])
    for pair in range(numbers[PAIRS]):
        _push(
            tables.heap_counts, tables.heap_pairs, numbers[HEAP], _weight(tables.counts, pair, columns), pair,
            tables.pairs,
        )  # fmt: skip
        numbers[HEAP] += 1
    return tables


@njit(cache=True)
def _weight(counts, pair, columns):
    total = np.int64(0)
    for column in range(columns):
        total += counts[pair * columns + column]
    return total


@njit(cache=True)
def _moved(counts, weights, sequence, columns, old, new):
    for column in range(columns):
        weight = weights[sequence * columns + column]
        counts[old * columns + column] -= weight
        counts[new * columns + column] += weight


@njit(cache=True)
def _applied(
    token_ids, starts, lengths, weights, columns, tables, neighbours, numbers, merged_pair, left, right, result
):
    """Merge one pair everywhere. Returns the entries (they may have grown) and how many pairs gained weight."""
    keys, values, pairs, counts, heads = tables.keys, tables.values, tables.pairs, tables.counts, tables.heads
    entry_sequences, entry_next = tables.entry_sequences, tables.entry_next
    stamps_l, old_l, new_l, stamps_r, old_r, new_r, touched = neighbours
    numbers[STEP] += 1
    step, free, entries, gained = numbers[STEP], numbers[FREE], numbers[ENTRIES], 0
    doubled = np.int32(-1)  # the pair (result, result)
    entry = heads[merged_pair]
    heads[merged_pair] = -1
    while entry >= 0:
        sequence, following = entry_sequences[entry], entry_next[entry]
        entry_next[entry] = free
        free, entry = entry, following
        start = starts[sequence]
        end = start + lengths[sequence]
        place = start
        while place + 1 < end and not (token_ids[place] == left and token_ids[place + 1] == right):
            place += 1
        if place + 1 >= end:
            continue
        if entries + 2 * (end - start) > entry_sequences.size:
            size = entry_sequences.size + (entry_sequences.size >> 1) + 2 * (end - start)
            entry_sequences, entry_next = _grown(entry_sequences, size, 0), _grown(entry_next, size, 0)
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
                    if fresh:  # the pair merged just before: (right, left) becomes (result, result)
                        old = _pair(keys, values, pairs, numbers, _key(right, left))
                        if doubled < 0:
                            doubled = _pair(keys, values, pairs, numbers, _key(result, result))
                            touched[gained] = doubled
                            gained += 1
                        new = doubled
                    else:
                        token = token_ids[written - 1]
                        if stamps_l[token] != step:
                            stamps_l[token] = step
                            old_l[token] = _pair(keys, values, pairs, numbers, _key(token, left))
                            new_l[token] = _pair(keys, values, pairs, numbers, _key(token, result))
                            touched[gained] = new_l[token]
                            gained += 1
                        old, new = old_l[token], new_l[token]
                else:  # what stands behind it, unless that is merged next
                    if place + 2 >= end:
                        continue
                    token = token_ids[place + 2]
                    if token == left and place + 3 < end and token_ids[place + 3] == right:
                        continue
                    if stamps_r[token] != step:
                        stamps_r[token] = step
                        old_r[token] = _pair(keys, values, pairs, numbers, _key(right, token))
                        new_r[token] = _pair(keys, values, pairs, numbers, _key(result, token))
                        touched[gained] = new_r[token]
                        gained += 1
                    old, new = old_r[token], new_r[token]
                _moved(counts, weights, sequence, columns, old, new)
                head = heads[new]
                if head < 0 or entry_sequences[head] != sequence:
                    if free >= 0:
                        spare, free = free, entry_next[free]
                    else:
                        spare = entries
                        entries += 1
                    entry_sequences[spare], entry_next[spare] = sequence, head
                    heads[new] = spare
            token_ids[written] = result
            written, place, fresh = written + 1, place + 2, True
        lengths[sequence] = written - start
    for column in range(columns):
        counts[merged_pair * columns + column] = 0
    numbers[FREE], numbers[ENTRIES] = free, entries
    return entry_sequences, entry_next, gained


@njit(cache=True)
def _note_hash(vocabulary, token):
    """The token of the same bytes that is known already, or `token`, which is then known."""
    mixed = (vocabulary.hashes[token] ^ (vocabulary.hashes[token] >> np.uint64(31))) * np.uint64(HASH_BASE)
    key = np.int64((mixed ^ (mixed >> np.uint64(29))) >> np.uint64(1))
    place = _slot(vocabulary.hash_keys, key)
    if vocabulary.hash_keys[place] == -1:
        vocabulary.hash_keys[place], vocabulary.hash_ids[place] = key, token
    return vocabulary.hash_ids[place]


@njit(cache=True)
def _joined_words(traits, left, right):
    words = traits[left, WORDS] + traits[right, WORDS]
    inside_one = traits[left, END_SPACE] == 0 and traits[right, START_SPACE] == 0
    return words - 1 if inside_one and traits[left, WORDS] > 0 and traits[right, WORDS] > 0 else words


@njit(cache=True)
def _result(vocabulary, numbers, left, right):
    """The token that a merge makes: a known one of the same bytes, or the next new one."""
    token = numbers[TOKENS]
    traits = vocabulary.traits
    vocabulary.hashes[token] = vocabulary.hashes[left] * vocabulary.powers[right] + vocabulary.hashes[right]
    found = _note_hash(vocabulary, token)
    if found == token:
        vocabulary.powers[token] = vocabulary.powers[left] * vocabulary.powers[right]
        traits[token, WORDS] = _joined_words(traits, left, right)
        traits[token, START_INSIDE], traits[token, START_SPACE] = traits[left, START_INSIDE], traits[left, START_SPACE]
        traits[token, END_INSIDE], traits[token, END_SPACE] = traits[right, END_INSIDE], traits[right, END_SPACE]
        numbers[TOKENS] += 1
    return np.int32(found)


@njit(cache=True)
def _heaviest(counts, pair, columns, classes, weights):
    """(class, column) of a pair: the class with most of its weight, and in it the column with most; the first of equals.

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
def _allowed(vocabulary, limits, left, right):
    traits = vocabulary.traits
    words = _joined_words(traits, left, right)
    whole = traits[left, START_INSIDE] == 0 and traits[right, END_INSIDE] == 0
    return limits[2] <= words <= limits[3] and (whole or limits[2] < 2)


@njit(cache=True)
def _slice(
    token_ids, starts, lengths, weights, columns, tables, neighbours, vocabulary, chosen, replay, limits, classes,
    quotas, numbers, merges,
):  # fmt: skip
    """At most `merges` merges. Returns the tables and how it ended."""
    room = 2 * vocabulary.hashes.size + 8  # pairs that one merge can make
    class_weights = np.empty(quotas.size, np.int64)
    pending = np.empty(64, np.int32)  # merged pairs that came up again
    last = numbers[MERGES] + merges
    while numbers[MERGES] < last:
        if numbers[MERGES] == chosen.lefts.size:
            return tables, DRY
        tables = _with_room(tables, columns, numbers, room)
        if numbers[REPLAYED] < replay.shape[0]:
            left, right, result = replay[numbers[REPLAYED]]
            numbers[REPLAYED] += 1
            pair = _pair(tables.keys, tables.values, tables.pairs, numbers, _key(left, right))
            count = _weight(tables.counts, pair, columns)
            if tables.ranks[pair] >= 0:
                continue
        else:
            if numbers[TOKENS] >= limits[0]:
                return tables, DONE
            if numbers[HEAP] == 0:
                return tables, DRY
            count, pair = tables.heap_counts[0], tables.heap_pairs[0]
            _pop(tables.heap_counts, tables.heap_pairs, numbers[HEAP], tables.pairs)
            numbers[HEAP] -= 1
            if tables.ranks[pair] != OPEN:
                continue
            now = _weight(tables.counts, pair, columns)
            if now != count:
                if now >= limits[1]:
                    _push(tables.heap_counts, tables.heap_pairs, numbers[HEAP], now, pair, tables.pairs)
                    numbers[HEAP] += 1
                continue
            if count < limits[1]:
                return tables, DRY
            left, right = np.int32(tables.pairs[pair] >> 32), np.int32(tables.pairs[pair] & 0xFFFFFFFF)
            of_class, of_column = _heaviest(tables.counts, pair, columns, classes, class_weights)
            if chosen.by_class[of_class] >= quotas[of_class] or not _allowed(vocabulary, limits, left, right):
                tables.ranks[pair] = VETOED
                continue
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
            chosen.counts[rank] += _weight(tables.counts, pair, columns)
            entry_sequences, entry_next, gained = _applied(
                token_ids, starts, lengths, weights, columns, tables, neighbours, numbers, pair, chosen.lefts[rank],
                chosen.rights[rank], chosen.results[rank],
            )  # fmt: skip
            tables = Tables(
                tables.keys, tables.values, tables.pairs, tables.counts, tables.heads, tables.ranks, entry_sequences,
                entry_next, tables.heap_counts, tables.heap_pairs,
            )  # fmt: skip
            for place in range(gained):
                touched = neighbours.touched[place]
                count = _weight(tables.counts, touched, columns)
                if count <= 0 or tables.ranks[touched] == VETOED:
                    continue
                if tables.ranks[touched] == OPEN:
                    _push(tables.heap_counts, tables.heap_pairs, numbers[HEAP], count, touched, tables.pairs)
                    numbers[HEAP] += 1
                else:
                    if waiting == pending.size:
                        pending = _grown(pending, 2 * waiting, 0)
                    pending[waiting] = touched
                    waiting += 1
            if waiting > 0:
                tables = _with_room(tables, columns, numbers, room)
    return tables, MORE
