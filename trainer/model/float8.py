"""Products in eight bits, made exactly on a processor: quantise, take the values back, multiply those in bfloat16.

Contract: values are e4m3 with power-of-two scales, one for 128 neighbours of an activation's or gradient's row and one
for a 128 x 128 tile of a weight. Such a value is exact in bfloat16, so that the bfloat16 product of quantised values
is the eight-bit product with sums in float32. The input's gradient is made the same way, the weight's from unquantised
values, since its error adds up over steps. Accelerators that multiply eight bits do it in `trainer.model.float8_cuda`.
Cost: one pass over each operand a product.
Source: tiles of DeepSeek-V3 (arXiv 2412.19437, section 3.3.2); weight gradients as in torchao's `rowwise_with_gw_hp`.
The K-EXAONE report trains in FP8 and does not say how.
Shapes: R rows, I in, O out, E experts.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.model import float8_kernels
from trainer.model.float8_cuda import has_float8_products, scaled_expert_product, scaled_matrix_product
from trainer.model.fused import bits_of, over_rows

BLOCK = 128  # neighbours that share a scale
LARGEST = 448.0  # of e4m3
_EXPONENT_BIAS = 127


def float8_matrix_product(x: Tensor, weight_OI: Tensor) -> Tensor:
    """x W^T of any leading shape, in bfloat16."""
    product = scaled_matrix_product if has_float8_products(x.device) else _MatrixProduct.apply
    return product(x.flatten(0, -2), weight_OI).unflatten(0, x.shape[:-1])


def float8_expert_product(x_RI: Tensor, weight_EOI: Tensor, ends_E: Tensor) -> Tensor:
    """Each expert's rows by its matrix, in bfloat16; rows in order of expert, as for the plain product."""
    if has_float8_products(x_RI.device):
        return scaled_expert_product(x_RI, weight_EOI, ends_E)
    return _ExpertProduct.apply(x_RI, weight_EOI, ends_E)


def quantised_rows(x_RI: Tensor) -> Tensor:
    """The nearest e4m3 values under one power-of-two scale for each 128 of a row, as bfloat16."""
    if x_RI.device.type == "cpu" and x_RI.dtype in (torch.bfloat16, torch.float32):
        x_RI, found = x_RI.contiguous(), torch.empty_like(x_RI, dtype=torch.bfloat16)
        over_rows(float8_kernels.quantise_rows, bits_of(x_RI), bits_of(found), rows=x_RI.shape[0], width=x_RI.shape[1])
        return found
    width = x_RI.shape[1]
    blocks = F.pad(x_RI, (0, -width % BLOCK)).float().unflatten(1, (-1, BLOCK))
    return _rounded(blocks, blocks.abs().amax(2, keepdim=True)).flatten(1)[:, :width]


def quantised_tiles(weight: Tensor) -> Tensor:
    """The same for each 128 x 128 tile of every matrix of a weight [..., O, I]."""
    rows, width = weight.shape[-2:]
    if weight.device.type == "cpu" and weight.dtype in (torch.bfloat16, torch.float32):
        # A copy: FSDP2 frees gathered weights by resizing them, which memory that numpy has seen does not allow.
        flat = weight.detach().clone(memory_format=torch.contiguous_format).flatten(0, -2)
        found = torch.empty_like(flat, dtype=torch.bfloat16)
        float8_kernels.quantise_tiles(bits_of(flat), rows, bits_of(found))
        return found.view(weight.shape)
    padded = F.pad(weight.detach(), (0, -width % BLOCK, 0, -rows % BLOCK)).float()
    tiles = padded.unflatten(-1, (-1, BLOCK)).unflatten(-3, (-1, BLOCK))  # [..., o, 128, i, 128]
    rounded = _rounded(tiles, tiles.abs().amax((-3, -1), keepdim=True))
    return rounded.flatten(-2).flatten(-3, -2)[..., :rows, :width].contiguous()


def power_of_two_scale(largest: Tensor) -> Tensor:
    """The largest power of two by which `largest` stays within e4m3; 1 for zero and for what is no number."""
    mantissa, exponent = torch.frexp(largest)
    # largest = m * 2^e, 0.5 <= m < 1; 448 = 0.875 * 2^9
    scale = torch.ldexp(torch.ones_like(largest), 9 - exponent - (mantissa > 0.875).int())
    return scale.where((largest > 0) & largest.isfinite(), 1.0)


def _rounded(values: Tensor, largest: Tensor) -> Tensor:
    scale = power_of_two_scale(largest)
    return ((values * scale).clamp(-LARGEST, LARGEST).to(torch.float8_e4m3fn).float() / scale).bfloat16()


class _MatrixProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_RI: Tensor, weight_OI: Tensor) -> Tensor:
        low_OI = quantised_tiles(weight_OI)
        ctx.save_for_backward(x_RI, low_OI)
        ctx.weight_dtype = weight_OI.dtype
        return quantised_rows(x_RI) @ low_OI.t()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        x_RI, low_OI = ctx.saved_tensors
        dy_RO = gradients[0]
        return quantised_rows(dy_RO) @ low_OI, (dy_RO.t() @ x_RI).to(ctx.weight_dtype)


class _ExpertProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_RI: Tensor, weight_EOI: Tensor, ends_E: Tensor) -> Tensor:
        low_EOI = quantised_tiles(weight_EOI)
        ctx.save_for_backward(x_RI, low_EOI, ends_E)
        ctx.weight_dtype = weight_EOI.dtype
        return F.grouped_mm(quantised_rows(x_RI), low_EOI.transpose(-2, -1), offs=ends_E)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        x_RI, low_EOI, ends_E = ctx.saved_tensors
        dy_RO = gradients[0].contiguous()
        dx_RI = F.grouped_mm(quantised_rows(dy_RO), low_EOI, offs=ends_E)
        dweight_EOI = F.grouped_mm(dy_RO.t(), x_RI, offs=ends_E)
        return dx_RI, dweight_EOI.to(ctx.weight_dtype), None
