"""The next-token loss at a vocabulary of 153,600: chunked logits against all of them at once.

Contract: forward and backward of head and loss from given hidden states, fp32; `equal` compares loss and both
gradients. Memory is what the loss adds to a process that holds hidden states and head already; both sides end with
the same two gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.measure import Side, interleaved, peak_memory
from benchmarks.result import Comparison, Found, Spread
from benchmarks.settings import Settings, SizeName
from trainer.losses import head_cross_entropy

NAME = "loss-memory"
VOCABULARY = 153_600  # the published model's
PEER = "full logits, torch cross_entropy"
CLOSE = 1e-4  # relative


@dataclass(frozen=True)
class Shape:
    tokens: int
    width: int
    rounds: int


SHAPES: dict[SizeName, Shape] = {"full": Shape(2048, 256, 2), "quick": Shape(512, 32, 1)}


def run(settings: Settings) -> Iterator[Found]:
    """Time and peak memory."""
    shape = SHAPES[settings.size]
    where = f"generated: {shape.tokens} random hidden states of width {shape.width}"
    equal = _is_equal(shape)
    seconds = interleaved([_pass("ours", shape), _pass("theirs", shape)], shape.rounds)
    ours, theirs = (Spread.rate(shape.tokens, found) for found in seconds)
    yield Comparison(NAME, "time, forward and backward, fp32", "tokens/s", ours, theirs, PEER, where, equal=equal)
    ours, theirs = (peak_memory(_prepared_pass, side, shape) for side in ("ours", "theirs"))
    yield Comparison(NAME, "peak memory, fp32", "MiB", ours, theirs, PEER, where, equal=equal)


def _inputs(shape: Shape) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden_BTC = torch.randn(1, shape.tokens, shape.width, generator=generator)
    head_VC = torch.randn(VOCABULARY, shape.width, generator=generator) / shape.width**0.5
    labels_BT = torch.randint(0, VOCABULARY, (1, shape.tokens), generator=generator)
    return hidden_BTC.requires_grad_(), head_VC.requires_grad_(), labels_BT


def _pass(side: str, shape: Shape) -> Side:
    hidden_BTC, head_VC, labels_BT = _inputs(shape)

    def forward_backward() -> tuple[Tensor, Tensor | None, Tensor | None]:
        hidden_BTC.grad = head_VC.grad = None
        if side == "ours":
            loss = head_cross_entropy(hidden_BTC, head_VC, labels_BT).mean
        else:
            loss = F.cross_entropy(F.linear(hidden_BTC, head_VC).flatten(0, 1), labels_BT.flatten())
        loss.backward()
        return loss.detach(), hidden_BTC.grad, head_VC.grad

    return forward_backward


def _prepared_pass(side: str, shape: Shape) -> Callable[[], Side]:
    forward_backward = _pass(side, shape)  # hidden states and head do not count
    return lambda: forward_backward


def _is_equal(shape: Shape) -> bool:
    def close(ours: Tensor, theirs: Tensor) -> bool:
        return bool((ours - theirs).norm() <= CLOSE * theirs.norm())

    return all(close(a, b) for a, b in zip(_pass("ours", shape)(), _pass("theirs", shape)(), strict=True))
