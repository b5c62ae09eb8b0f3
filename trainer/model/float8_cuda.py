"""Products in eight bits on accelerators that have them: torch's scaled products, one scale a row of either operand.

Contract: as `trainer.model.float8`, with power-of-two scales a row instead of a block: that is the finest scale torch's
kernels take on compute capability 9.0, for single and grouped products alike. Needs CUDA; compute capability 8.9 for
single and 9.0 for grouped products. Not run on the machine it was written on.
Source: aten `_scaled_mm` and `_scaled_grouped_mm`; recipe `rowwise_with_gw_hp` of torchao.
Shapes: R rows, I in, O out, E experts.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

LARGEST = 448.0  # of e4m3
GROUPED_CAPABILITY = (9, 0)


def has_float8_products(device: torch.device) -> bool:
    """Both products run there."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= GROUPED_CAPABILITY


def scaled_matrix_product(x_RI: Tensor, weight_OI: Tensor) -> Tensor:
    return _ScaledProduct.apply(x_RI, weight_OI)


def scaled_expert_product(x_RI: Tensor, weight_EOI: Tensor, ends_E: Tensor) -> Tensor:
    return _ScaledExpertProduct.apply(x_RI, weight_EOI, ends_E)


def quantised(values: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """e4m3 values and the float32 factors that take them back, one for each vector along `dim`."""
    largest = values.detach().abs().amax(dim, keepdim=True).float().clamp(min=torch.finfo(torch.float32).tiny)
    back = torch.exp2(torch.ceil(torch.log2(largest / LARGEST)))
    return (values.float() / back).clamp(-LARGEST, LARGEST).to(torch.float8_e4m3fn), back


class _ScaledProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_RI: Tensor, weight_OI: Tensor) -> Tensor:
        ctx.save_for_backward(x_RI, weight_OI)
        low_x, back_x = quantised(x_RI, 1)
        low_w, back_w = quantised(weight_OI, 1)
        return torch.ops.aten._scaled_mm(low_x, low_w.t(), back_x, back_w.t(), out_dtype=torch.bfloat16)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        x_RI, weight_OI = ctx.saved_tensors
        dy_RO = gradients[0].contiguous()
        low_dy, back_dy = quantised(dy_RO, 1)
        low_w, back_w = quantised(weight_OI, 0)
        low_w_column_major = low_w.t().contiguous().t()
        dx_RI = torch.ops.aten._scaled_mm(low_dy, low_w_column_major, back_dy, back_w, out_dtype=torch.bfloat16)
        return dx_RI, (dy_RO.t() @ x_RI).to(weight_OI.dtype)


class _ScaledExpertProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_RI: Tensor, weight_EOI: Tensor, ends_E: Tensor) -> Tensor:
        ctx.save_for_backward(x_RI, weight_EOI, ends_E)
        low_x, back_x = quantised(x_RI, 1)
        low_w, back_w = quantised(weight_EOI, 2)
        return torch.ops.aten._scaled_grouped_mm(
            low_x, low_w.transpose(1, 2), back_x.squeeze(1), back_w.squeeze(2), offs=ends_E, out_dtype=torch.bfloat16
        )

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        x_RI, weight_EOI, ends_E = ctx.saved_tensors
        dy_RO = gradients[0].contiguous()
        low_dy, back_dy = quantised(dy_RO, 1)
        low_w, back_w = quantised(weight_EOI, 1)
        low_w_column_major = low_w.transpose(1, 2).contiguous().transpose(1, 2)
        dx_RI = torch.ops.aten._scaled_grouped_mm(
            low_dy, low_w_column_major, back_dy.squeeze(1), back_w.squeeze(1), offs=ends_E, out_dtype=torch.bfloat16
        )
        return dx_RI, F.grouped_mm(dy_RO.t(), x_RI, offs=ends_E).to(weight_EOI.dtype), None
