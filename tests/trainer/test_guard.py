"""Spikes are skipped and logged; a resumed run skips the same ones; what a step computes is counted by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from hand_plan import MODEL, PHASE, VOCABULARY, interrupt_at, lines, same_end, train
from pipeline.core.plans import Plan
from pipeline.core.runlog import read_lines
from trainer.architecture import count_parameters
from trainer.config import OptimizerConfig, PhaseConfig, RampStage, SpikeGuard
from trainer.data import BatchReader
from trainer.guard import Recent, Seen
from trainer.loop import train_step
from trainer.model.model import build_model
from trainer.optim import build_optimizer
from trainer.throughput import step_flops

GUARD = SpikeGuard(window_steps=8, deviations=3.0)


def recent(*losses: float) -> Recent:
    return Recent(GUARD, [{"loss": loss, "gradient_norm": 1 + 0.01 * n} for n, loss in enumerate(losses)])


def test_what_stands_out_is_a_spike() -> None:
    steps = recent(2.0, 2.1, 1.9, 2.0)  # mean 2, deviation 0.0816
    assert steps.spike(Seen(2.24, 1.0)) == ""
    assert "loss 2.3 is more than 3 deviations of 0.082 above the mean 2 of 4 steps" in steps.spike(Seen(2.3, 1.0))
    assert "gradient norm" in steps.spike(Seen(2.0, 5.0))
    assert steps.spike(Seen(0.1, 0.1)) == ""  # falling is no spike


def test_half_a_window_is_needed_and_no_guard_skips_nothing() -> None:
    assert recent(2.0, 2.1, 1.9).spike(Seen(99.0, 99.0)) == ""
    assert Recent(None, [{"loss": 1.0, "gradient_norm": 1.0}] * 200).spike(Seen(99.0, 99.0)) == ""


def test_a_lasting_change_is_accepted_in_the_end() -> None:
    steps = recent(*(2.0 + 0.01 * n for n in range(8)))
    skipped = 0
    while steps.spike(Seen(9.0, 1.0)):
        steps.add(Seen(9.0, 1.0))
        skipped += 1
    assert 1 <= skipped < GUARD.window_steps


def test_a_skipped_update_leaves_everything_as_it_was(plan: Plan) -> None:
    model = build_model(MODEL, VOCABULARY, seed=0)
    optimizer = build_optimizer(model, OptimizerConfig())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    batch = BatchReader(plan, "cpu").batch(0, 4)
    steps = recent(0.1, 0.11, 0.1, 0.1)
    result = train_step(model, optimizer, batch, learning_rate=1e-2, rows_per_microbatch=4, recent=steps)
    assert "loss" in result.skipped
    assert result.update_norms == {}
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert all(not momentum.any() for momentum in optimizer.state_dict()["muon"].values())
    assert all(int(load.sum()) == 0 for load in model.update_expert_bias(1.0).values())


def test_a_resumed_run_skips_the_same_steps(plan: Plan, tmp_path: Path) -> None:
    # So strict that ordinary steps are skipped, once half a window of them is there.
    changes = {"optimizer_config": OptimizerConfig(spike_guard=SpikeGuard(window_steps=4, deviations=0.2))}
    train(plan, tmp_path / "whole", **changes)
    skipped = [bool(line["skipped"]) for line in lines(tmp_path / "whole")]
    assert True in skipped[2:]
    assert not any(skipped[:2])
    with pytest.raises(KeyboardInterrupt):
        train(plan, tmp_path / "cut", on_step=interrupt_at(5), **changes)
    train(plan, tmp_path / "cut", **changes)
    same_end(tmp_path / "whole", tmp_path / "cut")


def test_a_ramp_reaches_the_same_rows(plan: Plan, tmp_path: Path) -> None:
    phase = PHASE.replaced(batch_ramp=(RampStage(until_tokens=6 * 32, rows_per_batch=2),))
    train(plan, tmp_path, phase=phase)
    log = lines(tmp_path)
    assert [line["rows"] for line in log] == [2, 2, 2, 4, 4, 4, 3]
    assert [line["position"] for line in log] == [0, 2, 4, 6, 10, 14, 18]
    with pytest.raises(ValidationError, match="must rise from stage to stage"):
        PhaseConfig(**{**dict(PHASE), "batch_ramp": (RampStage(until_tokens=64, rows_per_batch=9),)})


def test_a_line_has_norms_by_group(whole: Path) -> None:
    for line in lines(whole):
        groups = ["adamw-decayed", "adamw-undecayed", "muon"]
        assert sorted(line["gradient_norms"]) == sorted(line["update_norms"]) == groups
        assert line["gradient_norm"] == pytest.approx(np.linalg.norm(list(line["gradient_norms"].values())))
        assert 0 <= line["mtp_acceptance"] <= 1
        assert 0 < line["router_entropy"] <= 1 + 1e-6
        assert line["skipped"] == ""
    timed = list(read_lines(whole / "train.jsonl"))
    assert all(line["memory_bytes"] > 1 << 26 for line in timed)
    assert all(0 < line["flops_share"] < 1 for line in timed)


def test_update_norms_are_those_of_the_change(plan: Plan) -> None:
    model = build_model(MODEL, VOCABULARY, seed=0)
    optimizer = build_optimizer(model, OptimizerConfig(weight_decay=0.0))
    reader = BatchReader(plan, "cpu")
    for position in (0, 4):
        before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
        result = train_step(model, optimizer, reader.batch(position, 4), learning_rate=1e-2, rows_per_microbatch=4)
        assert sum(square**2 for square in result.update_norms.values()) == pytest.approx(
            sum(float((weight.detach() - before[name]).norm()) ** 2 for name, weight in model.named_parameters()),
            rel=1e-3,
        )


def test_flops_by_hand() -> None:
    """A row of two documents of 3 and 20 tokens and 9 of padding; window 8, three sliding layers, one global, MTP."""
    documents = np.array([[0] * 3 + [1] * 20 + [-1] * 9])
    counts = count_parameters(MODEL, VOCABULARY)
    near = (1 + 2 + 3) + (sum(range(1, 9)) + 12 * 8)
    all_ = (1 + 2 + 3) + sum(range(1, 21))
    attention = 4 * (2 * 16) * (3 * near + 2 * all_)
    norms = 5 * 32 + 2 * 16  # of the MTP module: no products
    weights = counts.active_per_token + counts.mtp - norms + 32 * VOCABULARY
    assert step_flops(MODEL, VOCABULARY, documents) == 6 * weights * 32 + 3 * attention
