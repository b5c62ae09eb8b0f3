"""Rounding to e4m3 under power-of-two scales on a processor, bit for bit what scaling and casting with torch gives.

Contract: inputs float32 or bfloat16 bits, outputs bfloat16 bits, in which every scaled e4m3 value is exact. Cost: two
passes over cached rows. Source: e4m3 of the OCP 8-bit floating point specification (largest 448, smallest step 2^-9).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from trainer.model.kernels import load, store

_BLOCK = 128
_LARGEST = np.float32(448)
_MANTISSA, _EXPONENT = np.uint32(0x007FFFFF), np.uint32(0x7F800000)
_MANTISSA_OF_LARGEST = np.uint32(0x00600000)  # of 448 = 1.75 * 2^8
_SMALLEST_STEP = np.uint32((127 - 9) << 23)  # 2^-9
_THREE_BITS = np.uint32(3 << 23)
_ONE, _ZERO = np.float32(1), np.float32(0)


@njit(cache=True, nogil=True)
def scale_of(largest: Any) -> Any:
    """2^k with largest * 2^k in (224, 448]; 1 for zero, infinities and what is no number."""
    bits = np.float32(largest).view(np.uint32)
    exponent = np.int64(bits >> np.uint32(23))
    if exponent in (0, 255):
        return _ONE
    power = 8 - (exponent - 127) - (1 if (bits & _MANTISSA) > _MANTISSA_OF_LARGEST else 0)
    return np.uint32(np.uint32(min(power + 127, 254)) << np.uint32(23)).view(np.float32)


@njit(cache=True, nogil=True)
def rounded(value: Any) -> Any:
    """The nearest e4m3 value, ties to even, of something already scaled; no more than 448."""
    x = min(max(value, -_LARGEST), _LARGEST) if value == value else value
    exponent = np.float32(x).view(np.uint32) & _EXPONENT
    step_bits = max(exponent, _SMALLEST_STEP + _THREE_BITS) - _THREE_BITS
    step = np.uint32(step_bits).view(np.float32)
    return np.rint(x / step) * step


@njit(cache=True, nogil=True, error_model="numpy")
def quantise_rows(x: Any, y: Any, first: int, last: int) -> None:
    width = x.shape[1]
    for row in range(first, last):
        for start in range(0, width, _BLOCK):
            stop = min(start + _BLOCK, width)
            largest = _ZERO
            for c in range(start, stop):
                largest = max(largest, abs(load(x, row, c)))
            scale = scale_of(largest)
            inverse = _ONE / scale
            for c in range(start, stop):
                store(y, row, c, rounded(load(x, row, c) * scale) * inverse)


@njit(cache=True, nogil=True, error_model="numpy")
def quantise_tiles(x: Any, rows_per_matrix: int, y: Any) -> None:
    width = x.shape[1]
    for matrix in range(0, x.shape[0], rows_per_matrix):
        for top in range(matrix, matrix + rows_per_matrix, _BLOCK):
            bottom = min(top + _BLOCK, matrix + rows_per_matrix)
            for start in range(0, width, _BLOCK):
                stop = min(start + _BLOCK, width)
                largest = _ZERO
                for row in range(top, bottom):
                    for c in range(start, stop):
                        largest = max(largest, abs(load(x, row, c)))
                scale = scale_of(largest)
                inverse = _ONE / scale
                for row in range(top, bottom):
                    for c in range(start, stop):
                        store(y, row, c, rounded(load(x, row, c) * scale) * inverse)
