"""Products of activations with weights: one matrix, or one matrix an expert.

Contract: the product is made in the activation's precision; weights kept in another are cast for it, and their
gradients come back in their own. Shapes: R rows, I in, O out, E experts.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def matrix_product(x: Tensor, weight_OI: Tensor) -> Tensor:
    """x W^T of any leading shape."""
    return F.linear(x, weight_OI.to(x.dtype))


def expert_product(x_RI: Tensor, weight_EOI: Tensor, ends_E: Tensor) -> Tensor:
    """x W_e^T for each expert's rows, [R, O]; expert e's rows end before `ends_E[e]` (int32).

    The grouped kernel, or a loop where it has none (float64).
    """
    weight_EOI = weight_EOI.to(x_RI.dtype)
    if x_RI.dtype == torch.float32 and torch.compiler.is_compiling():
        return float32_grouped_product(x_RI, weight_EOI, ends_E)
    if x_RI.dtype in (torch.float32, torch.bfloat16):
        return F.grouped_mm(x_RI, weight_EOI.transpose(-2, -1), offs=ends_E)
    counts = ends_E.diff(prepend=ends_E.new_zeros(1)).tolist()
    # unbind, not indexing: the backward of `weight[e]` makes a full-size zero gradient for every expert.
    parts = zip(x_RI.split(counts), weight_EOI.unbind(0), strict=True)
    return torch.cat([F.linear(rows, weight) for rows, weight in parts])


@torch.library.custom_op("seodang::float32_grouped_product", mutates_args=())
def float32_grouped_product(x_RI: Tensor, weight_EOI: Tensor, ends_E: Tensor) -> Tensor:
    """The grouped kernel as one opaque operation: torch 2.13's compiler takes it for bfloat16 only."""
    return F.grouped_mm(x_RI, weight_EOI.transpose(-2, -1), offs=ends_E)


@torch.library.custom_op("seodang::float32_grouped_gradients", mutates_args=())
def float32_grouped_gradients(dy_RO: Tensor, x_RI: Tensor, weight_EOI: Tensor, ends_E: Tensor) -> tuple[Tensor, Tensor]:
    """Of the input and the weights."""
    dy_RO = dy_RO.contiguous()
    return F.grouped_mm(dy_RO, weight_EOI, offs=ends_E), F.grouped_mm(dy_RO.t(), x_RI, offs=ends_E)


@float32_grouped_product.register_fake
def _product_shape(x_RI: Tensor, weight_EOI: Tensor, ends_E: Tensor) -> Tensor:
    return x_RI.new_empty(x_RI.shape[0], weight_EOI.shape[1])


@float32_grouped_gradients.register_fake
def _gradient_shapes(dy_RO: Tensor, x_RI: Tensor, weight_EOI: Tensor, ends_E: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x_RI), torch.empty_like(weight_EOI)


def _keep_operands(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _product_backward(ctx: Any, dy_RO: Tensor) -> tuple[Tensor, Tensor, None]:
    return (*float32_grouped_gradients(dy_RO, *ctx.saved_tensors), None)


float32_grouped_product.register_autograd(_product_backward, setup_context=_keep_operands)
