"""Pieces of several pools in the one order in which they fill the rows, a window at a time.

Contract: pieces stand by the part of their pool's target that is behind them when they end; a pool's last piece, the
one that reaches beyond the target, comes after all others, and of these first the one that is owed the greatest part
of itself (largest remainders, as in the quota). So in any prefix of the stream every pool is less than one of its own
pieces below the common part of its target, never beyond that part, and in the whole stream less than one piece beyond
the target: what a prefix leaves of the rows as padding takes the same share of every target. Ties go to the first pool.
A document longer than a row is cut at multiples of the row; a pool gives no more pieces than meet its target. In
memory are the drawn documents, a buffer a pool and one window. Cost: O(log K) a piece for K pools, some 15 million a
second.

Shapes: K pools, N documents buffered, P pieces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit

DIGIT_BITS = 20  # of one step of the long division; a pool's tokens stay below 2^(62 - 20), 4.4e12
DIGITS = 3  # 60 bits of fraction: keys differ wherever the fractions of two realistic quotas do
ONE = 1 << DIGIT_BITS * DIGITS
BUFFERED = 1 << 16  # documents of each pool whose lengths are looked up at once
MOST_TARGET = 1 << 62 - DIGIT_BITS


@dataclass(frozen=True)
class Pieces:
    """Pieces in stream order."""

    row_P: np.ndarray  # int64 catalogue row of the piece's document
    pool_P: np.ndarray  # int32
    offset_P: np.ndarray  # int64 tokens, in the document
    length_P: np.ndarray  # int64 tokens, 1..context

    def at(self, place_N: np.ndarray) -> Pieces:
        """Some of them, in the given order."""
        return Pieces(self.row_P[place_N], self.pool_P[place_N], self.offset_P[place_N], self.length_P[place_N])


class Stream:
    """Merges the pools' pieces; `window` gives the next ones until none are left."""

    def __init__(
        self, length_D: np.ndarray, drawn: Sequence[np.ndarray], targets: Sequence[int], context_tokens: int
    ) -> None:
        assert max(targets, default=0) < MOST_TARGET, max(targets, default=0)
        self._length_D = length_D
        self._drawn = drawn
        self._target_K = np.array(targets, np.int64)
        self._context = context_tokens
        self._read_K = np.zeros(len(drawn), np.int64)  # documents taken from `drawn` so far
        self._row_KN = np.zeros((len(drawn), BUFFERED), np.int64)  # the next documents of each pool
        self._whole_KN = np.zeros((len(drawn), BUFFERED), np.int64)  # their lengths
        self._next_K = np.zeros(len(drawn), np.int64)  # first of them that is not given whole
        self._end_K = np.zeros(len(drawn), np.int64)
        self._offset_K = np.zeros(len(drawn), np.int64)  # tokens given of it
        self._given_K = np.zeros(len(drawn), np.int64)  # tokens
        for pool in range(len(drawn)):
            self._refill(pool)

    def _refill(self, pool: int) -> None:
        first = int(self._read_K[pool])
        rows = self._drawn[pool][first : first + BUFFERED]
        self._row_KN[pool, : rows.shape[0]] = rows
        self._whole_KN[pool, : rows.shape[0]] = self._length_D[rows]
        self._read_K[pool] += rows.shape[0]
        self._next_K[pool], self._end_K[pool] = 0, rows.shape[0]

    def window(self, pieces: int) -> Pieces:
        """The next `pieces` pieces, or as many as are left."""
        found = Pieces(
            np.empty(pieces, np.int64),
            np.empty(pieces, np.int32),
            np.empty(pieces, np.int64),
            np.empty(pieces, np.int64),
        )
        count = 0
        while True:
            count, empty = _merge(
                self._row_KN, self._whole_KN, self._next_K, self._end_K, self._target_K, self._context, self._offset_K,
                self._given_K, count, found.row_P, found.pool_P, found.offset_P, found.length_P,
            )  # fmt: skip
            if empty < 0:
                return Pieces(found.row_P[:count], found.pool_P[:count], found.offset_P[:count], found.length_P[:count])
            self._refill(empty)
            if self._end_K[empty] == 0:  # the cap allowed no more
                self._target_K[empty] = self._given_K[empty]


@njit(cache=True, nogil=True)
def _merge(
    row_KN: np.ndarray, whole_KN: np.ndarray, next_K: np.ndarray, end_K: np.ndarray, target_K: np.ndarray, context: int,
    offset_K: np.ndarray, given_K: np.ndarray, count: int, row_P: np.ndarray, pool_P: np.ndarray, offset_P: np.ndarray,
    length_P: np.ndarray,
) -> tuple[int, int]:  # fmt: skip
    """(pieces written, pool whose buffer is empty or -1)."""
    pools = target_K.shape[0]
    key_K = np.zeros(pools, np.int64)
    heap, size = np.empty(pools, np.int64), 0
    for pool in range(pools):
        if given_K[pool] < target_K[pool]:
            if next_K[pool] == end_K[pool]:
                return count, pool
            length = min(whole_KN[pool, next_K[pool]] - offset_K[pool], context)
            key_K[pool] = _key(given_K[pool], length, target_K[pool])
            heap[size] = pool
            size += 1
    for place in range(size // 2 - 1, -1, -1):
        _sink(heap, size, place, key_K)
    while size > 0 and count < row_P.shape[0]:
        pool = heap[0]
        whole = whole_KN[pool, next_K[pool]]
        length = min(whole - offset_K[pool], context)
        row_P[count], pool_P[count] = row_KN[pool, next_K[pool]], pool
        offset_P[count], length_P[count] = offset_K[pool], length
        count += 1
        given_K[pool] += length
        offset_K[pool] += length
        if offset_K[pool] == whole:
            next_K[pool] += 1
            offset_K[pool] = 0
        if given_K[pool] >= target_K[pool]:
            size -= 1
            heap[0] = heap[size]
        elif next_K[pool] == end_K[pool]:
            return count, pool
        else:
            length = min(whole_KN[pool, next_K[pool]] - offset_K[pool], context)
            key_K[pool] = _key(given_K[pool], length, target_K[pool])
        _sink(heap, size, 0, key_K)
    return count, -1


@njit(cache=True, nogil=True)
def _key(given: Any, length: Any, target: Any) -> Any:
    """Where in the stream a pool's next piece stands."""
    if given + length > target:
        return ONE + 1 + fraction(given + length - target, length)
    return fraction(given + length, target)


@njit(cache=True, nogil=True)
def _sink(heap: np.ndarray, size: int, place: int, key_K: np.ndarray) -> None:
    """Restore the heap, least (key, pool) on top, below `place`."""
    while True:
        least, child = place, 2 * place + 1
        for other in (child, child + 1):
            if other < size:
                a, b = heap[other], heap[least]
                if key_K[a] < key_K[b] or (key_K[a] == key_K[b] and a < b):
                    least = other
        if least == place:
            return
        heap[place], heap[least] = heap[least], heap[place]
        place = least


@njit(cache=True, nogil=True)
def fraction(part: int, whole: int) -> int:
    """floor(part * ONE / whole) for part <= whole < MOST_TARGET by long division: the product has over 64 bits."""
    quotient, rest = part // whole, part % whole
    for _ in range(DIGITS):
        rest <<= DIGIT_BITS
        quotient = (quotient << DIGIT_BITS) + rest // whole
        rest %= whole
    return quotient
