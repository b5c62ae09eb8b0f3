"""Products of activations with weights: one matrix, or one matrix an expert.

Contract: the product is made in the activation's precision; weights kept in another are cast for it, and their
gradients come back in their own. Shapes: R rows, I in, O out, E experts.
"""

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
    if x_RI.dtype in (torch.float32, torch.bfloat16):
        return F.grouped_mm(x_RI, weight_EOI.transpose(-2, -1), offs=ends_E)
    counts = ends_E.diff(prepend=ends_E.new_zeros(1)).tolist()
    # unbind, not indexing: the backward of `weight[e]` makes a full-size zero gradient for every expert.
    parts = zip(x_RI.split(counts), weight_EOI.unbind(0), strict=True)
    return torch.cat([F.linear(rows, weight) for rows, weight in parts])
