"""Weights and norms the layers are built from: projections that remember their parts, RMSNorm and the SwiGLU MLP.

Contract: no biases. Weights stay in the precision they are kept in; a product is made in that of its input, or in
eight bits where `trainer.precision` has put such a product in. A module with fused rows says in `fused_rows` how its
weight's rows divide into matrices, so that the optimiser and the export treat each part as the matrix it is.
"""

import torch
from torch import Tensor, nn

from trainer.model.fused import add_rms_norm, rms_norm, swiglu
from trainer.model.products import matrix_product


class Linear(nn.Module):
    """y = x W^T, W [out, in]."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.product = matrix_product

    def forward(self, x: Tensor) -> Tensor:
        return self.product(x, self.weight)


class FusedLinear(Linear):
    """Several projections of the same input as one product; W [sum(parts), in]."""

    def __init__(self, in_features: int, parts: tuple[int, ...]) -> None:
        super().__init__(in_features, sum(parts))
        self.fused_rows: dict[str, tuple[int, ...]] = {"weight": parts}


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last axis (arXiv 1910.07467); the weight starts at one."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.eps)

    def after_adding(self, x: Tensor, update: Tensor) -> tuple[Tensor, Tensor]:
        """(x + update, its norm), in one pass where the device has a kernel for it."""
        return add_rms_norm(x, update, self.weight, self.eps)


class MLP(nn.Module):
    """SwiGLU: down(silu(gate x) * up x), gate and up as one product."""

    def __init__(self, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.gate_up = FusedLinear(hidden_size, (intermediate_size, intermediate_size))
        self.down = Linear(intermediate_size, hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(swiglu(self.gate_up(x)))
