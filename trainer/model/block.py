"""One decoder layer: pre-norm attention and pre-norm feed-forward, each added to the residual stream.

Source: K-EXAONE's released weights (pre-norm, unlike EXAONE 4.0's post-norm).
Shapes: B rows, T tokens, M new tokens, C width.
"""

from torch import Tensor, nn

from trainer.architecture import FeedForwardType, LayerType, ModelConfig
from trainer.model.attention import Attention
from trainer.model.cache import DecodeStep, LayerCache
from trainer.model.layout import RowLayout
from trainer.model.linear import MLP, RMSNorm
from trainer.model.moe import MoE, Routing, RoutingStatistics, routing_statistics


class Block(nn.Module):
    """h += attention(norm h); h += feed_forward(norm h)."""

    def __init__(self, config: ModelConfig, layer_type: LayerType, feed_forward_type: FeedForwardType) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.attention = Attention(config, layer_type)
        self.feed_forward_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.feed_forward: MLP | MoE = (
            MLP(config.hidden_size, config.intermediate_size) if feed_forward_type == "dense" else MoE(config)
        )

    def forward(self, x_BTC: Tensor, layout: RowLayout) -> tuple[Tensor, RoutingStatistics | None]:
        """The new residual stream, and what was routed (None for a dense layer)."""
        mixed = self.attention(self.attention_norm(x_BTC), layout)
        x_BTC, routing = self._fed_forward(x_BTC, mixed)
        return x_BTC, None if routing is None else routing_statistics(routing, layout.valid_BT, layout.share)

    def forward_cached(self, x_BMC: Tensor, step: DecodeStep, cache: LayerCache) -> Tensor:
        """The new residual stream of M new tokens after those in `cache`."""
        mixed = self.attention.forward_cached(self.attention_norm(x_BMC), step, cache)
        return self._fed_forward(x_BMC, mixed)[0]

    def _fed_forward(self, x_BTC: Tensor, mixed_BTC: Tensor) -> tuple[Tensor, Routing | None]:
        """The stream after attention's update and the feed-forward's."""
        x_BTC, normed = self.feed_forward_norm.after_adding(x_BTC, mixed_BTC)
        if isinstance(self.feed_forward, MLP):
            return x_BTC + self.feed_forward(normed), None
        return self.feed_forward(normed, x_BTC)
