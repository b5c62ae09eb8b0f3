"""The training loop: one update after the other over a stretch of plan rows.

Contract: a step is a function of (weights, optimiser state, position); nothing else is carried from one to the next,
so that a run resumed from any checkpoint repeats the same bits. The update counts every labelled token of the whole
batch once, however the batch is cut into micro-batches. A loss or gradient that is not a number stops the run before
the weights are touched.
Cost: one forward and backward pass a micro-batch; memory of one micro-batch's activations.
Shapes: R rows of a batch, T tokens.
"""

from __future__ import annotations

import math
import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from pipeline.core.errors import UserError
from trainer.data import TrainingBatch, own_rows
from trainer.guard import Recent, Seen
from trainer.losses import UNLABELLED, compute_losses, shifted_labels
from trainer.metrics import ExpertLoad, expert_load
from trainer.model.model import MoEModel
from trainer.optim import MuonAdamW
from trainer.parallel.ranks import ALONE, Ranks
from trainer.parallel.sharding import assemble_rows, sum_expert_gradients, sum_loads


class DivergedError(UserError):
    """The loss or the gradient is not a number any more."""


@dataclass(frozen=True)
class BatchLosses:
    """Losses of a whole batch. Means are over all its labelled tokens, whatever the micro-batches were."""

    main: float  # nats a labelled token
    mtp: float  # nats a labelled token
    balance: float  # sum over sparse layers, mean over rows
    z: float  # mean squared log-sum-exp
    mtp_acceptance: float  # share of labelled drafts that the model's own choice agrees with
    router_entropy: float  # mean over rows and layers
    labelled_tokens: int
    token_losses_RT: np.ndarray  # float, nats at the predicting position
    labelled_RT: np.ndarray  # bool


@dataclass(frozen=True)
class StepResult:
    """One update."""

    losses: BatchLosses
    gradient_norm: float  # before clipping
    gradient_norms: dict[str, float]  # by parameter group
    update_norms: dict[str, float]  # by parameter group; empty for a skipped update
    load: ExpertLoad
    skipped: str  # why the update was not made, or empty


def train_step(
    model: MoEModel,
    optimizer: MuonAdamW,
    batch: TrainingBatch,
    *,
    learning_rate: float,
    rows_per_microbatch: int,
    recent: Recent | None = None,
    ranks: Ranks = ALONE,
) -> StepResult:
    """One update of `model`, unless `recent` steps say that it is a spike: then weights, state and biases stay.

    Raises `DivergedError` before the update when the loss or gradient is not finite.
    """
    optimizer.zero_grad()
    optimizer.set_learning_rate(learning_rate)
    losses = forward_backward(model, batch, rows_per_microbatch, ranks)
    sum_expert_gradients(model, ranks)
    norms = optimizer.gradient_norms()
    norm = math.hypot(*norms.values())
    _check_finite(losses, norm, batch, learning_rate)
    skipped = recent.spike(Seen(losses.main, norm)) if recent is not None else ""
    update_norms: dict[str, float] = {}
    if not skipped:
        optimizer.clip_gradients(norm)
        update_norms = optimizer.step()
    sum_loads(model, ranks)
    load = expert_load(model.update_expert_bias(0.0 if skipped else model.config.expert_bias_rate))
    optimizer.zero_grad()
    return StepResult(losses, norm, norms, update_norms, load, skipped)


def forward_backward(
    model: MoEModel, batch: TrainingBatch, rows_per_microbatch: int, ranks: Ranks = ALONE
) -> BatchLosses:
    """Add the batch's gradients to the weights', micro-batch by micro-batch.

    A micro-batch's mean counts by its share of the batch's labelled tokens (of its rows for the balance loss, which
    is a mean over rows): the sum is the whole batch's mean.
    """
    labelled, mtp_labelled = _labelled_tokens(batch, ahead=1), _labelled_tokens(batch, ahead=2)
    main = mtp = balance = z = entropy = 0.0
    agreed = 0
    token_losses, labels = [], []
    own = own_rows(batch, ranks.data_rank, ranks.config.data)
    for part in own.split(rows_per_microbatch):
        losses = compute_losses(model, part.token_ids_RT, part.document_ids_RT, part.loss_mask_RT)
        weighted_main = losses.main * (losses.labelled_tokens / max(labelled, 1))
        weighted_mtp = losses.mtp * (losses.mtp_labelled_tokens / max(mtp_labelled, 1))
        # A mean over rows: rows of padding count nothing in it, and are not among the batch's.
        weighted_balance = losses.balance * (part.rows / batch.rows)
        share = losses.labelled_tokens / max(labelled, 1)
        # main + z_loss * z is one function with one backward pass; z counts by labelled tokens as main does.
        total = (losses.main_and_z * share) + model.config.mtp_loss * weighted_mtp
        (total + model.config.balance_loss * weighted_balance).backward()
        z += losses.z.item() * share
        agreed += losses.mtp_agreed
        entropy += losses.router_entropy * part.rows / batch.rows
        main += weighted_main.item()
        mtp += weighted_mtp.item()
        balance += weighted_balance.item()
        token_losses.append(losses.token_losses_BT)
        labels.append(losses.labelled_BT)
    main, mtp, balance, z, entropy, agreed = ranks.total(main, mtp, balance, z, entropy, agreed)
    token_losses_RT, labelled_RT = (
        assemble_rows(torch.cat(parts), ranks)[: batch.rows].cpu().numpy() for parts in (token_losses, labels)
    )
    acceptance = agreed / max(mtp_labelled, 1)
    entropy /= ranks.config.context  # a mean over rows, of which each process has counted its stretches as whole ones
    return BatchLosses(main, mtp, balance, z, acceptance, entropy, labelled, token_losses_RT, labelled_RT)


@contextmanager
def deterministic() -> Generator[None]:
    """Within it torch uses deterministic kernels only, and raises where there is none."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it torch refuses cuBLAS in this mode
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def _labelled_tokens(batch: TrainingBatch, ahead: int) -> int:
    labels = shifted_labels(batch.token_ids_RT, batch.document_ids_RT, batch.loss_mask_RT, ahead)
    return int((labels != UNLABELLED).sum())


def _check_finite(losses: BatchLosses, gradient_norm: float, batch: TrainingBatch, learning_rate: float) -> None:
    values = {
        "loss": losses.main,
        "MTP loss": losses.mtp,
        "balance loss": losses.balance,
        "gradient norm": gradient_norm,
    }
    wrong = [f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)]
    if wrong:
        raise DivergedError(
            f"{', '.join(wrong)} in rows {batch.position} to {batch.position + batch.rows - 1} of the plan, at "
            f"learning rate {learning_rate:g}; the weights were not updated",
            fix="lower the phase's learning_rate.peak or lengthen its warm-up, then train again",
        )
