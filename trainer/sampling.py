"""How the next token is chosen: greedy, or drawn after temperature and top-p, each row from its own random numbers.

Shapes: B rows, V vocabulary.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from pipeline.core.config import Config
from pipeline.core.rng import derive_seed


class SamplingConfig(Config):
    """How the next token is chosen."""

    max_new_tokens: int = Field(default=64, gt=0)
    temperature: float = Field(default=0.0, ge=0)  # 0 is greedy
    top_p: float = Field(default=1.0, gt=0, le=1)  # share of probability kept, the most likely tokens first
    seed: int = Field(default=0, ge=0)
    stop_token_ids: tuple[int, ...] = ()  # generation of a row ends after one of these, which is kept


class RowSampler:
    """One row's own stream of random numbers."""

    def __init__(self, sampling: SamplingConfig, row: int) -> None:
        self.is_greedy = sampling.temperature == 0
        self.generator = torch.Generator().manual_seed(derive_seed("generate", sampling.seed, row))

    def uniform(self) -> float:
        """A number in [0, 1)."""
        return float(torch.rand((), generator=self.generator, dtype=torch.float64))

    def draw(self, probabilities_V: Tensor) -> int:
        if self.is_greedy:
            return int(probabilities_V.argmax())
        cumulative = probabilities_V.double().cpu().cumsum(0)
        threshold = torch.tensor(self.uniform(), dtype=torch.float64) * cumulative[-1]
        return int(torch.searchsorted(cumulative, threshold, right=True).clamp(max=len(cumulative) - 1))


def probabilities(logits_BV: Tensor, sampling: SamplingConfig) -> Tensor:
    """[B,V] after temperature and top-p; one-hot on the most likely token (the first of equals) when greedy."""
    logits_BV = logits_BV.float()
    if sampling.temperature == 0:
        return torch.nn.functional.one_hot(logits_BV.argmax(-1), logits_BV.shape[-1]).float()
    probabilities_BV = (logits_BV / sampling.temperature).softmax(-1)
    if sampling.top_p == 1:
        return probabilities_BV
    ordered, order = probabilities_BV.sort(dim=-1, descending=True, stable=True)
    # A token stays when those before it have not reached top_p yet, so at least one always does.
    kept = torch.where(ordered.cumsum(-1) - ordered < sampling.top_p, ordered, 0.0)
    kept = torch.zeros_like(kept).scatter_(-1, order, kept)
    return kept / kept.sum(-1, keepdim=True)
