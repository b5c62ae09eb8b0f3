"""One training step of the small model against transformers' `exaone_moe`, with the same weights, batch and optimiser.

Contract: AdamW on both sides, transformers in fp32, ours in the precision each row names, with float32 weights and
state in all; one document a row, no MTP and no balance loss (transformers has neither). `equal` compares the loss
before the first step. Time is a whole step: forward, backward, clipping, update. Peak memory is that of a step with
weights, optimiser's state, gradients and activations, each side in its own process. The matrix product is the bound:
the multiplications that the model's definition asks for, attention's included, at the rate of one large fp32 product:
torch's, and that of ours, which is another library's on some processors.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from benchmarks.measure import Side, interleaved, peak_memory
from benchmarks.result import Comparison, Found, Spread
from benchmarks.settings import Settings, SizeName
from trainer.architecture import ModelConfig
from trainer.config import Precision
from trainer.export import export_to_transformers
from trainer.losses import compute_losses
from trainer.model.model import MoEModel, build_model
from trainer.model.onednn import multiply
from trainer.precision import set_precision
from trainer.presets import PRESETS
from trainer.throughput import step_flops

VOCABULARY = 8192
PEER = "transformers exaone_moe (SDPA, grouped_mm)"
LEARNING_RATE = 1e-4
CLIP_NORM = 1.0
# Relative to the peer's float32 loss.
SAME_LOSS: dict[Precision, float] = {"float32": 1e-4, "bfloat16": 2e-3, "float8": 1e-2}
GEMM_SIZE = 1024
WARM_UP_TOKENS = 64
Step = Callable[[Tensor], float]  # token ids [rows, tokens] -> loss before the update


@dataclass(frozen=True)
class Shape:
    rows: int
    tokens: int
    rounds: int


SHAPES_1K: dict[SizeName, Shape] = {"full": Shape(4, 1024, 5), "quick": Shape(1, 256, 1)}
SHAPES_8K: dict[SizeName, Shape] = {"full": Shape(1, 8192, 1), "quick": Shape(1, 512, 1)}


def run_1k(settings: Settings) -> Iterator[Found]:
    """Rows of 1,024 tokens, and what compiling the blocks gives there."""
    yield from _run("train-step", SHAPES_1K[settings.size])
    yield from _compiled("train-step", SHAPES_1K[settings.size])


def run_8k(settings: Settings) -> Iterator[Found]:
    """A row of 8,192 tokens."""
    return _run("train-step-8k", SHAPES_8K[settings.size])


def _run(name: str, shape: Shape) -> Iterator[Found]:
    config = bare_config()
    where = f"generated: {shape.rows} x {shape.tokens} random tokens, hidden {config.hidden_size}, "
    where += f"{config.num_layers} layers, {config.num_experts} experts top-{config.experts_per_token}"
    token_ids_BT = random_batch(shape.rows, shape.tokens)
    ours = {precision: partial(our_training(precision), token_ids_BT) for precision in SAME_LOSS}
    theirs = partial(their_training(), token_ids_BT)
    first_theirs = theirs()  # the warm-up as well
    first_ours = {precision: step() for precision, step in ours.items()}
    *our_seconds, their_seconds = interleaved([*ours.values(), theirs], shape.rounds, warm_ups=0)
    for (precision, first), seconds in zip(first_ours.items(), our_seconds, strict=True):
        yield Comparison(
            name,
            f"time of a step, {precision} against float32, AdamW both",
            "tokens/s",
            Spread.rate(token_ids_BT.numel(), seconds),
            Spread.rate(token_ids_BT.numel(), their_seconds),
            PEER,
            where,
            equal=abs(first - first_theirs) <= SAME_LOSS[precision] * abs(first_theirs),
            notes={"loss_ours": first, "loss_peer": first_theirs},
        )
    yield from _against_products(name, ours["float32"], token_ids_BT, shape.rounds, where)
    yield Comparison(
        name,
        "peak memory of a step, fp32, AdamW both",
        "MiB",
        peak_memory(_one_step, our_training, shape),
        peak_memory(_one_step, their_training, shape),
        PEER,
        where,
    )


def _compiled(name: str, shape: Shape) -> Iterator[Found]:
    """Our own step with compiled blocks against the plain one, once compiled."""
    token_ids_BT = random_batch(shape.rows, shape.tokens)
    for precision in ("float32", "bfloat16"):
        compiled, plain = (partial(our_training(precision, kind), token_ids_BT) for kind in ("blocks", "none"))
        first, first_plain = compiled(), plain()
        seconds = interleaved([compiled, plain], shape.rounds, warm_ups=1)
        yield Comparison(
            name,
            f"time of a step, compiled blocks, {precision}, AdamW",
            "tokens/s",
            *(Spread.rate(token_ids_BT.numel(), side) for side in seconds),
            "ours with plain blocks",
            f"generated: {shape.rows} x {shape.tokens} random tokens",
            equal=abs(first - first_plain) <= SAME_LOSS[precision] * abs(first_plain),
            notes={"loss_ours": first, "loss_peer": first_plain},
        )


def _against_products(name: str, ours: Side, token_ids_BT: Tensor, rounds: int, where: str) -> Iterator[Comparison]:
    flops = step_flops(bare_config(), VOCABULARY, np.zeros(token_ids_BT.shape, np.int32))
    left, right = torch.randn(GEMM_SIZE, GEMM_SIZE), torch.randn(GEMM_SIZE, GEMM_SIZE)
    repeats = max(1, int(flops) // (2 * GEMM_SIZE**3))

    def repeated(product: Callable[[Tensor, Tensor], Tensor]) -> None:
        for _ in range(repeats):
            product(left, right)

    products = {"torch.mm": torch.mm, "the trainer's own, bound": multiply}
    step, *peers = interleaved([ours, *(partial(repeated, each) for each in products.values())], rounds, warm_ups=0)
    for which, seconds in zip(products, peers, strict=True):
        yield Comparison(
            name,
            "matrix work of a step, fp32, AdamW",
            "GFLOP/s",
            Spread.rate(flops / 1e9, step),
            Spread.rate(2 * GEMM_SIZE**3 * repeats / 1e9, seconds),
            f"matrix product {GEMM_SIZE}^3 ({which})",
            where,
        )


def bare_config() -> ModelConfig:
    """The small preset without what transformers does not have."""
    return PRESETS["small"].replaced(mtp_layers=0, balance_loss=0.0, expert_bias_rate=0.0)


def our_training(precision: Precision = "float32", compiled: Literal["none", "blocks"] = "none") -> Step:
    """Ours with new weights."""
    model = build_model(bare_config(), VOCABULARY, seed=0).train()
    set_precision(model, precision)
    if compiled == "blocks":
        model.compile_blocks()

    def loss_of(token_ids_BT: Tensor) -> Tensor:
        document_ids_BT = torch.zeros_like(token_ids_BT, dtype=torch.int32)
        counts_BT = torch.ones_like(token_ids_BT, dtype=torch.bool)
        return compute_losses(model, token_ids_BT, document_ids_BT, counts_BT).total

    return _step(model, loss_of)


def their_training() -> Step:
    """transformers with the weights that ours starts from."""
    model = their_model(build_model(bare_config(), VOCABULARY, seed=0)).train()
    return _step(model, lambda token_ids_BT: model(input_ids=token_ids_BT, labels=token_ids_BT, use_cache=False).loss)


def their_model(model: MoEModel) -> torch.nn.Module:
    """The same weights in transformers, with its own defaults."""
    from transformers import ExaoneMoeForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        export_to_transformers(model, model.config, None, Path(folder) / "exported")
        return ExaoneMoeForCausalLM.from_pretrained(Path(folder) / "exported", dtype=torch.float32)


def random_batch(rows: int, tokens: int) -> Tensor:
    """[rows, tokens] int64 random token ids, the same at every call."""
    return torch.randint(0, VOCABULARY, (rows, tokens), generator=torch.Generator().manual_seed(0))


def _step(model: torch.nn.Module, loss_of: Callable[[Tensor], Tensor]) -> Step:
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, fused=True)

    def step(token_ids_BT: Tensor) -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(token_ids_BT)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        return float(loss)

    return step


def _one_step(training: Callable[[], Step], shape: Shape) -> Callable[[], Side]:
    from transformers import ExaoneMoeForCausalLM  # both processes have imported the same

    assert ExaoneMoeForCausalLM

    def prepare() -> Side:
        step = training()
        step(random_batch(1, WARM_UP_TOKENS))  # makes the optimiser's state
        return partial(step, random_batch(shape.rows, shape.tokens))

    return prepare
