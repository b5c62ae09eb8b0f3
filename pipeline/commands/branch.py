"""`seodang branch` and `seodang train-segment`: training beside the curriculum's own way through its phases."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.commands.terminal import console
from pipeline.commands.train import check_memory
from pipeline.core.errors import InputError, unknown_name
from pipeline.core.plans import Plan, read_plan
from pipeline.core.record import finished, read_record
from pipeline.core.runlog import StepLine
from pipeline.core.steps import StepTask
from pipeline.curriculum import Phase, Surroundings
from pipeline.recipe import Opened, open_curriculum


def branch_phase(config: Path, phase: str, step: int, tokens: int, overrides: Sequence[str]) -> None:
    """Decay the learning rate from the phase's checkpoint after `step`; prints where the branch's checkpoint is."""
    from trainer.checkpoint import checkpoint_place, checkpoints
    from trainer.phase import train_branch

    opened = open_curriculum(config, overrides)
    task = _task(opened, phase)
    checkpoint = checkpoint_place(task.folder, step)
    known = {place.name: place for place in checkpoints(task.folder)}
    if checkpoint.name not in known:
        raise InputError(
            f"phase `{phase}` has no checkpoint after step {step}",
            where=str(task.folder),
            fix=f"use one of {', '.join(known) or 'those it will have once it is trained'}",
        )
    run = Phase(task, Surroundings())
    folder = opened.graph.store / "branches" / f"{phase}-{step}-{tokens}"
    place = train_branch(
        checkpoint=checkpoint,
        optimizer_config=run.config.optimizer,
        phase=run.config.phase,
        plan=_whole_plan(task) or run.plan(task.inputs["mix"].name),
        tokens=tokens,
        folder=folder,
        execution=opened.curriculum.training,
        on_step=_told,
    )
    console.print(f"branch: [bold]{place}[/bold]")


def train_first_segment(config: Path, phase: str, overrides: Sequence[str]) -> None:
    """Train a phase's planned rows in all the processes that torchrun started; `seodang train` goes on from there."""
    opened = open_curriculum(config, overrides)
    task = _task(opened, phase)
    check_memory(opened, phase)
    run = Phase(task, Surroundings(training=opened.curriculum.training))
    place = run.train(task.inputs["mix"].name)
    console.print(f"trained: [bold]{place}[/bold]")


def _whole_plan(task: StepTask) -> Plan | None:
    """Of a finished phase, with the rows that its gate has added."""
    if not finished(task.folder):
        return None
    return read_plan(task.store, task.store / read_record(task.folder).facts["mix_folders"][-1])


def _task(opened: Opened, phase: str) -> StepTask:
    """The phase's training step. Raises `ConfigError` for an unknown phase, `InputError` when its data are not made."""
    names = [each.name for each in opened.curriculum.phases]
    if phase not in names:
        raise unknown_name("phase", phase, names)
    node = opened.graph.node(f"train.{phase}")
    missing = [each.step.name for each in opened.graph.needed([node.step.name])[:-1] if not each.finished]
    if missing:
        raise InputError(
            f"step `{missing[0]}` is not made yet",
            where=str(opened.graph.store),
            fix=f"seodang run {opened.path} mix.{phase}",
        )
    return opened.graph.task(node)


def _told(line: StepLine, done: int, steps: int) -> None:
    if done == steps or done % max(1, steps // 10) == 0:
        console.print(f"  step {done}/{steps}  loss {line.loss:.4f}  rate {line.learning_rate:.2e}")
