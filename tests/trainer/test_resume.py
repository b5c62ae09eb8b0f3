"""Interrupted, killed, extended, handed on: the same bits, and nothing that does not fit."""

from __future__ import annotations

import math
import os
import random
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hand_plan import (
    CONTEXT,
    MODEL,
    PHASE,
    ROWS,
    STEPS,
    TOKENIZER,
    VOCABULARY,
    interrupt_at,
    lines,
    make_segment,
    same_end,
    train,
    write_tokens,
)
from mixes.plan import append_segment
from mixes.spec import PlanConfig
from pipeline.core.errors import InputError
from pipeline.core.plans import Plan, read_plan, sealed
from pipeline.core.record import Record, output_hashes, write_record
from pipeline.core.runlog import StepLine
from pipeline.core.shards import TokenShard
from pipeline.core.steps import StepOutput
from trainer.checkpoint import checkpoints, load, read_info
from trainer.config import LearningRate
from trainer.evals.short_context import pack_held_out, short_context_loss
from trainer.model.model import build_model
from trainer.phase import TrainExecution, load_model
from trainer.schedule import learning_rate_at

SCRIPT = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from pipeline.core.plans import read_plan
from trainer.config import ModelConfig, OptimizerConfig, PhaseConfig
from trainer.phase import TrainExecution, train_segment
store, folder, model, phase = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4]
train_segment(
    model_config=ModelConfig.model_validate_json(model), optimizer_config=OptimizerConfig(),
    phase=PhaseConfig.model_validate_json(phase), plan=read_plan(store, store / "mix.p"), segment="p",
    vocabulary_size=64, tokenizer_fingerprint="t" * 64, parent_checkpoint=None, folder=folder, seed=3,
    execution=TrainExecution(checkpoint_every_steps=2),
)
"""


@pytest.mark.parametrize("stop_after", [1, 2, 3, 5])
def test_stopped_and_resumed_is_the_same(plan: Plan, whole: Path, tmp_path: Path, stop_after: int) -> None:
    def stop(line: StepLine, done: int, steps: int) -> None:
        assert steps == STEPS
        if done == stop_after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(plan, tmp_path, on_step=stop)
    assert len(lines(tmp_path)) == stop_after
    train(plan, tmp_path)
    same_end(tmp_path, whole)


def test_trained_again_does_nothing(plan: Plan, whole: Path) -> None:
    def never(line: StepLine, done: int, steps: int) -> None:
        raise AssertionError("no step is due")

    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    assert train(plan, whole, on_step=never) == checkpoints(whole)[-1]
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*")} == before


def test_checkpointing_changes_nothing(plan: Plan, whole: Path, tmp_path: Path) -> None:
    train(plan, tmp_path, execution=TrainExecution(checkpoint_every_steps=1, keep_checkpoints=1))
    same_end(tmp_path, whole)
    assert len(checkpoints(tmp_path)) == 1


def test_three_checkpoints_when_not_told(plan: Plan, tmp_path: Path) -> None:
    train(plan, tmp_path, execution=TrainExecution(keep_checkpoints=9))
    assert [read_info(place).step for place in checkpoints(tmp_path)] == [2, 4, 6]


@pytest.mark.kill
def test_killed_at_any_moment_and_resumed_is_the_same(plan: Plan, whole: Path, tmp_path: Path) -> None:
    command = [
        sys.executable, "-c", SCRIPT, str(plan.store), str(tmp_path), MODEL.model_dump_json(), PHASE.model_dump_json(exclude={"batch_ramp"}),
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    seconds = random.Random(0)
    for steps in (1, 2, 4, 5):  # killed a moment after this many lines
        process = subprocess.Popen(command, env=environment)
        while process.poll() is None and len(lines(tmp_path)) < steps:
            time.sleep(0.001)
        time.sleep(seconds.uniform(0, 0.03))
        process.kill()
        process.wait()
    subprocess.run(command, env=environment, check=True)
    same_end(tmp_path, whole)
    assert not list(tmp_path.rglob(".partial-*"))


def test_the_next_segment_goes_on_where_this_one_ended(plan: Plan, whole: Path, tmp_path: Path) -> None:
    """A second round in the same folder: steps count on, rows of the second segment only, each its own schedule."""
    for path in whole.rglob("*"):
        target = tmp_path / path.relative_to(whole)
        target.mkdir(parents=True) if path.is_dir() else target.write_bytes(path.read_bytes())
    longer = read_plan(plan.store, plan.store / "mix.p+1") if (plan.store / "mix.p+1").is_dir() else None
    longer = longer or make_segment(plan.store, "p+1", plan, rows=8)
    first_end = checkpoints(tmp_path)[-1]
    second_end = train(longer, tmp_path, segment="p+1")
    log = lines(tmp_path)
    assert log[:STEPS] == lines(whole)
    assert [(line["step"], line["position"]) for line in log[STEPS:]] == [(7, ROWS), (8, ROWS + 4)]
    assert {line["segment"] for line in log[STEPS:]} == {longer.fingerprint}
    assert log[-1]["learning_rate"] == learning_rate_at(1, 2, PHASE.learning_rate)
    assert read_info(second_end).tokens == sum(segment.tokens for segment in longer.segments)
    # The first segment asked for again, as after a restart: its own last checkpoint, and nothing is cut.
    assert train(longer, tmp_path) == first_end
    assert lines(tmp_path) == log


def test_the_next_phase_takes_weights_and_moments(plan: Plan, whole: Path, tmp_path: Path) -> None:
    longer = make_segment(plan.store, "q", plan, rows=4)
    parent = checkpoints(whole)[-1]
    phase = PHASE.replaced(name="q", learning_rate=LearningRate(peak=1e-12))
    place = train(longer, tmp_path, segment="q", phase=phase, parent_checkpoint=parent, seed=99)
    before, after = load(parent), load(place)
    for name, tensor in before.model.items():
        if not name.endswith("expert_bias"):  # those move by their own rate
            assert torch.allclose(after.model[name], tensor, atol=1e-6), name
    step_counts = {float(moments["step"]) for moments in after.optimizer["adamw"].values()}
    assert step_counts == {STEPS + 1.0}
    assert after.info.parent == before.info.identity
    assert (after.info.step, after.info.position) == (1, ROWS + 4)
    assert lines(tmp_path)[0]["step"] == 1


def test_a_lost_log_is_refused(plan: Plan, whole: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(plan, tmp_path, on_step=interrupt_at(3))
    (tmp_path / "train.jsonl").unlink()
    with pytest.raises(InputError, match="the run log ends at step 0, the checkpoint stands at step 2"):
        train(plan, tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokenizer_fingerprint": "u" * 64}, "encoded with tokenizer tttttttt"),
        ({"phase": PHASE.replaced(context_tokens=64, budget_tokens=10_000)}, "rows of 32 tokens"),
        ({"segment": "pp"}, "unknown plan segment `pp`"),
        ({"model_config": MODEL.replaced(num_experts=8)}, r"`model\.num_experts` differs"),
        ({"vocabulary_size": 128}, "`vocabulary_size` differs"),
    ],
)
def test_what_does_not_fit_is_refused(plan: Plan, whole: Path, changes: dict[str, object], message: str) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    with pytest.raises(ValueError, match=message):
        train(plan, whole, **changes)
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*")} == before


def test_another_plans_checkpoint_is_refused(plan: Plan, whole: Path, tmp_path: Path) -> None:
    other = Plan(plan.store, (sealed(replace(plan.segments[0], seed=12, fingerprint=""), ""),))
    with pytest.raises(InputError, match="`plan` differs"):
        train(other, tmp_path, parent_checkpoint=checkpoints(whole)[-1])


def test_a_segment_out_of_turn_is_refused(plan: Plan, whole: Path, tmp_path: Path) -> None:
    later = make_segment(plan.store, "r", plan, rows=4)
    with pytest.raises(InputError, match="starts at row 21, there is no checkpoint"):
        train(later, tmp_path, segment="r")
    with pytest.raises(InputError, match="starts at row 21, the checkpoint stands at row 16"):
        train(later, tmp_path, segment="r", parent_checkpoint=checkpoints(whole)[0])


def test_a_loaded_model_is_the_trained_one(plan: Plan, whole: Path) -> None:
    model, info = load_model(checkpoints(whole)[-1])
    rows = pack_held_out([TokenShard.open(plan.store / "encode.alpha/tokens/00000").document(0)], CONTEXT, 1)
    assert short_context_loss(model, rows) < short_context_loss(build_model(MODEL, VOCABULARY, seed=3), rows)
    assert info.tokenizer == TOKENIZER


def test_a_plan_the_planner_made(tmp_path: Path) -> None:
    """The planner's shares, loader's rows and the audit agree, and its rows train to the last."""
    write_tokens(tmp_path, "alpha", "en", [7, 40, 9, 15, 4, 70, 8, 21, 33, 5] * 4, masked=False)
    write_tokens(tmp_path, "beta", "ko", [10, 6, 13, 5, 90] * 6, masked=True)
    encoded = {}
    for source in ("alpha", "beta"):
        folder = tmp_path / f"encode.{source}"
        files = output_hashes(folder)
        write_record(
            folder,
            Record(
                f"encode.{source}", "stages.encode", 1, "f" * 64, {}, {"tokenizer": TOKENIZER}, {}, {}, {}, {}, files
            ),
            {},
        )
        encoded[f"encode.{source}"] = StepOutput(f"encode.{source}", folder)
    components = {
        "long": {"from": ("alpha",), "weight": 0.5, "max_repeats": 2.0, "whole": True},
        "rest": {"from": ("*",), "weight": 0.5, "max_repeats": 2.0},
    }
    config = PlanConfig.model_validate(
        {
            "mix": {"components": components},
            "phase": "p",
            "context_tokens": CONTEXT,
            "budget_tokens": CONTEXT * 16,
            "rows_per_batch": 4,
            "seed": 2,
        }
    )
    append_segment(tmp_path, encoded, config, None, tmp_path / "mix.p")
    plan = read_plan(tmp_path, tmp_path / "mix.p")
    place = train(plan, tmp_path / "train")
    assert read_info(place).tokens == plan.segments[0].tokens
    assert len(lines(tmp_path / "train")) == math.ceil(plan.rows / 4)
    assert {source for line in lines(tmp_path / "train") for source in line["loss_by_source"]} == {"alpha", "beta"}
