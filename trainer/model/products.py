"""Products of activations with weights: one matrix, or one matrix an expert.

Contract: the product is made in the activation's precision; weights kept in another are cast for it, and their
gradients come back in their own. Shapes: R rows, I in, O out, E experts.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.model.onednn import (
    FEWEST_ROWS,
    expert_gradients,
    multiply_experts,
    multiply_rows,
    serves,
    weight_gradient,
)


def matrix_product(x: Tensor, weight_OI: Tensor) -> Tensor:
    """x W^T of any leading shape."""
    weight_OI = weight_OI.to(x.dtype)
    if serves(x) and x.numel() >= FEWEST_ROWS * x.shape[-1]:
        return onednn_product(x.flatten(0, -2), weight_OI).unflatten(0, x.shape[:-1])
    return F.linear(x, weight_OI)


def expert_product(x_RI: Tensor, weight_EOI: Tensor, ends_E: Tensor) -> Tensor:
    """x W_e^T for each expert's rows, [R, O]; expert e's rows end before `ends_E[e]` (int32).

    The grouped kernel, or a loop where it has none (float64).
    """
    weight_EOI = weight_EOI.to(x_RI.dtype)
    if x_RI.dtype == torch.float32 and (torch.compiler.is_compiling() or _goes_to_onednn(x_RI, weight_EOI)):
        return float32_grouped_product(x_RI, weight_EOI, ends_E)
    if x_RI.dtype in (torch.float32, torch.bfloat16):
        return F.grouped_mm(x_RI, weight_EOI.transpose(-2, -1), offs=ends_E)
    counts = ends_E.diff(prepend=ends_E.new_zeros(1)).tolist()
    # unbind, not indexing: the backward of `weight[e]` makes a full-size zero gradient for every expert.
    parts = zip(x_RI.split(counts), weight_EOI.unbind(0), strict=True)
    return torch.cat([F.linear(rows, weight) for rows, weight in parts])


@torch.library.custom_op("seodang::onednn_product", mutates_args=())
def onednn_product(x_RI: Tensor, weight_OI: Tensor) -> Tensor:
    """An opaque operation: torch's compiler asks of oneDNN's own that weights be constant."""
    return multiply_rows(x_RI, weight_OI)


@torch.library.custom_op("seodang::onednn_gradients", mutates_args=())
def onednn_gradients(dy_RO: Tensor, x_RI: Tensor, weight_OI: Tensor) -> tuple[Tensor, Tensor]:
    """Of the input and the weight."""
    return multiply_rows(dy_RO, weight_OI.t()), weight_gradient(dy_RO, x_RI)


def _goes_to_onednn(x_RI: Tensor, weight_EOI: Tensor) -> bool:
    return serves(x_RI) and len(x_RI) >= FEWEST_ROWS * len(weight_EOI)


@torch.library.custom_op("seodang::float32_grouped_product", mutates_args=())
def float32_grouped_product(x_RI: Tensor, weight_EOI: Tensor, ends_E: Tensor) -> Tensor:
    """One opaque operation: torch 2.13's compiler takes the grouped kernel for bfloat16 only."""
    if _goes_to_onednn(x_RI, weight_EOI):
        return multiply_experts(x_RI, weight_EOI, ends_E)
    return F.grouped_mm(x_RI, weight_EOI.transpose(-2, -1), offs=ends_E)


@torch.library.custom_op("seodang::float32_grouped_gradients", mutates_args=())
def float32_grouped_gradients(dy_RO: Tensor, x_RI: Tensor, weight_EOI: Tensor, ends_E: Tensor) -> tuple[Tensor, Tensor]:
    """Of the input and the weights."""
    if _goes_to_onednn(x_RI, weight_EOI):
        return expert_gradients(dy_RO, x_RI, weight_EOI, ends_E)
    dy_RO = dy_RO.contiguous()
    return F.grouped_mm(dy_RO, weight_EOI, offs=ends_E), F.grouped_mm(dy_RO.t(), x_RI, offs=ends_E)


def _product_shape(x_RI: Tensor, weight: Tensor, *ends_E: Tensor) -> Tensor:
    return x_RI.new_empty(x_RI.shape[0], weight.shape[-2])


def _gradient_shapes(dy_RO: Tensor, x_RI: Tensor, weight: Tensor, *ends_E: Tensor) -> tuple[Tensor, Tensor]:
    return x_RI.new_empty(x_RI.shape), weight.new_empty(weight.shape)


def _keep_operands(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(gradients: Callable[..., tuple[Tensor, Tensor]]) -> Callable[[Any, Tensor], tuple[Tensor | None, ...]]:
    def backward(ctx: Any, dy_RO: Tensor) -> tuple[Tensor | None, ...]:
        operands = ctx.saved_tensors
        return *gradients(dy_RO, *operands), *(None for _ in operands[2:])

    return backward


for _product, _gradients in (
    (onednn_product, onednn_gradients),
    (float32_grouped_product, float32_grouped_gradients),
):
    _product.register_fake(_product_shape)
    _gradients.register_fake(_gradient_shapes)
    _product.register_autograd(_backward(_gradients), setup_context=_keep_operands)
