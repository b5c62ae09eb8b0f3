"""Which stored row is served at a position, and the other way round: a pure function, nothing held per row.

Contract: a segment's rows are dealt to its global batches by `Permutation(rows, seed)`; inside a global batch they are
arranged so that, when ranks take equal consecutive parts, their attention costs (sums of squared piece lengths) are
close. The arrangement is made by halves: the batch's rows, costliest first, go one by one to the half that costs less
so far and has room, and each half is arranged in the same way; so it serves any number of ranks that comes of halving.
A batch holds the same rows either way. Ties go by the permuted place: integers only, the same on every CPU.
Cost: 20 ns a row for the permutation, O(B log B) and the B rows' costs for the batch of B rows around a position.
Source: largest processing time first (Graham 1969), with equal numbers on both sides.

Shapes: N positions asked for, B rows of a global batch, R rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numba.np.numpy_support import carray

from pipeline.core.plans import ROWS_SCHEMA, SegmentRows
from pipeline.core.pointers import int64_at
from pipeline.core.rng import Permutation, image_of

FIRST_PIECE, ATTENTION = (ROWS_SCHEMA.get_field_index(name) for name in ("first_piece", "attention"))


@njit(cache=True, nogil=True)
def balanced(cost_B: np.ndarray) -> np.ndarray:
    """[B] int64: the indices of the rows in the order in which they are served."""
    size = cost_B.shape[0]
    order = np.argsort(-cost_B, kind="mergesort")  # stable
    arranged = np.empty_like(order)
    starts, ends = np.empty(size + 1, np.int64), np.empty(size + 1, np.int64)
    starts[0], ends[0], waiting = 0, size, 1
    while waiting:
        waiting -= 1
        start, end = starts[waiting], ends[waiting]
        if end - start < 3:
            continue
        room_left, room_right = (end - start + 1) // 2, (end - start) // 2
        left, right = start, start + room_left
        cost_left, cost_right = np.int64(0), np.int64(0)
        for place in range(start, end):
            row = order[place]
            to_left = room_left > 0 and (room_right == 0 or cost_left <= cost_right)
            if to_left:
                arranged[left] = row
                left, room_left, cost_left = left + 1, room_left - 1, cost_left + cost_B[row]
            else:
                arranged[right] = row
                right, room_right, cost_right = right + 1, room_right - 1, cost_right + cost_B[row]
        order[start:end] = arranged[start:end]  # each half is still costliest first
        starts[waiting], ends[waiting] = start, left
        starts[waiting + 1], ends[waiting + 1] = left, end
        waiting += 2
    return order


class RowOrder:
    """The order of one segment's rows."""

    def __init__(self, rows: SegmentRows) -> None:
        self._rows = rows
        self._segment = rows.segment
        self._permutation = Permutation(rows.segment.rows, rows.segment.seed)

    def stored(self, offset: int, count: int) -> np.ndarray:
        """[count] int64 stored rows that are served from `offset` on, an offset in the segment."""
        size = self._segment.rows_per_batch
        first, last = offset // size, (offset + count - 1) // size
        parts = [self.batch(number) for number in range(first, last + 1)]
        served = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return served[offset - first * size :][:count]

    def batch(self, number: int) -> np.ndarray:
        """[B] int64 stored rows of a global batch, in the order they are served."""
        size = self._segment.rows_per_batch
        start = number * size
        end = min(start + size, self._segment.rows)
        columns = self._rows.row_columns
        return _served(columns.address_CB[ATTENTION], columns.entries, start, end, *self._permutation.network)

    def dealt(self, number: int) -> np.ndarray:
        """[B] int64 stored rows of a global batch as the permutation deals them, before they are balanced."""
        size = self._segment.rows_per_batch
        start = number * size
        return self._permutation.take(np.arange(start, min(start + size, self._segment.rows), dtype=np.int64))

    def offsets(self, stored_N: np.ndarray) -> np.ndarray:
        """[N] int64 offsets in the segment at which stored rows are served: the inverse of `stored`."""
        batch_N = self._permutation.positions(stored_N) // self._segment.rows_per_batch
        found = np.empty(stored_N.shape[0], np.int64)
        for number in np.unique(batch_N).tolist():
            own = batch_N == number
            served = self.batch(number)
            by_row = np.argsort(served, kind="stable")
            found[own] = (
                number * self._segment.rows_per_batch + by_row[np.searchsorted(served, stored_N[own], sorter=by_row)]
            )
        return found


def served_pieces(rows: SegmentRows, order: RowOrder, offset: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """([P] int32 row of the asked ones, [P] int64 piece of the segment) of the rows served from `offset` on."""
    columns = rows.row_columns
    return _pieces_of(columns.address_CB[FIRST_PIECE], columns.entries, order.stored(offset, count))


@njit(cache=True, nogil=True)
def _served(
    address_B: np.ndarray, entries: int, start: int, end: int, size: np.uint64, left_base: np.uint64,
    right_base: np.uint64, keys: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """[B] stored rows of the global batch at [start, end), as they are served; the address of their costs is given."""
    row_B, cost_B = np.empty(end - start, np.int64), np.empty(end - start, np.int64)
    for b in range(end - start):
        row_B[b] = np.int64(image_of(np.uint64(start + b), size, left_base, right_base, keys))
        cost_B[b] = _entry(address_B, entries, row_B[b])
    return row_B[balanced(cost_B)]


@njit(cache=True, nogil=True)
def _pieces_of(address_B: np.ndarray, entries: int, row_R: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """([P] row, [P] piece) of stored rows; the address of their first pieces is given."""
    first_R, end_R, pieces = np.empty_like(row_R), np.empty_like(row_R), 0
    for r in range(row_R.shape[0]):
        first_R[r], end_R[r] = _entry(address_B, entries, row_R[r]), _entry(address_B, entries, row_R[r] + 1)
        pieces += end_R[r] - first_R[r]
    row_P, piece_P = np.empty(pieces, np.int32), np.empty(pieces, np.int64)
    place = 0
    for r in range(row_R.shape[0]):
        for piece in range(first_R[r], end_R[r]):
            row_P[place], piece_P[place] = r, piece
            place += 1
    return row_P, piece_P


@njit(cache=True, nogil=True, inline="always")
def _entry(address_B: np.ndarray, entries: int, row: Any) -> Any:
    number = row // entries
    return carray(int64_at(address_B[number]), (entries,))[row - number * entries]
