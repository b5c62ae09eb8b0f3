"""How a sliding-window attention layer grows with the length of its row, forward and backward.

Contract: one attention layer of the small preset with window 128, fp32, one document a row, the same weights on both
sides. The exponent is the slope of log time over log length, 1 being linear. transformers builds a length x length
mask, so that its row stops at a length that fits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmarks.measure import Side, interleaved
from benchmarks.result import Comparison, Found, Spread
from benchmarks.settings import Settings, SizeName
from benchmarks.train_step import bare_config, their_model
from trainer.model.attention import Attention
from trainer.model.layout import row_layout
from trainer.model.model import build_model

NAME = "swa-scaling"
PEER = "transformers exaone_moe (SDPA with a mask)"
SAME = 1e-4  # largest absolute difference of outputs


@dataclass(frozen=True)
class Lengths:
    ours: tuple[int, ...]
    peer: tuple[int, ...]  # a beginning of `ours`
    rounds: int


LENGTHS: dict[SizeName, Lengths] = {
    "full": Lengths((1024, 2048, 4096, 8192, 16_384, 32_768, 65_536, 131_072, 262_144), (1024, 2048, 4096), 3),
    "quick": Lengths((256, 512, 1024, 2048), (256, 512, 1024), 1),
}


def run(settings: Settings) -> Iterator[Found]:
    """The exponents, and the time at the longest row both take."""
    lengths = LENGTHS[settings.size]
    model = build_model(bare_config(), 64, seed=0)
    attention = model.layers[0].attention
    assert isinstance(attention, Attention)
    peer: Any = their_model(model)
    ours: dict[int, list[float]] = {}
    theirs: dict[int, list[float]] = {}
    equal = True
    for tokens in lengths.ours:
        sides = [_our_pass(attention, tokens)]
        if tokens in lengths.peer:
            sides.append(_their_pass(peer.model, tokens))
            equal &= bool((sides[0]() - sides[1]()).abs().max() < SAME)
        seconds = interleaved(sides, lengths.rounds)
        ours[tokens] = seconds[0]
        if len(seconds) > 1:
            theirs[tokens] = seconds[1]
    where = f"generated: hidden states of {lengths.ours[0]} to {lengths.ours[-1]} tokens, window 128"
    notes = {
        "seconds_ours": {tokens: min(seconds) for tokens, seconds in ours.items()},
        "seconds_peer": {tokens: min(seconds) for tokens, seconds in theirs.items()},
    }
    yield Comparison(
        NAME,
        f"growth from {lengths.ours[0]} to {lengths.ours[-1]} tokens (peer: to {lengths.peer[-1]})",
        "exponent",
        Spread.of([exponent(ours)]),
        Spread.of([exponent(theirs)]),
        PEER,
        where,
        equal=equal,
        notes=notes,
    )
    longest = lengths.peer[-1]
    yield Comparison(
        NAME,
        f"forward and backward at {longest} tokens",
        "tokens/s",
        Spread.rate(longest, ours[longest]),
        Spread.rate(longest, theirs[longest]),
        PEER,
        where,
        equal=equal,
    )


def exponent(seconds: dict[int, list[float]]) -> float:
    """Slope of log(least time) over log(length)."""
    slope, _ = np.polyfit(np.log(list(seconds)), np.log([min(found) for found in seconds.values()]), 1)
    return float(slope)


def _hidden(tokens: int, width: int) -> torch.Tensor:
    return torch.randn(1, tokens, width, generator=torch.Generator().manual_seed(tokens))


def _our_pass(attention: Attention, tokens: int) -> Side:
    config = bare_config()
    x_BTC = _hidden(tokens, config.hidden_size).requires_grad_()
    document_ids_BT = torch.zeros(1, tokens, dtype=torch.int32)

    def forward_backward() -> torch.Tensor:
        layout = row_layout(document_ids_BT, config.window_tokens, config.head_dim, config.rope_theta)
        y_BTC = attention(x_BTC, layout)
        y_BTC.backward(torch.ones_like(y_BTC))
        return y_BTC.detach()

    return forward_backward


def _their_pass(model: Any, tokens: int) -> Side:
    from transformers.masking_utils import create_sliding_window_causal_mask

    attention = model.layers[0].self_attn
    x_BTC = _hidden(tokens, model.config.hidden_size).requires_grad_()
    positions_BT = torch.arange(tokens)[None]

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
