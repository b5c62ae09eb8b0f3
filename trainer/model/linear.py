"""Weights and norms the layers are built from: fused projections that remember their parts, and RMSNorm.

Contract: no biases. A module with fused rows says in `fused_rows` how its weight's rows divide into matrices, so
that the optimiser and the export treat each part as the matrix it is.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FusedLinear(nn.Module):
    """Several projections of the same input as one product; y = x W^T, W [sum(parts), in]."""

    def __init__(self, in_features: int, parts: tuple[int, ...]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(sum(parts), in_features))
        self.fused_rows: dict[str, tuple[int, ...]] = {"weight": parts}

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight)


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last axis (arXiv 1910.07467); the weight starts at one."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.weight, self.eps)


class MLP(nn.Module):
    """SwiGLU: down(silu(gate x) * up x), gate and up as one product."""

    def __init__(self, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.gate_up = FusedLinear(hidden_size, (intermediate_size, intermediate_size))
        self.down = nn.Linear(intermediate_size, hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)
