"""Rotary position embedding in the half-split form, used by sliding layers only.

Contract: tables are float32 (float64 for a float64 model) and cast when applied; positions run over the row,
since only differences matter. Source: Su et al. (arXiv 2104.09864), layout of the transformers implementation.
Shapes: B rows, T tokens, H heads, D head_dim.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class RotaryTables(NamedTuple):
    cos_TD: Tensor  # [T, D/2]
    sin_TD: Tensor  # [T, D/2]


def rotary_tables(positions_T: Tensor, head_dim: int, theta: float) -> RotaryTables:
    """Cosines and sines of position x frequency theta**(-2i/head_dim), float32 [T, head_dim/2]."""
    exponents = torch.arange(0, head_dim, 2, device=positions_T.device).float() / head_dim
    angles = positions_T.float()[:, None] * (1.0 / theta**exponents)
    return RotaryTables(angles.cos(), angles.sin())


def rotate(heads_BTHD: Tensor, tables: RotaryTables) -> Tensor:
    """Turn each pair (i, i + D/2) of each head by its position's angle."""
    cos, sin = (table[:, None].to(heads_BTHD.dtype) for table in tables)
    first, second = heads_BTHD.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
