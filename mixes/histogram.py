"""Best-fit-decreasing packing from a histogram of lengths alone: how many rows, how full, before anything is built.

Contract: the rows and the free rooms are those of `mixes.packing.pack` over the pieces of the histogram, whatever
their number: pieces of one length go to the same room one after the other, so as many rows as there are with that room
are filled at once. Cost: the distinct lengths and the rooms touched, milliseconds for 10^9 pieces. Source: ours, from
best fit over integer capacities (Ding et al. 2024, arXiv 2404.10830).

Shapes: T = row tokens.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from mixes.packing import exclude, include, least_at_or_above, levels


def pack_histogram(count_T: np.ndarray, row_tokens: int) -> tuple[int, np.ndarray]:
    """Pack `count_T[l]` pieces of each length l.

    Args:
        count_T: [row_tokens + 1] int64; entry 0 is 0.
        row_tokens: Tokens of a row.

    Returns:
        (rows, [row_tokens + 1] int64 rows by free room).
    """
    assert count_T.shape[0] == row_tokens + 1, (count_T.shape, row_tokens)
    rooms_T = np.zeros(row_tokens + 1, np.int64)
    rows = _pack(count_T.astype(np.int64), row_tokens, levels(row_tokens), rooms_T)
    return int(rows), rooms_T


@njit(cache=True)
def _pack(count_T: np.ndarray, row_tokens: int, level_start: np.ndarray, rooms_T: np.ndarray) -> Any:
    words = np.zeros(level_start[-1], np.uint64)  # which amounts of free room some row has
    rows: Any = np.int64(0)
    for length in range(row_tokens, 0, -1):
        left = count_T[length]
        while left > 0:
            room = least_at_or_above(words, level_start, length)
            opened = room < 0
            if opened:
                room = row_tokens
            most = room // length  # pieces of this length that go into such a row
            filled = left // most
            if not opened:
                filled = min(filled, rooms_T[room])
            if filled > 0:
                rest = room - most * length
                left -= filled * most
            else:  # fewer pieces than one row takes
                filled, rest, left = np.int64(1), room - left * length, np.int64(0)
            if opened:
                rows += filled
            else:
                rooms_T[room] -= filled
                if rooms_T[room] == 0:
                    exclude(words, level_start, room)
            if rest > 0 and rooms_T[rest] == 0:
                include(words, level_start, int(rest))
            rooms_T[rest] += filled
    return rows
