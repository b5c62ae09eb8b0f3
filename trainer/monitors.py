"""Optional readers of the step lines: TensorBoard and Weights & Biases, beside the run log.

Contract: they are told the very lines of `train.jsonl`, by the first process, and nothing is read back from them. A run
that goes on from a checkpoint tells its steps again without showing any twice: TensorBoard's events after the
checkpoint are purged, W&B keeps the first of a step (the same bits on a processor). Their files lie in the phase's
`logs/`, which is no output. Packages are loaded when asked for. Cost: some hundred numbers a step.
"""

from __future__ import annotations

import re
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from pipeline.core.errors import UserError
from pipeline.core.record import LOGS
from pipeline.core.runlog import StepLine
from trainer.config import MonitorName


class Monitor(Protocol):
    """Something that shows numbers over steps."""

    def write(self, line: StepLine) -> None: ...

    def close(self) -> None: ...


def open_monitors(names: tuple[MonitorName, ...], folder: Path, steps_done: int) -> list[Monitor]:
    """Those asked for, of a phase that goes on after `steps_done`. Raises `UserError` without a package."""
    return [_MONITORS[name](folder, steps_done) for name in dict.fromkeys(names)]


def check_monitors(names: tuple[MonitorName, ...]) -> None:
    """Raises `UserError` for one whose package is not installed; starts nothing."""
    for name in names:
        _package(name)


def numbers_of(line: StepLine) -> dict[str, float]:
    """What a line says in numbers, groups under `name/group`."""
    numbers: dict[str, float] = {}
    for name, value in asdict(line).items():
        if isinstance(value, dict):
            numbers.update({f"{name}/{group}": float(each) for group, each in value.items()})
        elif isinstance(value, int | float):
            numbers[name] = float(value)
    return numbers


class TensorBoard:
    """Event files in `logs/tensorboard`."""

    def __init__(self, folder: Path, steps_done: int) -> None:
        _package("tensorboard")
        module: Any = import_module("torch.utils.tensorboard")
        self._writer = module.SummaryWriter(str(folder / LOGS / "tensorboard"), purge_step=steps_done + 1)

    def write(self, line: StepLine) -> None:
        for name, value in numbers_of(line).items():
            self._writer.add_scalar(name, value, line.step)

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    """A run named after the phase's folder; project, entity and mode as W&B's own environment variables say."""

    def __init__(self, folder: Path, steps_done: int) -> None:
        wandb = _package("wandb")
        place = folder / LOGS
        place.mkdir(parents=True, exist_ok=True)
        name = re.sub(r"[^A-Za-z0-9_.-]", "-", f"{folder.parent.name}-{folder.name}")
        self._run = wandb.init(id=name, name=folder.name, resume="allow", dir=str(place))
        self._seen = max(steps_done, int(self._run.step) - 1)

    def write(self, line: StepLine) -> None:
        if line.step > self._seen:
            self._run.log(numbers_of(line), step=line.step)

    def close(self) -> None:
        self._run.finish()


_MONITORS: dict[MonitorName, type[TensorBoard] | type[WeightsAndBiases]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
}


def _package(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise UserError(
            f"package `{name}` is not installed",
            where="training.monitors",
            fix=f"pip install -e '.[{name}]', or leave `{name}` out of training.monitors",
        ) from error
