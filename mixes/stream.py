"""Pieces of several pools in the one order in which they fill the rows, a window at a time.

Contract: pieces stand by the part of their pool's target that is behind them when they end; a pool's last piece, the
one that reaches beyond the target, comes after all others, and of these first the one that is owed the greatest part
of itself (largest remainders, as in the quota). So in any prefix of the stream every pool is less than one of its own
pieces below the common part of its target, never beyond that part, and in the whole stream less than one piece beyond
the target: what a prefix leaves of the rows as padding takes the same share of every target. Ties go to the first pool.
A document longer than a row is cut at multiples of the row; a pool gives no more pieces than meet its target. Nothing
but the drawn documents and one window is in memory. Cost: O(log K) a piece for K pools, about 10 million a second.

Shapes: K pools, N documents drawn by all pools, P pieces.
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
        self._documents_K = np.zeros(len(drawn), np.int64)  # given whole
        self._offset_K = np.zeros(len(drawn), np.int64)  # tokens given of the document after those
        self._given_K = np.zeros(len(drawn), np.int64)  # tokens

    def window(self, pieces: int) -> Pieces:
        """The next `pieces` pieces, or as many as are left."""
        # No more than that many documents of each pool can begin in it.
        done = self._documents_K.tolist()
        parts = [drawn[first : first + pieces + 1] for drawn, first in zip(self._drawn, done, strict=True)]
        first_K = np.cumsum([0, *(part.shape[0] for part in parts)])
        row_P, pool_P = np.empty(pieces, np.int64), np.empty(pieces, np.int32)
        offset_P, length_P = np.empty(pieces, np.int64), np.empty(pieces, np.int64)
        count = _merge(
            self._length_D, np.concatenate(parts), first_K, self._target_K, self._context, self._documents_K,
            self._offset_K, self._given_K, row_P, pool_P, offset_P, length_P,
        )  # fmt: skip
        return Pieces(row_P[:count], pool_P[:count], offset_P[:count], length_P[:count])


@njit(cache=True)
def _merge(
    length_D: np.ndarray, row_N: np.ndarray, first_K: np.ndarray, target_K: np.ndarray, context: int,
    documents_K: np.ndarray, offset_K: np.ndarray, given_K: np.ndarray, row_P: np.ndarray, pool_P: np.ndarray,
    offset_P: np.ndarray, length_P: np.ndarray,
) -> int:  # fmt: skip
    pools = target_K.shape[0]
    next_K = first_K[:-1].copy()
    key_K = np.zeros(pools, np.int64)
    heap, size = np.empty(pools, np.int64), 0
    for pool in range(pools):
        if given_K[pool] < target_K[pool] and next_K[pool] < first_K[pool + 1]:
            length = min(np.int64(length_D[row_N[next_K[pool]]]) - offset_K[pool], context)
            key_K[pool] = _key(given_K[pool], length, target_K[pool])
            heap[size] = pool
            size += 1
    for place in range(size // 2 - 1, -1, -1):
        _sink(heap, size, place, key_K)
    count = 0
    while size > 0 and count < row_P.shape[0]:
        pool = heap[0]
        row = np.int64(row_N[next_K[pool]])
        whole = np.int64(length_D[row])
        length = min(whole - offset_K[pool], context)
        row_P[count], pool_P[count], offset_P[count], length_P[count] = row, pool, offset_K[pool], length
        count += 1
        given_K[pool] += length
        offset_K[pool] += length
        if offset_K[pool] == whole:
            next_K[pool] += 1
            documents_K[pool] += 1
            offset_K[pool] = 0
        if given_K[pool] >= target_K[pool] or next_K[pool] == first_K[pool + 1]:
            size -= 1
            heap[0] = heap[size]
        else:
            length = min(np.int64(length_D[row_N[next_K[pool]]]) - offset_K[pool], context)
            key_K[pool] = _key(given_K[pool], length, target_K[pool])
        _sink(heap, size, 0, key_K)
    return count


@njit(cache=True)
def _key(given: Any, length: Any, target: Any) -> Any:
    """Where in the stream a pool's next piece stands."""
    if given + length > target:
        return ONE + 1 + fraction(given + length - target, length)
    return fraction(given + length, target)


@njit(cache=True)
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


@njit(cache=True)
def fraction(part: int, whole: int) -> int:
    """floor(part * ONE / whole) for part <= whole < MOST_TARGET by long division: the product has over 64 bits."""
    quotient, rest = part // whole, part % whole
    for _ in range(DIGITS):
        rest <<= DIGIT_BITS
        quotient = (quotient << DIGIT_BITS) + rest // whole
        rest %= whole
    return quotient
