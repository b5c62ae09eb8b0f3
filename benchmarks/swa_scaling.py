"""How a sliding-window attention layer grows with the length of its row, forward and backward.

Contract: one attention layer with window 128, one document a row, the same weights on both sides. On a processor the
small preset's in fp32; on a CUDA device, where there is one, that of `moe-30b` in bfloat16 (the small one's does not
fill it), also against our own blocks. The exponent is the slope of log time over log length, 1 being linear.
transformers builds a length x length mask, so that its row stops at a length that fits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmarks.measure import Side, device_timed, interleaved, timed
from benchmarks.result import Comparison, Found, Missing, Spread
from benchmarks.settings import Settings, SizeName
from benchmarks.train_step import bare_config, their_model
from trainer.architecture import ModelConfig
from trainer.model.attention import Attention
from trainer.model.layout import row_layout
from trainer.model.model import MoEModel, build_model
from trainer.presets import PRESETS

NAME = "swa-scaling"
PEER = "transformers exaone_moe (SDPA with a mask)"
BLOCKS = "ours by blocks of half a window"
VOCABULARY = 64  # no head is computed


@dataclass(frozen=True)
class Lengths:
    ours: tuple[int, ...]
    peer: tuple[int, ...]  # a beginning of `ours`
    rounds: int


LENGTHS: dict[SizeName, Lengths] = {
    "full": Lengths((1024, 2048, 4096, 8192, 16_384, 32_768, 65_536, 131_072, 262_144), (1024, 2048, 4096), 3),
    "quick": Lengths((256, 512, 1024, 2048), (256, 512, 1024), 1),
}
# Shorter rows keep no accelerator busy.
DEVICE_LENGTHS: dict[SizeName, Lengths] = {
    "full": Lengths((8192, 16_384, 32_768, 65_536, 131_072, 262_144), (8192, 16_384, 32_768), 5),
    "quick": LENGTHS["quick"],
}


@dataclass(frozen=True)
class Layer:
    """What is measured, and where."""

    config: ModelConfig
    device: str
    dtype: torch.dtype
    clock: Callable[[Side], float]
    same: float  # largest difference of outputs, relative to the peer's largest
    label: str


def on_processor() -> Layer:
    return Layer(bare_config(), "cpu", torch.float32, timed, 1e-4, "")


def on_device(device: str, clock: Callable[[Side], float]) -> Layer:
    """The attention of `moe-30b`; whatever else the model has stays small."""
    like = PRESETS["moe-30b"]
    heads = {"num_attention_heads": like.num_attention_heads, "num_key_value_heads": like.num_key_value_heads}
    config = bare_config().replaced(
        hidden_size=like.hidden_size, head_dim=like.head_dim, window_tokens=like.window_tokens, num_layers=1, **heads
    )
    # Both sides round to bfloat16 on their own ways; 2e-2 is five of its steps.
    return Layer(config, device, torch.bfloat16, clock, 2e-2, ", bfloat16 on the device")


def run(settings: Settings) -> Iterator[Found]:
    """The exponents, and the time at the longest row both take; the same on a CUDA device where there is one."""
    yield from compare(on_processor(), LENGTHS[settings.size])
    if not torch.cuda.is_available():
        yield Missing("the variable-length kernel", "needs a CUDA device: there is none here")
        return
    layer, lengths = on_device("cuda", device_timed), DEVICE_LENGTHS[settings.size]
    yield from compare(layer, lengths)
    yield against_blocks(layer, lengths)


def compare(layer: Layer, lengths: Lengths) -> Iterator[Comparison]:
    """Against transformers."""
    model = build_model(layer.config, VOCABULARY, seed=0)
    peer: Any = their_model(model).to(layer.device, layer.dtype)
    attention = attention_of(model, layer)
    ours: dict[int, list[float]] = {}
    theirs: dict[int, list[float]] = {}
    equal = True
    for tokens in lengths.ours:
        sides = [_our_pass(layer, attention, tokens, layer.dtype)]
        if tokens in lengths.peer:
            sides.append(_their_pass(layer, peer.model, tokens))
            equal &= is_same(layer, sides[0](), sides[1]())
        seconds = interleaved(sides, lengths.rounds, clock=layer.clock)
        ours[tokens] = seconds[0]
        if len(seconds) > 1:
            theirs[tokens] = seconds[1]
    notes = {
        "seconds_ours": {tokens: min(seconds) for tokens, seconds in ours.items()},
        "seconds_peer": {tokens: min(seconds) for tokens, seconds in theirs.items()},
    }
    yield Comparison(
        NAME,
        f"growth from {lengths.ours[0]} to {lengths.ours[-1]} tokens (peer: to {lengths.peer[-1]}){layer.label}",
        "exponent",
        Spread.of([exponent(ours)]),
        Spread.of([exponent(theirs)]),
        PEER,
        _where(layer, lengths),
        equal=equal,
        notes=notes,
    )
    longest = lengths.peer[-1]
    yield Comparison(
        NAME,
        f"forward and backward at {longest} tokens{layer.label}",
        "tokens/s",
        Spread.rate(longest, ours[longest]),
        Spread.rate(longest, theirs[longest]),
        PEER,
        _where(layer, lengths),
        equal=equal,
    )


def against_blocks(layer: Layer, lengths: Lengths) -> Comparison:
    """Attention as the device's precision chooses it, against the blocks that every device can do."""
    attention = attention_of(build_model(layer.config, VOCABULARY, seed=0), layer)
    longest = lengths.ours[-1]
    # A layout made for float32 has blocks and their masks everywhere.
    sides = [_our_pass(layer, attention, longest, dtype) for dtype in (layer.dtype, torch.float32)]
    equal = is_same(layer, sides[0](), sides[1]())
    seconds = interleaved(sides, lengths.rounds, clock=layer.clock)
    return Comparison(
        NAME,
        f"forward and backward at {longest} tokens{layer.label}",
        "tokens/s",
        *(Spread.rate(longest, side) for side in seconds),
        BLOCKS,
        _where(layer, lengths),
        equal=equal,
    )


def attention_of(model: MoEModel, layer: Layer) -> Attention:
    """The first layer's."""
    attention = model.layers[0].attention
    assert isinstance(attention, Attention)
    return attention.to(layer.device, layer.dtype)


def is_same(layer: Layer, ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    return bool((ours.float() - theirs.float()).abs().max() < layer.same * theirs.float().abs().max())


def _where(layer: Layer, lengths: Lengths) -> str:
    shape = f"hidden states of {lengths.ours[0]} to {lengths.ours[-1]} tokens, window {layer.config.window_tokens}"
    if layer.device == "cpu":
        return f"generated: {shape}"
    config = layer.config
    heads = f"{config.num_attention_heads} / {config.num_key_value_heads} heads of {config.head_dim}"
    return f"generated: {shape}, width {config.hidden_size}, {heads}, {torch.cuda.get_device_name(layer.device)}"


def exponent(seconds: dict[int, list[float]]) -> float:
    """Slope of log(least time) over log(length)."""
    slope, _ = np.polyfit(np.log(list(seconds)), np.log([min(found) for found in seconds.values()]), 1)
    return float(slope)


def _hidden(layer: Layer, tokens: int) -> torch.Tensor:
    drawn = torch.randn(1, tokens, layer.config.hidden_size, generator=torch.Generator().manual_seed(tokens))
    return drawn.to(layer.device, layer.dtype).requires_grad_()


def _our_pass(layer: Layer, attention: Attention, tokens: int, layout_dtype: torch.dtype) -> Side:
    config = layer.config
    x_BTC = _hidden(layer, tokens)
    document_ids_BT = torch.zeros(1, tokens, dtype=torch.int32, device=layer.device)

    def forward_backward() -> torch.Tensor:
        layout = row_layout(document_ids_BT, config.window_tokens, config.head_dim, config.rope_theta, layout_dtype)
        y_BTC = attention(x_BTC, layout)
        y_BTC.backward(torch.ones_like(y_BTC))
        return y_BTC.detach()

    return forward_backward


def _their_pass(layer: Layer, model: Any, tokens: int) -> Side:
    from transformers.masking_utils import create_sliding_window_causal_mask

    attention = model.layers[0].self_attn
    x_BTC = _hidden(layer, tokens)
    positions_BT = torch.arange(tokens, device=layer.device)[None]

    def forward_backward() -> torch.Tensor:
        mask = create_sliding_window_causal_mask(
            config=model.config,
            inputs_embeds=x_BTC,
            attention_mask=None,
            past_key_values=None,
            position_ids=positions_BT,
        )
        y_BTC, _ = attention(x_BTC, model.rotary_emb(x_BTC, positions_BT), mask)
        y_BTC.backward(torch.ones_like(y_BTC))
        return y_BTC.detach()

    return forward_backward
