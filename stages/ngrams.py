"""Signals of one document's words: counts, and repeated word n-grams without comparing an n-gram to another.

Definitions follow Rae et al. 2021 (Gopher), A.1.1 and table A1, as datatrove implements them: a repeated n-gram of 5
to 10 words adds its characters and is jumped over; the commonest n-gram of 2 to 4 words counts its characters with the
spaces between its words, times its occurrences, the first found among equals.

Method: equal words get one number (the place of the first of them, found by a 64-bit hash); two n-grams are equal when
their first n-1 and their last n-1 words are, so each n needs pairs of numbers of n-1 only, and only of those places
where both occur twice. In unrepeated text that is two passes over the words and a bit. An n-gram is a sequence of
words: `a bc` and `ab c` differ, which datatrove's concatenation of 5 to 10 words takes for one.
Cost: O(W), about 15 ns a word; 22 bytes a word of scratch memory. Shapes: W words.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from stages.characters import LETTER, PUNCTUATION, Integer, mix64, point_at, size_at

DUPLICATE_SIZES = tuple(range(5, 11))
TOP_SIZES = tuple(range(2, 5))
WORDS, NONSYMBOL, NONSYMBOL_CHARACTERS, ALPHABETIC, STOP_WORDS, TOP, DUPLICATE = 0, 1, 2, 3, 4, 5, 8
COUNTS = DUPLICATE + len(DUPLICATE_SIZES)  # of a document
_PRIME = np.uint64(0x100000001B3)
_BASIS = np.uint64(0xCBF29CE484222325)


@njit(cache=True)
def word_hash(data: np.ndarray, start: Integer, end: Integer) -> np.uint64:
    """64 bits of data[start:end]: FNV-1a (Fowler, Noll, Vo), mixed."""
    state = _BASIS
    for i in range(start, end):
        state = (state ^ np.uint64(data[i])) * _PRIME
    return mix64(state)


@njit(cache=True)
def word_counts(
    data: np.ndarray, starts: np.ndarray, ends: np.ndarray, first: np.ndarray, classes: np.ndarray, stop: np.ndarray,
    stop_first: np.ndarray, group: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """[documents, COUNTS] int64. The places of words are written over: they are the scratch memory of what follows.

    Args:
        data, starts, ends, first: As in `stages.words.Words`.
        classes: `stages.characters.classes()`.
        stop: [stop words] uint64 hashes, group after group.
        stop_first: [groups + 1] int64 where each group of stop words begins.
        group: [documents] int64 the group of each document, or -1: its count of stop words stays -1.
    """
    documents = first.shape[0] - 1
    found = np.zeros((documents, COUNTS), np.int64)
    longest = 0
    for d in range(documents):
        longest = max(longest, first[d + 1] - first[d])
    slots = np.empty(_room(longest), np.uint32)
    keys, counts, lengths = (
        np.empty(longest, np.uint64), np.empty(longest, np.uint32), np.empty(longest + 1, np.uint32)
    )  # fmt: skip
    for d in range(documents):
        a, b = first[d], first[d + 1]
        row = found[d]
        row[WORDS] = b - a
        _of_each_word(data, starts[a:b], ends[a:b], classes, keys, lengths, row)
        numbers, places = starts[a:b], ends[a:b]
        for i in range(b - a):
            places[i] = i
        _number(slots, keys, numbers, counts, places, b - a)
        row[STOP_WORDS] = -1
        if group[d] >= 0:
            some = stop[stop_first[group[d]] : stop_first[group[d] + 1]]
            row[STOP_WORDS] = _distinct(keys, numbers, b - a, some)
        _repeats(slots, keys, numbers, counts, places, lengths, b - a, row)
    return found


@njit(cache=True)
def _of_each_word(
    data: np.ndarray, starts: np.ndarray, ends: np.ndarray, classes: np.ndarray, keys: np.ndarray,
    lengths: np.ndarray, row: np.ndarray,
) -> None:  # fmt: skip
    """Hash of each word, cumulative characters, and the counts that look at single words."""
    total = np.int64(0)
    lengths[0] = 0
    for w in range(starts.shape[0]):
        at, end = np.int64(starts[w]), np.int64(ends[w])
        keys[w] = word_hash(data, at, end)
        letters, others = np.uint16(0), False
        begin = total
        while at < end:
            flags = classes[point_at(data, at)]
            at += size_at(data, at)
            letters |= flags & LETTER
            others |= flags & PUNCTUATION == 0
            total += 1
        lengths[w + 1] = total
        if others:
            row[NONSYMBOL] += 1
            row[NONSYMBOL_CHARACTERS] += total - begin
        row[ALPHABETIC] += letters != 0


@njit(cache=True)
def _room(words: int) -> int:
    """Slots for so many words: not a power of two, which would be twice as many at times."""
    return 16 + words + words // 2


@njit(cache=True)
def _number(
    slots: np.ndarray, keys: np.ndarray, numbers: np.ndarray, counts: np.ndarray, places: np.ndarray, size: int
) -> None:
    """Give each of `places[:size]` the first place with its key as its number, and count the places of each number."""
    room = _room(size)
    slots[:room] = 0
    for k in range(size):
        place = places[k]
        key = keys[place]
        slot = np.int64(((key >> np.uint64(32)) * np.uint64(room)) >> np.uint64(32))
        while slots[slot] != 0 and keys[slots[slot] - 1] != key:
            slot = slot + 1 if slot + 1 < room else 0
        if slots[slot] == 0:
            slots[slot] = place + 1
            counts[place] = 0
        first = slots[slot] - 1
        numbers[place] = first
        counts[first] += 1


@njit(cache=True)
def _distinct(keys: np.ndarray, numbers: np.ndarray, words: int, stop: np.ndarray) -> int:
    """How many of the stop words occur."""
    seen = 0
    some = np.uint64(0)  # a 64-bit filter: most words are in no list
    for s in range(stop.shape[0]):
        some |= np.uint64(1) << (stop[s] >> np.uint64(58))
    for w in range(words):
        if numbers[w] == w and (some >> (keys[w] >> np.uint64(58))) & np.uint64(1):
            for s in range(stop.shape[0]):
                seen += keys[w] == stop[s]
    return seen


@njit(cache=True)
def _repeats(
    slots: np.ndarray, keys: np.ndarray, numbers: np.ndarray, counts: np.ndarray, places: np.ndarray,
    lengths: np.ndarray, words: int, row: np.ndarray,
) -> None:  # fmt: skip
    """Characters in the commonest n-grams of 2-4 words and in repeated ones of 5-10.

    `places[:open_places]` are those where an n-gram that occurs twice may begin.
    """
    open_places = words
    for n in range(2, 11):
        if words < n:
            return
        kept = 0
        for k in range(open_places - 1):
            i = np.int64(places[k])
            # still open: both (n-1)-grams were open, and each has an equal one elsewhere
            if places[k + 1] != i + 1 or counts[numbers[i]] < 2 or counts[numbers[i + 1]] < 2:
                continue
            keys[i] = mix64((np.uint64(numbers[i]) << np.uint64(32)) | np.uint64(numbers[i + 1]))
            places[kept] = i
            kept += 1
        open_places = kept
        _number(slots, keys, numbers, counts, places, open_places)
        if n <= 4:
            best, at = np.int64(1), np.int64(0)
            for k in range(open_places):
                i = np.int64(places[k])
                if numbers[i] == i and counts[i] > best:
                    best, at = np.int64(counts[i]), i
            row[TOP + n - 2] = best * (np.int64(lengths[at + n]) - np.int64(lengths[at]) + n - 1)
        else:
            free = np.int64(0)  # words before it are part of a repeated n-gram
            for k in range(open_places):
                i = np.int64(places[k])
                if i < free:
                    continue
                own = numbers[i]
                if counts[own] & 0x80000000:
                    row[DUPLICATE + n - 5] += np.int64(lengths[i + n]) - np.int64(lengths[i])
                    free = i + n
                else:
                    counts[own] |= np.uint32(0x80000000)
            for k in range(open_places):
                counts[numbers[places[k]]] &= np.uint32(0x7FFFFFFF)
