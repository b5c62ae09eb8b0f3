"""Softmax of a tile of scores, row by row, for `trainer.model.causal`.

Contract: as `trainer.model.kernels`: rows [first, last) of C-contiguous float32 arrays, changed in place. Row r of a
tile is a head of the query at r // group; it sees the tile's first `ahead + r // group + 1` keys, others count nothing.
Source: FlashAttention-2 (arXiv 2307.08691).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from trainer.model.kernels import exponential

_SUMS: Any = {"reassoc", "contract", "nsz", "arcp"}
_LANES = 64  # a reduction by maximum is only vectorised lane by lane
_ZERO = np.float32(0)


@njit(cache=True, nogil=True, fastmath=_SUMS, error_model="numpy")
def softmax_forward(
    scores: Any, group: int, ahead: int, highest: Any, sums: Any, kept: Any, first: int, last: int
) -> None:  # fmt: skip
    """Scores become exp(score - highest so far); `kept` is what earlier tiles' results shrink by."""
    width = scores.shape[1]
    lanes = np.empty(_LANES, np.float32)
    for row in range(first, last):
        seen = min(width, max(0, ahead + row // group + 1))
        before = highest[row]
        for lane in range(_LANES):
            lanes[lane] = before
        whole = seen - seen % _LANES
        for at in range(0, whole, _LANES):
            for lane in range(_LANES):
                value = scores[row, at + lane]
                lanes[lane] = value if value > lanes[lane] else lanes[lane]
        top = before
        for lane in range(_LANES):
            top = max(top, lanes[lane])
        for c in range(whole, seen):
            top = max(top, scores[row, c])
        total = _ZERO
        for c in range(seen):
            value = exponential(scores[row, c] - top)
            scores[row, c] = value
            total += value
        for c in range(seen, width):
            scores[row, c] = _ZERO
        kept[row] = exponential(before - top)
        highest[row] = top
        sums[row] = sums[row] * kept[row] + total


@njit(cache=True, nogil=True, fastmath=_SUMS, error_model="numpy")
def softmax_backward(
    scores: Any, dweights: Any, group: int, ahead: int, log_sum_exp: Any, along: Any, first: int, last: int
) -> None:  # fmt: skip
    """Scores become weights, and the weights' gradients the scores'; `along` is sum(gradient * output) of the row."""
    width = scores.shape[1]
    for row in range(first, last):
        seen = min(width, max(0, ahead + row // group + 1))
        for c in range(seen):
            weight = exponential(scores[row, c] - log_sum_exp[row])
            scores[row, c] = weight
            dweights[row, c] = weight * (dweights[row, c] - along[row])
        for c in range(seen, width):
            scores[row, c] = _ZERO
            dweights[row, c] = _ZERO
