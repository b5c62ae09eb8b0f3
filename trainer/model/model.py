"""The whole model: embedding, decoder layers, final norm, head, and the multi-token-prediction module.

Contract: `forward` gives hidden states, not logits; losses and generation apply the head in pieces, since logits of
a whole batch at vocabulary 150K do not fit. Initial weights depend on (seed, name of the weight, shape) only.
Shapes: B rows, T tokens, M new tokens, C width, V vocabulary, E experts.
"""

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pipeline.core.rng import derive_seed
from trainer.architecture import ModelConfig
from trainer.model.block import Block
from trainer.model.cache import DecodeCache
from trainer.model.exchange import ContextShare
from trainer.model.layout import RowLayout, row_layout, shared_row_layout
from trainer.model.linear import Linear, RMSNorm
from trainer.model.moe import MoE, RoutingStatistics
from trainer.model.mtp import MTPModule

# Which layers make their activations again in the backward pass instead of keeping them.
Recompute = Literal["none", "sparse", "blocks"]


class LayerRouting(NamedTuple):
    """What a sparse layer did with a batch."""

    layer: int
    counts_E: Tensor  # int64, padding not counted
    balance_loss: Tensor  # scalar, not yet weighted
    entropy: Tensor  # scalar, detached: of the router's scores, 1 when they are all alike


class ModelOutput(NamedTuple):
    hidden_BTC: Tensor  # after the final norm
    routing: tuple[LayerRouting, ...]  # one for each sparse layer, in order
    layout: RowLayout


class MoEModel(nn.Module):
    """A K-EXAONE-architecture decoder."""

    def __init__(self, config: ModelConfig, vocabulary_size: int) -> None:
        super().__init__()
        self.config = config
        self.vocabulary_size = vocabulary_size
        self.embedding = nn.Embedding(vocabulary_size, config.hidden_size)
        self.layers = nn.ModuleList(
            Block(config, layer_type, feed_forward_type)
            for layer_type, feed_forward_type in zip(config.layer_types, config.feed_forward_types, strict=True)
        )
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.head = Linear(config.hidden_size, vocabulary_size)
        if config.tie_embeddings:
            self.tie()
        self.mtp = MTPModule(config) if config.mtp_layers else None
        self.share: ContextShare | None = None  # the stretch of each row that is computed here; None: all of it
        self.recompute: Recompute = "none"
        self.activation_dtype: torch.dtype | None = None  # of the residual stream; None: the weights'

    def forward(self, token_ids_BT: Tensor, document_ids_BT: Tensor) -> ModelOutput:
        """Hidden states of packed rows.

        `document_ids_BT` has one integer per token: equal neighbours are one document, -1 is padding. Where processes
        share rows, both are given for whole rows, and the answer is about this process's stretch. In training mode
        the routed tokens are added to what the next `update_expert_bias` uses.
        """
        config = self.config
        form = config.window_tokens, config.head_dim, config.rope_theta
        if self.share is None:
            layout = row_layout(document_ids_BT, *form, self._precision())
        else:
            layout = shared_row_layout(document_ids_BT, *form, self.share)
            token_ids_BT = self.share.part(token_ids_BT)
        x_BTC = self.embed(token_ids_BT)
        routing: list[LayerRouting] = []
        for index, block in enumerate(self.layers):
            x_BTC, statistics = self._recomputed(index, block, x_BTC, layout)
            if statistics is not None:
                routing.append(LayerRouting(index, *statistics))
                self._count_load(block, statistics)
        return ModelOutput(self.norm(x_BTC), tuple(routing), layout)

    def _recomputed(
        self, index: int, block: nn.Module, x_BTC: Tensor, layout: RowLayout
    ) -> tuple[Tensor, RoutingStatistics | None]:
        """A block, its activations kept or, by `self.recompute`, made again in the backward pass."""
        is_sparse = self.config.feed_forward_types[index] == "sparse"
        if torch.is_grad_enabled() and (self.recompute == "blocks" or (self.recompute == "sparse" and is_sparse)):
            return checkpoint(block, x_BTC, layout, use_reentrant=False)
        return block(x_BTC, layout)

    def forward_mtp(self, output: ModelOutput, token_ids_BT: Tensor) -> Tensor:
        """Hidden states [B,T,C] whose head output at t predicts token t+2.

        Asserts that the model has an MTP module. The last token's successor is not in the row; its own embedding
        stands in, at a position that nothing is predicted from and that no other position sees.
        """
        assert self.mtp is not None
        next_BT = torch.cat([token_ids_BT[:, 1:], token_ids_BT[:, -1:]], dim=1)
        if self.share is not None:
            next_BT = self.share.part(next_BT)
        given = output.hidden_BTC, self.embed(next_BT), output.layout
        if torch.is_grad_enabled() and self.recompute == "blocks":
            return checkpoint(self.mtp, *given, use_reentrant=False)
        return self.mtp(*given)

    def compile_blocks(self) -> None:
        """From now on run each layer through torch's compiler; layers of one kind share what is compiled."""
        for block in self.modules():
            if isinstance(block, Block):
                block.compile(dynamic=False)

    def tie(self) -> None:
        """One weight for embedding and head."""
        assert isinstance(self.embedding.weight, nn.Parameter)
        self.head.weight = self.embedding.weight

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., V] of [..., C]. Holds every logit: for a few positions at a time."""
        return self.head(hidden)

    def embed(self, token_ids: Tensor) -> Tensor:
        """The tokens' embeddings in the activations' precision, which every later product follows."""
        return self.embedding(token_ids).to(self._precision())

    def _precision(self) -> torch.dtype:
        """Of the residual stream, and so of every layer's queries and keys."""
        return self.activation_dtype or self.embedding.weight.dtype

    def new_cache(self, padding_B: Tensor) -> DecodeCache:
        """An empty cache for `forward_cached`; `padding_B` int64 is how many of each row's first tokens are padding."""
        config = self.config
        kinds = config.layer_types
        windows = [config.window_tokens if kind == "sliding_attention" else None for kind in kinds]
        return DecodeCache(windows, config.head_dim, config.rope_theta, padding_B)

    def new_mtp_cache(self, padding_B: Tensor) -> DecodeCache:
        """An empty cache for the MTP module's one global layer."""
        return DecodeCache([None], self.config.head_dim, self.config.rope_theta, padding_B)

    def forward_cached(self, token_ids_BM: Tensor, cache: DecodeCache) -> Tensor:
        """Hidden states [B,M,C] after the final norm of M new tokens, which are added to the cache.

        Holds a mask of M x (tokens so far).
        """
        step = cache.step(token_ids_BM.shape[1])
        x_BMC = self.embed(token_ids_BM)
        for block, layer_cache in zip(self.layers, cache.layers, strict=True):
            assert isinstance(block, Block)
            x_BMC = block.forward_cached(x_BMC, step, layer_cache)
        return self.norm(x_BMC)

    def update_expert_bias(self, rate: float) -> dict[int, Tensor]:
        """After an optimiser step: move the selection biases against the load since the last call.

        Returns the load it used, layer index -> int64 [E]. Source: DeepSeek-V3, section 2.1.2.
        """
        return {index: moe.router.update_bias(rate) for index, moe in self.sparse_layers().items()}

    def sparse_layers(self) -> dict[int, MoE]:
        """Layer index -> its experts."""
        feed_forwards = {index: block.feed_forward for index, block in enumerate(self.layers)}
        return {index: layer for index, layer in feed_forwards.items() if isinstance(layer, MoE)}

    @torch.no_grad()
    def _count_load(self, block: nn.Module, statistics: RoutingStatistics) -> None:
        assert isinstance(block, Block)
        assert isinstance(block.feed_forward, MoE)
        if self.training:
            block.feed_forward.router.load += statistics.counts_E


def build_model(config: ModelConfig, vocabulary_size: int, seed: int, device: str | torch.device = "cpu") -> MoEModel:
    """A new model in float32 on `device`; "meta" gives shapes without memory."""
    with torch.device("meta"):
        model = MoEModel(config, vocabulary_size)
    if torch.device(device).type == "meta":
        return model
    model.to_empty(device=device)
    if config.tie_embeddings:
        model.tie()
    initialize(model, seed)
    return model


@torch.no_grad()
def initialize(
    model: MoEModel,
    seed: int,
    shapes: Mapping[str, torch.Size] | None = None,
    part: Callable[[str, Tensor, Tensor], Tensor] = lambda _name, whole, _like: whole,
) -> None:
    """Norm weights 1; router biases and loads 0; every other weight normal with std `initializer_range`.

    That is embedding, head, attention, MLP, expert, router and MTP projection weights alike. Drawn on the CPU
    from a generator of its own for each weight, so neither device nor the order of layers changes a value. Where
    weights are cut, `shapes` are those of whole ones, and `part` takes this process's of (name, whole, weight).
    """
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            parameter.fill_(1.0)
            continue
        generator = torch.Generator().manual_seed(derive_seed("initialize", seed, name))
        drawn = torch.empty(parameter.shape if shapes is None else shapes[name], dtype=torch.float32)
        drawn.normal_(0.0, model.config.initializer_range, generator=generator)
        parameter.copy_(part(name, drawn, parameter))
    for buffer in model.buffers():
        buffer.zero_()
