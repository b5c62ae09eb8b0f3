"""float32 products through oneDNN where torch's own, MKL's, leave half of the processor's vector unit idle.

Contract: the product of float32 matrices, in float32 throughout. Which processors go here is a rule, not a measurement,
so that a machine's bits are always the same: they depend on processor and thread count, as MKL's do, and nothing else.
Cost: on one core of a Zen 5 a product of 1024^3 runs at 235 against 100 GFLOP/s; a call costs 10 against 2
microseconds; a new shape once 250 more for its kernel, so that rows of changing number are taken in whole windows.
Source: the operation that torch's compiler emits for linear layers (torch/_inductor/mkldnn_ir.py).
Shapes: R rows, I in, O out, E experts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from itertools import pairwise

import llvmlite.binding
import torch
import torch.nn.functional as F
from torch import Tensor

# MKL gives AMD's processors its AVX2 kernels. Through Zen 4 these are as wide as the hardware; Zen 5 is twice as wide.
FIRST_ZEN = 5
FEWEST_ROWS = 32  # below, the call costs more than the faster product saves
WINDOW_ROWS = 64


def serves(x: Tensor) -> bool:
    """Whether products of `x` are better made here."""
    return x.device.type == "cpu" and x.dtype == torch.float32 and is_faster()


@torch.compiler.assume_constant_result
def is_faster() -> bool:
    """Whether torch has both libraries, and this is a processor on which MKL is the slower one."""
    return _has_both() and torch.backends.cpu.get_cpu_capability() == "AVX512" and _zen() >= FIRST_ZEN


def multiply(x_RI: Tensor, weight_OI: Tensor) -> Tensor:
    """x W^T of matrices in any memory order, without a gradient; torch's where they are small or not served."""
    if min(*x_RI.shape, len(weight_OI)) < FEWEST_ROWS // 2 or not serves(x_RI):
        return x_RI @ weight_OI.t()
    return torch.ops.mkldnn._linear_pointwise(x_RI, weight_OI, None, "none", [], "")


def filled_rows(x_RI: Tensor) -> Tensor:
    """With zero rows behind it up to a multiple of WINDOW_ROWS, where products are made here."""
    if len(x_RI) % WINDOW_ROWS == 0 or len(x_RI) < FEWEST_ROWS // 2 or not serves(x_RI):
        return x_RI
    return F.pad(x_RI, (0, 0, 0, -len(x_RI) % WINDOW_ROWS))


def multiply_rows(x_RI: Tensor, weight_OI: Tensor) -> Tensor:
    """`multiply` for rows of changing number: shapes stay few, and so do the kernels oneDNN keeps, 0.6 MiB each."""
    return multiply(filled_rows(x_RI), weight_OI)[: len(x_RI)]


def weight_gradient(dy_RO: Tensor, x_RI: Tensor) -> Tensor:
    """dy^T x, [O, I]. oneDNN reorders one side by itself; the other is copied by torch, slowly: the narrower one."""
    dy_RO, x_RI = filled_rows(dy_RO), filled_rows(x_RI)
    if dy_RO.shape[1] > x_RI.shape[1]:
        return multiply(x_RI.t(), dy_RO.t()).t().contiguous()
    return multiply(dy_RO.t(), x_RI.t())


def multiply_experts(x_RI: Tensor, weight_EOI: Tensor, ends_E: Tensor) -> Tensor:
    """x W_e^T for each expert's rows, without a gradient; rows after the last expert's are not written."""
    y_RO = x_RI.new_empty(len(x_RI), weight_EOI.shape[1])
    for (own, window, inside), weight_OI in zip(_windows(ends_E), weight_EOI.unbind(), strict=True):
        y_RO[own] = multiply(x_RI[window], weight_OI)[inside]
    return y_RO


def expert_gradients(dy_RO: Tensor, x_RI: Tensor, weight_EOI: Tensor, ends_E: Tensor) -> tuple[Tensor, Tensor]:
    """Of the input and the weights of `multiply_experts`."""
    dx_RI, dweight_EOI = x_RI.new_empty(x_RI.shape), weight_EOI.new_empty(weight_EOI.shape)
    for expert, (own, window, inside) in enumerate(_windows(ends_E)):
        dx_RI[own] = multiply(dy_RO[window], weight_EOI[expert].t())[inside]
        own_dy_RO = torch.zeros_like(dy_RO[window])
        own_dy_RO[inside] = dy_RO[own]
        dweight_EOI[expert] = weight_gradient(own_dy_RO, x_RI[window])
    return dx_RI, dweight_EOI


def _windows(ends_E: Tensor) -> Iterator[tuple[slice, slice, slice]]:
    """Each expert's rows; a multiple of WINDOW_ROWS that holds them, or all rows if these are fewer; where in it."""
    ends = [0, *ends_E.tolist()]
    for first, last in pairwise(ends):
        size = min(ends[-1], -(-(last - first) // WINDOW_ROWS) * WINDOW_ROWS)
        begin = min(first, ends[-1] - size)
        yield slice(first, last), slice(begin, begin + size), slice(first - begin, last - begin)


@cache
def _has_both() -> bool:
    has_onednn = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return has_onednn and torch.backends.mkl.is_available()


@cache
def _zen() -> int:
    """The generation of an AMD processor's cores, 0 for others."""
    found = re.fullmatch(r"znver(\d+)", llvmlite.binding.get_host_cpu_name())
    return int(found[1]) if found else 0
