"""Multi-token prediction: one dense global layer that predicts the token after the next.

Contract: position t takes the trunk's normed output at t and the embedding of token t+1; its output goes through
the model's own head and predicts token t+2. Embedding first in the concatenation, as in the released weights.
Source: DeepSeek-V3 (arXiv 2412.19437, section 2.2); K-EXAONE's dense, full-attention, position-free variant.
Shapes: B rows, T tokens, M new tokens, C width.
"""

import torch
from torch import Tensor, nn

from trainer.architecture import ModelConfig
from trainer.model.block import Block
from trainer.model.cache import DecodeCache
from trainer.model.layout import RowLayout
from trainer.model.linear import Linear, RMSNorm


class MTPModule(nn.Module):
    """norm(embedding) and norm(hidden) -> projection -> one decoder layer -> norm; shares embedding and head."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embedding_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.hidden_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.projection = Linear(2 * config.hidden_size, config.hidden_size)
        self.block = Block(config, "full_attention", "dense")
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, hidden_BTC: Tensor, next_embedding_BTC: Tensor, layout: RowLayout) -> Tensor:
        """Hidden states [B,T,C] for the head. `hidden_BTC` is the trunk's output after its final norm."""
        x_BTC, _ = self.block(self._joined(hidden_BTC, next_embedding_BTC), layout)
        return self.norm(x_BTC)

    def forward_cached(self, hidden_BMC: Tensor, next_embedding_BMC: Tensor, cache: DecodeCache) -> Tensor:
        """The same for M new positions after those in `cache`."""
        (layer_cache,) = cache.layers
        step = cache.step(hidden_BMC.shape[1])
        return self.norm(self.block.forward_cached(self._joined(hidden_BMC, next_embedding_BMC), step, layer_cache))

    def _joined(self, hidden_BTC: Tensor, next_embedding_BTC: Tensor) -> Tensor:
        pair = [self.embedding_norm(next_embedding_BTC), self.hidden_norm(hidden_BTC)]
        return self.projection(torch.cat(pair, dim=-1))
