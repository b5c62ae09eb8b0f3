"""Row kernels for processors: what torch does in five to ten passes over memory, in one or two.

Contract: plain loops over rows [first, last) of C-contiguous arrays, float32, or bfloat16 as its uint16 bits; sums are
float32 whatever the storage. Sums over rows are kept per ROWS_PER_PART rows, so that they do not depend on how rows
are shared out. A value that is no number stays none.
Cost: one read of the inputs and one write of the outputs; a kernel compiles once and is cached beside this file.
Source: RMSNorm (arXiv 1910.07467), RoPE (arXiv 2104.09864), SwiGLU (arXiv 2002.05202); exponential after Cephes' expf.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import overload

ROWS_PER_PART = 256
# Sums may be reordered for vector units; infinities and not-a-numbers keep their meaning.
_SUMS: Any = {"reassoc", "contract", "nsz", "arcp"}
_LOG2_E, _LN2_HIGH, _LN2_LOW = np.float32(1.44269504), np.float32(0.693359375), np.float32(-2.12194440e-4)
_ONE, _HALF, _ZERO = np.float32(1), np.float32(0.5), np.float32(0)
_LARGEST, _SMALLEST = np.float32(88), np.float32(-87)  # of an exponent whose power is a normal number


def load(array: Any, row: int, column: int) -> Any:
    """The value at a place as float32; compiled code only."""
    raise AssertionError((array, row, column))


def store(array: Any, row: int, column: int, value: Any) -> None:
    """Write a float32, rounded to nearest even for bfloat16; compiled code only."""
    raise AssertionError((array, row, column, value))


@overload(load)
def _load(array: Any, row: Any, column: Any) -> Any:
    def load_bits(array: Any, row: Any, column: Any) -> Any:
        return np.uint32(np.uint32(array[row, column]) << np.uint32(16)).view(np.float32)

    def load_float(array: Any, row: Any, column: Any) -> Any:
        return array[row, column]

    return load_bits if array.dtype == types.uint16 else load_float


@njit(cache=True, nogil=True)
def bfloat16_bits(value: Any) -> Any:
    bits = np.float32(value).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return np.uint16(rounded) if value == value else np.uint16(0x7FC0)


@overload(store)
def _store(array: Any, row: Any, column: Any, value: Any) -> Any:
    def store_bits(array: Any, row: Any, column: Any, value: Any) -> None:
        array[row, column] = bfloat16_bits(value)

    def store_float(array: Any, row: Any, column: Any, value: Any) -> None:
        array[row, column] = value

    return store_bits if array.dtype == types.uint16 else store_float


@njit(cache=True, nogil=True)
def exponential(value: Any) -> Any:
    """exp within 2 units in the last place; no reordering here, since the two parts of ln 2 must stay apart."""
    x = min(max(value, _SMALLEST), _LARGEST)
    power = np.floor(x * _LOG2_E + _HALF)
    rest = x - power * _LN2_HIGH - power * _LN2_LOW
    sum_ = np.float32(1.9875691500e-4)
    sum_ = sum_ * rest + np.float32(1.3981999507e-3)
    sum_ = sum_ * rest + np.float32(8.3334519073e-3)
    sum_ = sum_ * rest + np.float32(4.1665795894e-2)
    sum_ = sum_ * rest + np.float32(1.6666665459e-1)
    sum_ = sum_ * rest + np.float32(5.0000001201e-1)
    sum_ = sum_ * (rest * rest) + rest + _ONE
    return sum_ * np.uint32(np.uint32(np.int32(power) + np.int32(127)) << np.uint32(23)).view(np.float32)


@njit(cache=True, nogil=True, fastmath=_SUMS, error_model="numpy")
def norm_forward(x: Any, weight: Any, eps: Any, y: Any, scale: Any, first: int, last: int) -> None:
    """y = x * scale * weight with scale = 1 / rms(x), one a row."""
    width = x.shape[1]
    for row in range(first, last):
        squares = _ZERO
        for c in range(width):
            value = load(x, row, c)
            squares += value * value
        inverse = _ONE / np.sqrt(squares / np.float32(width) + eps)
        scale[row] = inverse
        for c in range(width):
            store(y, row, c, load(x, row, c) * inverse * weight[c])


@njit(cache=True, nogil=True, fastmath=_SUMS, error_model="numpy")
def add_norm_forward(
    x: Any, update: Any, weight: Any, eps: Any, total: Any, y: Any, scale: Any, first: int, last: int
) -> None:  # fmt: skip
    """total = x + update, y = norm(total): what stands between the two halves of a layer."""
    width = x.shape[1]
    for row in range(first, last):
        squares = _ZERO
        for c in range(width):
            store(total, row, c, load(x, row, c) + load(update, row, c))
            value = load(total, row, c)
            squares += value * value
        inverse = _ONE / np.sqrt(squares / np.float32(width) + eps)
        scale[row] = inverse
        for c in range(width):
            store(y, row, c, load(total, row, c) * inverse * weight[c])


@njit(cache=True, nogil=True, fastmath=_SUMS, error_model="numpy")
def norm_backward(
    dy: Any, x: Any, weight: Any, scale: Any, dx: Any, dweight_parts: Any, first: int, last: int
) -> None:  # fmt: skip
    """dx and, by part of rows, dweight."""
    width = x.shape[1]
    for row in range(first, last):
        part = row // ROWS_PER_PART
        inverse = scale[row]
        along = _ZERO
        for c in range(width):
            gradient = load(dy, row, c)
            normed = load(x, row, c) * inverse
            dweight_parts[part, c] += gradient * normed
            along += gradient * weight[c] * normed
        along /= np.float32(width)
        for c in range(width):
            store(dx, row, c, inverse * (load(dy, row, c) * weight[c] - load(x, row, c) * inverse * along))


@njit(cache=True, nogil=True, fastmath=_SUMS, error_model="numpy")
def add_norm_backward(
    dtotal: Any, dy: Any, x: Any, weight: Any, scale: Any, dx: Any, dweight_parts: Any, first: int, last: int
) -> None:  # fmt: skip
    """The same with the gradient of the sum itself added."""
    width = x.shape[1]
    for row in range(first, last):
        part = row // ROWS_PER_PART
        inverse = scale[row]
        along = _ZERO
        for c in range(width):
            gradient = load(dy, row, c)
            normed = load(x, row, c) * inverse
            dweight_parts[part, c] += gradient * normed
            along += gradient * weight[c] * normed
        along /= np.float32(width)
        for c in range(width):
            inner = inverse * (load(dy, row, c) * weight[c] - load(x, row, c) * inverse * along)
            store(dx, row, c, load(dtotal, row, c) + inner)


@njit(cache=True, nogil=True, fastmath=_SUMS, error_model="numpy")
def heads_forward(
    x: Any, weight: Any, eps: Any, cos: Any, sin: Any, y: Any, scale: Any, first: int, last: int
) -> None:  # fmt: skip
    """Norm of each head, weight [heads, D], then the turn of its position; x [tokens, more than heads * D].

    `cos` and `sin` are [T, D/2] for tokens in rows of T, or [0, D/2] where heads are not turned.
    """
    heads, size = weight.shape
    half = size // 2
    turns = cos.shape[0] > 0
    normed, turned = np.empty(size, np.float32), np.empty(size, np.float32)
    for row in range(first, last):
        position = row % cos.shape[0] if turns else 0
        for head in range(heads):
            at = head * size
            squares = _ZERO
            for c in range(size):
                value = load(x, row, at + c)
                normed[c] = value
                squares += value * value
            inverse = _ONE / np.sqrt(squares / np.float32(size) + eps)
            scale[row, head] = inverse
            for c in range(size):
                normed[c] *= inverse * weight[head, c]
            if turns:
                for c in range(half):
                    turned[c] = normed[c] * cos[position, c] - normed[half + c] * sin[position, c]
                    turned[half + c] = normed[half + c] * cos[position, c] + normed[c] * sin[position, c]
                for c in range(size):
                    store(y, row, at + c, turned[c])
            else:
                for c in range(size):
                    store(y, row, at + c, normed[c])


@njit(cache=True, nogil=True, fastmath=_SUMS, error_model="numpy")
def heads_backward(
    dy: Any, x: Any, weight: Any, scale: Any, cos: Any, sin: Any, dx: Any, dweight_parts: Any, at_head: int,
    first: int, last: int,
) -> None:  # fmt: skip
    """dx of the heads of dy [tokens, n * D], the first being head `at_head` of x; dweight_parts [parts, heads, D]."""
    size = weight.shape[1]
    half = size // 2
    turns = cos.shape[0] > 0
    back = np.empty(size, np.float32)
    for row in range(first, last):
        part = row // ROWS_PER_PART
        position = row % cos.shape[0] if turns else 0
        for own in range(dy.shape[1] // size):
            head = at_head + own
            at, to = own * size, head * size
            if turns:
                for c in range(half):
                    one, two = load(dy, row, at + c), load(dy, row, at + half + c)
                    back[c] = one * cos[position, c] + two * sin[position, c]
                    back[half + c] = two * cos[position, c] - one * sin[position, c]
            else:
                for c in range(size):
                    back[c] = load(dy, row, at + c)
            inverse = scale[row, head]
            along = _ZERO
            for c in range(size):
                normed = load(x, row, to + c) * inverse
                dweight_parts[part, head, c] += back[c] * normed
                along += back[c] * weight[head, c] * normed
            along /= np.float32(size)
            for c in range(size):
                store(dx, row, to + c, inverse * (back[c] * weight[head, c] - load(x, row, to + c) * inverse * along))


@njit(cache=True, nogil=True, error_model="numpy")
def swiglu_forward(x: Any, y: Any, first: int, last: int) -> None:
    """silu(gate) * up, the two halves of x side by side."""
    size = y.shape[1]
    for row in range(first, last):
        for c in range(size):
            gate = load(x, row, c)
            store(y, row, c, gate / (_ONE + exponential(-gate)) * load(x, row, size + c))


@njit(cache=True, nogil=True, error_model="numpy")
def swiglu_backward(dy: Any, x: Any, dx: Any, first: int, last: int) -> None:
    size = dy.shape[1]
    for row in range(first, last):
        for c in range(size):
            gate, up, gradient = load(x, row, c), load(x, row, size + c), load(dy, row, c)
            sigmoid = _ONE / (_ONE + exponential(-gate))
            store(dx, row, c, gradient * up * sigmoid * (_ONE + gate * (_ONE - sigmoid)))
            store(dx, row, size + c, gradient * gate * sigmoid)


@njit(cache=True, nogil=True, fastmath=_SUMS, error_model="numpy")
def combine_forward(base: Any, shared: Any, y: Any, places: Any, weights: Any, out: Any, first: int, last: int) -> None:
    """out = base + shared + the token's experts' rows of y [R, C], weighted; `places` [N, k] says where they are."""
    per_token, width = places.shape[1], out.shape[1]
    sums = np.empty(width, np.float32)
    for row in range(first, last):
        for c in range(width):
            sums[c] = load(shared, row, c)
        for choice in range(per_token):
            place, weight = places[row, choice], weights[row, choice]
            for c in range(width):
                sums[c] += weight * load(y, place, c)
        for c in range(width):
            store(out, row, c, load(base, row, c) + sums[c])


@njit(cache=True, nogil=True, fastmath=_SUMS, error_model="numpy")
def combine_backward(
    dout: Any, y: Any, places: Any, weights: Any, dy: Any, dweights: Any, first: int, last: int
) -> None:  # fmt: skip
    per_token, width = places.shape[1], dout.shape[1]
    for row in range(first, last):
        for choice in range(per_token):
            place, weight = places[row, choice], weights[row, choice]
            along = _ZERO
            for c in range(width):
                gradient = load(dout, row, c)
                along += gradient * load(y, place, c)
                store(dy, place, c, weight * gradient)
            dweights[row, choice] = along


@njit(cache=True, nogil=True, fastmath=_SUMS, error_model="numpy")
def gather_sum(rows: Any, places: Any, out: Any, first: int, last: int) -> None:
    """out[n] = sum over k of rows[places[n, k]]."""
    per_token, width = places.shape[1], out.shape[1]
    sums = np.empty(width, np.float32)
    for row in range(first, last):
        for c in range(width):
            sums[c] = load(rows, places[row, 0], c)
        for choice in range(1, per_token):
            place = places[row, choice]
            for c in range(width):
                sums[c] += load(rows, place, c)
        for c in range(width):
            store(out, row, c, sums[c])
