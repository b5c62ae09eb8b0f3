"""A decay branched off a stable checkpoint; activations made again; both against what they must equal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hand_plan import CONTEXT, PHASE, interrupt_at, lines, same_end, train
from pipeline.core.errors import InputError, UserError
from pipeline.core.plans import Plan
from trainer.checkpoint import checkpoint_place, checkpoints, read_info
from trainer.config import LearningRate, OptimizerConfig, TrainExecution
from trainer.losses import compute_losses
from trainer.model.model import MoEModel
from trainer.phase import train_branch

STABLE = PHASE.replaced(learning_rate=LearningRate(peak=1e-2, warmup_steps=1, floor_fraction=0.1))
EXECUTION = TrainExecution(checkpoint_every_steps=1, keep_checkpoints=9)


@pytest.fixture
def trunk(plan: Plan, tmp_path: Path) -> Path:
    train(plan, tmp_path / "trunk", phase=STABLE, execution=EXECUTION)
    return tmp_path / "trunk"


def branched(plan: Plan, trunk: Path, folder: Path, step: int = 2, rows: int = 8, **changes: object) -> Path:
    given = {
        "checkpoint": checkpoint_place(trunk, step),
        "optimizer_config": OptimizerConfig(),
        "phase": STABLE,
        "plan": plan,
        "tokens": rows * CONTEXT,
        "folder": folder,
        "execution": EXECUTION,
    }
    return train_branch(**{**given, **changes})


def test_a_branch_decays_over_the_rows_that_follow(plan: Plan, trunk: Path, tmp_path: Path) -> None:
    before = {place.name: (place / "checkpoint.json").read_bytes() for place in checkpoints(trunk)}
    place = branched(plan, trunk, tmp_path / "branch")
    log, own = lines(tmp_path / "branch"), lines(trunk)
    assert [line["position"] for line in log] == [8, 12]
    assert [line["learning_rate"] for line in log] == pytest.approx([0.55e-2, 0.1e-2])
    assert log[0]["loss"] == own[2]["loss"]  # the same weights and rows; the rate differs from here on
    assert log[1]["loss"] != own[3]["loss"]
    info = read_info(place)
    assert (info.position, info.step) == (16, 2)
    assert info.parent == read_info(checkpoint_place(trunk, 2)).identity
    assert {place.name: (place / "checkpoint.json").read_bytes() for place in checkpoints(trunk)} == before


def test_a_checkpoint_of_other_rows_is_no_place_to_branch(plan: Plan, trunk: Path, tmp_path: Path) -> None:
    other = replace(plan, segments=(replace(plan.segments[0], fingerprint="other"),))
    with pytest.raises(InputError, match="not in this plan"):
        branched(other, trunk, tmp_path / "branch")
    assert not (tmp_path / "branch").exists()


def test_a_killed_branch_goes_on(plan: Plan, trunk: Path, tmp_path: Path) -> None:
    branched(plan, trunk, tmp_path / "whole", rows=12)
    with pytest.raises(KeyboardInterrupt):
        branched(plan, trunk, tmp_path / "cut", rows=12, on_step=interrupt_at(2))
    branched(plan, trunk, tmp_path / "cut", rows=12)
    same_end(tmp_path / "whole", tmp_path / "cut")
    assert branched(plan, trunk, tmp_path / "cut", rows=12) == checkpoints(tmp_path / "cut")[-1]


def test_a_branch_needs_rows_and_a_stable_rate(plan: Plan, trunk: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="13 follow the checkpoint"):
        branched(plan, trunk, tmp_path / "branch", rows=14)
    with pytest.raises(UserError, match="0 follow the checkpoint"):
        branched(plan, trunk, tmp_path / "branch", step=6)
    falling = STABLE.replaced(learning_rate=LearningRate(peak=1e-2, decay_fraction=1.0))
    with pytest.raises(UserError, match="not the stable 0.01"):
        branched(plan, trunk, tmp_path / "branch", phase=falling)


@pytest.mark.parametrize("recompute", ["sparse", "blocks"])
def test_made_again_is_the_same_and_counts_once(model: MoEModel, recompute: str) -> None:
    ids = torch.randint(0, model.vocabulary_size, (2, 24), generator=torch.Generator().manual_seed(0))
    documents = torch.zeros_like(ids)
    found = []
    for kind in ("none", recompute):
        model.recompute = kind  # type: ignore[assignment]
        model.train().zero_grad()
        out = compute_losses(model, ids, documents, documents == 0)
        out.total.backward()
        loads = model.update_expert_bias(0.0)
        found.append((out.total, [weight.grad.clone() for weight in model.parameters()], loads))
    (total, gradients, loads), (again, gradients_again, loads_again) = found
    assert torch.equal(total, again)
    assert all(torch.equal(one, other) for one, other in zip(gradients, gradients_again, strict=True))
    assert all(torch.equal(loads[layer], loads_again[layer]) for layer in loads)
