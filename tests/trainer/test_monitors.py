"""TensorBoard's own reader sees each step once, with the run log's numbers; a package that is not there is named."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from hand_plan import STEPS, interrupt_at, lines, train
from pipeline.core.errors import UserError
from pipeline.core.plans import Plan
from pipeline.core.record import output_hashes
from pipeline.core.runlog import StepLine
from trainer.checkpoint import checkpoints
from trainer.config import TrainExecution
from trainer.monitors import WeightsAndBiases, numbers_of

LINE = StepLine(
    phase="p", step=3, position=8, rows=4, tokens=10, labelled_tokens=9, loss=1.5, mtp_loss=2.0, balance_loss=1.0,
    learning_rate=0.1, gradient_norm=0.5, segment="f", loss_by_source={"web-ko": 1.25}, skipped="",
)  # fmt: skip


def told(folder: Path) -> dict[str, list[tuple[int, float]]]:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "logs" / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    return {name: [(event.step, event.value) for event in events.Scalars(name)] for name in events.Tags()["scalars"]}


def test_tensorboard_shows_the_run_log_and_a_resumed_run_once(plan: Plan, tmp_path: Path) -> None:
    execution = TrainExecution(checkpoint_every_steps=2, monitors=("tensorboard",))
    with pytest.raises(KeyboardInterrupt):
        train(plan, tmp_path, execution=execution, on_step=interrupt_at(3))
    train(plan, tmp_path, execution=execution)
    found = told(tmp_path)
    assert [step for step, _ in found["loss"]] == list(range(1, STEPS + 1))
    for line in lines(tmp_path):
        for name in ("loss", "mtp_loss", "gradient_norm", "dead_experts"):
            assert dict(found[name])[line["step"]] == pytest.approx(line[name], rel=1e-6)
        for source, loss in line["loss_by_source"].items():
            assert dict(found[f"loss_by_source/{source}"])[line["step"]] == pytest.approx(loss, rel=1e-6)
    assert not any("events" in name for name in output_hashes(tmp_path)), "event files are no output"


def test_a_line_in_numbers() -> None:
    numbers = numbers_of(LINE)
    assert numbers["loss"] == 1.5
    assert numbers["loss_by_source/web-ko"] == 1.25
    assert not {"phase", "segment", "skipped"} & numbers.keys()


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_missing_package_is_named_before_the_first_step(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=rf"package `{name}` is not installed\nhint: pip install -e '\.\[{name}\]'"):
        train(plan, tmp_path, execution=TrainExecution(monitors=(name,)))
    assert lines(tmp_path) == []
    assert checkpoints(tmp_path) == []


def test_wandb_is_told_each_step_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own client is replaced here: it would start a service."""
    logged: list[tuple[int, dict[str, float]]] = []
    asked: dict[str, object] = {}

    def init(**given: object) -> SimpleNamespace:
        asked.update(given)
        log = lambda values, step: logged.append((step, values))  # noqa: E731
        return SimpleNamespace(step=3, log=log, finish=lambda: None)  # a run that has steps 1 and 2

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    monitor = WeightsAndBiases(tmp_path / "store" / "train.p-1a2b", steps_done=1)
    for step in (2, 3):
        monitor.write(StepLine(**{**vars(LINE), "step": step}))
    monitor.close()
    assert [(step, values["loss"]) for step, values in logged] == [(3, 1.5)]
    assert (asked["id"], asked["resume"]) == ("store-train.p-1a2b", "allow")
