"""Best-fit-decreasing packing of pieces into rows, with integers only.

Contract: every piece given is placed once, no row overflows, and the result depends on nothing but the lengths. A piece
goes to the fullest row that still has room for it; free room is a number in 1..row_tokens, so rows stand in linked
lists by free room and the least sufficient one is found in a 64-ary bitset (three words for 262,144). Pieces are taken
longest first by a stable counting sort: equal lengths keep their order on every CPU.
Cost: O(P + row_tokens), some million pieces a second a core. Source: Ding et al. 2024, "Fewer Truncations Improve
Language Modeling" (arXiv 2404.10830) for best fit over integer capacities; the bitset in place of their segment tree
is ours.

Shapes: P pieces, R rows.
"""

from __future__ import annotations

import numpy as np
from numba import njit

WORD = 64


# Index of the lowest set bit by multiplication (Leiserson, Prokop and Randall 1998, "Using de Bruijn sequences to index
# a 1 in a computer word"): the top six bits of lowest bit x DE_BRUIJN tell which it is.
DE_BRUIJN = np.uint64(0x03F79D71B4CB0A89)
BIT_INDEX = np.argsort([((1 << bit) * int(DE_BRUIJN) & (1 << 64) - 1) >> 58 for bit in range(64)]).astype(np.uint8)


@njit(cache=True, nogil=True)
def _lowest_bit(word: np.uint64) -> int:
    """Index of the lowest set bit of a word that is not zero."""
    lowest = word & (~word + np.uint64(1))
    return int(BIT_INDEX[(lowest * DE_BRUIJN) >> np.uint64(58)])


@njit(cache=True, nogil=True)
def _longest_first(lengths_P: np.ndarray, row_tokens: int) -> np.ndarray:
    """Stable counting sort: indices of the pieces by falling length."""
    next_place = np.zeros(row_tokens + 2, np.int32)
    for length in lengths_P:
        next_place[row_tokens - length + 1] += 1
    for i in range(1, row_tokens + 2):
        next_place[i] += next_place[i - 1]
    order_P = np.empty(lengths_P.shape[0], np.int32)
    for i in range(lengths_P.shape[0]):
        key = row_tokens - lengths_P[i]
        order_P[next_place[key]] = i
        next_place[key] += 1
    return order_P


@njit(cache=True, nogil=True)
def least_at_or_above(words: np.ndarray, level_start: np.ndarray, wanted: int) -> int:
    """Smallest member >= wanted of the bitset whose levels lie one after the other in `words`; -1 when none."""
    full = ~np.uint64(0)
    place = wanted
    for level in range(level_start.shape[0] - 1):
        word_index = place // WORD
        if level_start[level] + word_index >= level_start[level + 1]:
            return -1
        word = np.uint64(words[level_start[level] + word_index] & (full << np.uint64(place % WORD)))
        if word != np.uint64(0):
            place = word_index * WORD + _lowest_bit(word)
            for below in range(level - 1, -1, -1):
                place = place * WORD + _lowest_bit(np.uint64(words[level_start[below] + place]))
            return place
        place = word_index + 1  # nothing in this word: look for the next word that has anything
    return -1


@njit(cache=True, nogil=True)
def include(words: np.ndarray, level_start: np.ndarray, member: int) -> None:
    place = member
    for level in range(level_start.shape[0] - 1):
        words[level_start[level] + place // WORD] |= np.uint64(1) << np.uint64(place % WORD)
        place //= WORD


@njit(cache=True, nogil=True)
def exclude(words: np.ndarray, level_start: np.ndarray, member: int) -> None:
    place = member
    for level in range(level_start.shape[0] - 1):
        index = level_start[level] + place // WORD
        words[index] &= ~(np.uint64(1) << np.uint64(place % WORD))
        if words[index] != np.uint64(0):
            return
        place //= WORD


@njit(cache=True, nogil=True)
def _best_fit(lengths_P: np.ndarray, row_tokens: int, level_start: np.ndarray) -> tuple[np.ndarray, int]:
    count = lengths_P.shape[0]
    words = np.zeros(level_start[-1], np.uint64)  # which amounts of free room some row has
    # Half as wide as the result: what is looked up at random should stay in the processor's cache.
    first_row = np.full(row_tokens + 1, -1, np.int32)  # by free room: the row last put there
    next_row = np.full(count, -1, np.int32)  # of the same free room
    row_of_P = np.empty(count, np.int64)
    rows = 0
    for piece in _longest_first(lengths_P, row_tokens):
        length = int(lengths_P[piece])
        room = least_at_or_above(words, level_start, length)
        if room < 0:
            row, room = rows, row_tokens
            rows += 1
        else:
            row = int(first_row[room])
            first_row[room] = next_row[row]
            if first_row[room] < 0:
                exclude(words, level_start, room)
        row_of_P[piece] = row
        left = room - length
        if left > 0:
            if first_row[left] < 0:
                include(words, level_start, left)
            next_row[row] = first_row[left]
            first_row[left] = row
    return row_of_P, rows


def levels(row_tokens: int) -> np.ndarray:
    """First word of each level of a 64-ary bitset over 0..row_tokens, and the end."""
    starts, size = [0], row_tokens + 1
    while True:
        size = -(-size // WORD)
        starts.append(starts[-1] + size)
        if size == 1:
            return np.array(starts, np.int64)


def pack(lengths_P: np.ndarray, row_tokens: int) -> tuple[np.ndarray, int]:
    """Pack one window.

    Args:
        lengths_P: [P] int64 tokens, each in 1..row_tokens.
        row_tokens: Tokens of a row.

    Returns:
        ([P] int64 row of each piece, number of rows). Rows are numbered in the order they were opened.
    """
    if lengths_P.shape[0] == 0:
        return np.empty(0, np.int64), 0
    assert lengths_P.shape[0] <= np.iinfo(np.int32).max, "more pieces than a window may hold"
    assert int(lengths_P.min()) >= 1, "a piece has no tokens"
    assert int(lengths_P.max()) <= row_tokens, f"a piece of {int(lengths_P.max())} tokens in rows of {row_tokens}"
    row_of_P, rows = _best_fit(np.ascontiguousarray(lengths_P, np.int64), row_tokens, levels(row_tokens))
    return row_of_P, int(rows)


def pack_prefix(lengths_P: np.ndarray, row_tokens: int, rows: int) -> tuple[np.ndarray, int]:
    """Pack one window into at most `rows` (>= 1) rows: the longest prefix that fits, found by bisection.

    What is served is so a prefix of the stream and keeps its proportions.

    Returns:
        ([taken] int64 row of each piece of the prefix, number of rows).
    """
    best = pack(lengths_P, row_tokens)
    if best[1] <= rows:
        return best
    fits, fails = 1, lengths_P.shape[0]  # one piece always fits
    best = pack(lengths_P[:1], row_tokens)
    while fails - fits > 1:
        middle = (fits + fails) // 2
        tried = pack(lengths_P[:middle], row_tokens)
        if tried[1] <= rows:
            fits, best = middle, tried
        else:
            fails = middle
    return best


@njit(cache=True, nogil=True)
def group_by_row(row_of_P: np.ndarray, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """([R + 1] first piece of each row, [P] pieces row by row, in stream order within a row). Counting sort."""
    first_piece = np.zeros(rows + 1, np.int64)
    for row in row_of_P:
        first_piece[row + 1] += 1
    for row in range(rows):
        first_piece[row + 1] += first_piece[row]
    place = first_piece[:-1].copy()
    order_P = np.empty(row_of_P.shape[0], np.int64)
    for piece in range(row_of_P.shape[0]):
        row = row_of_P[piece]
        order_P[place[row]] = piece
        place[row] += 1
    return first_piece, order_P
