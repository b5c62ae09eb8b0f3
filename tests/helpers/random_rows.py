"""Rows of several documents with random queries, keys and values, in float64. Shapes: B rows, T tokens, 8 a head."""

from __future__ import annotations

import torch
from torch import Tensor

Heads = tuple[Tensor, Tensor, Tensor]


def random_rows(
    seed: int, rows: int, tokens: int, documents: int, heads: int = 4, key_heads: int = 2
) -> tuple[Heads, Tensor]:
    """((queries, keys, values) [B, T, heads, 8] that take gradients, document ids [B, T])."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(count: int) -> Tensor:
        return torch.randn(rows, tokens, count, 8, generator=generator, dtype=torch.float64, requires_grad=True)

    qkv = drawn(heads), drawn(key_heads), drawn(key_heads)
    return qkv, torch.randint(0, documents, (rows, tokens), generator=generator).sort(dim=1).values
