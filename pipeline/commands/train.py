"""`seodang train`: whatever is missing of the data, then the phases and their gates."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rich.progress import TaskID

from pipeline.commands.jobs import refuse_live_jobs
from pipeline.commands.plan import check_weights, launches
from pipeline.commands.terminal import TerminalProgress, amount, console, progress, table
from pipeline.core.errors import UserError
from pipeline.core.record import Record, read_record
from pipeline.core.runlog import StepLine, read_lines
from pipeline.curriculum import Surroundings, surrounded
from pipeline.executors import Executor, LocalExecutor, executor_for
from pipeline.graph import locked
from pipeline.recipe import Opened, open_curriculum
from trainer.config import ParallelConfig

if TYPE_CHECKING:
    from trainer.evals.gate import GateVerdict


TOLD_SECONDS = 15  # between lines where there is no terminal to draw a bar on


def train_curriculum(config: Path, executor: str, workers: int, overrides: Sequence[str]) -> None:
    """Run everything that is missing, phase by phase."""
    opened = open_curriculum(config, overrides)
    chooser = executor_for(opened.curriculum.execution, executor, workers, opened.located)
    refuse_live_jobs(opened, chooser)
    check_start(opened)
    check_memory(opened)
    with locked(opened.graph.store), progress() as shown:
        view = TrainingView(shown)
        rows = opened.curriculum.execution.rows_per_microbatch
        around = Surroundings(shown, view.on_step, view.on_gate, rows, opened.curriculum.training)
        first = opened.graph.node(opened.train_steps[0])
        opened.graph.run(list(first.step.inputs.values()), chooser, shown)
        for phase in opened.curriculum.phases:
            record = train_phase(opened, phase.name, chooser, shown, around)
            if record.facts["mix"] != f"mix.{phase.name}":
                # The gate has lengthened the plan: the next phase is planned from its new end.
                opened = open_curriculum(config, overrides)
    print_summary(opened)


def check_start(opened: Opened) -> None:
    """Before anything is made: raise `UserError` for what the first training step would refuse anyway."""
    from trainer.devices import check_device
    from trainer.monitors import check_monitors
    from trainer.phase import check_compiles

    left = [phase for phase in opened.curriculum.phases if not opened.graph.node(f"train.{phase.name}").finished]
    if not left:
        return
    training = opened.curriculum.training
    check_one_process(opened.path, left[0].name, training.parallel)
    check_device(training.device)
    check_monitors(training.monitors)
    check_weights(opened)
    for phase in left:
        check_compiles(phase, training)


def check_one_process(config: Path, phase: str, parallel: ParallelConfig) -> None:
    """`seodang train` makes data and gates in one process; a phase's rows can be trained in several before it."""
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if parallel.processes == 1 and started == 1:
        return
    wanted = f"training.parallel wants {parallel.processes} (data {parallel.data} x context {parallel.context})"
    found = f"torchrun started {started} of them" if started > 1 else wanted
    raise UserError(
        f"`seodang train` runs in one process, {found}; nothing was made",
        where="training.parallel",
        fix=f"make the data with `seodang run {config} mix.{phase}` and train with `torchrun --nproc-per-node "
        f"{max(parallel.processes, 2)} -m pipeline.cli train-segment {config} {phase}`; then, or for one process, "
        "`seodang train` without torchrun and with --set training.parallel.data=1 --set training.parallel.expert=1 "
        "--set training.parallel.context=1",
    )


def check_memory(opened: Opened, phase: str = "") -> None:
    """Before anything is made: warn of phases too large for this device, refuse those beyond what was told."""
    from trainer.launch import check_launch

    for launch in (one for one in launches(opened) if phase in ("", one.estimate.phase)):
        if warning := check_launch(launch):
            console.print(f"[yellow]warning:[/yellow] {warning}")


def train_phase(opened: Opened, phase: str, chooser: Executor, shown: TerminalProgress, around: Surroundings) -> Record:
    """Make the phase's mix and train it."""
    name = f"train.{phase}"
    node = opened.graph.node(name)
    with surrounded(around):
        if not node.finished:
            for needed in opened.graph.needed([name])[:-1]:
                if not needed.finished:
                    opened.graph.run_node(needed, chooser, shown)
        return opened.graph.run_node(node, LocalExecutor(1), shown)


@dataclass
class TrainingView:
    """One bar a segment with loss and speed; one line a gate."""

    shown: TerminalProgress
    bars: dict[str, TaskID] = field(default_factory=dict)
    told: float = field(default_factory=time.monotonic)

    def on_step(self, segment: str, line: StepLine, done: int, steps: int) -> None:
        bars = self.shown.bars
        if segment not in self.bars:
            self.bars[segment] = bars.add_task(segment, total=steps)
        text = f"{segment}  loss {line.loss:.3f}  {amount(line.tokens_per_second)} tokens/s"
        bars.update(self.bars[segment], completed=done, description=text)
        if not console.is_terminal and time.monotonic() - self.told > TOLD_SECONDS:
            self.told = time.monotonic()
            console.print(f"  {text}  {done}/{steps}")
        if done == steps:
            bars.remove_task(self.bars.pop(segment))
            bars.console.print(f"  {segment}: step {line.step}, loss {line.loss:.3f}")

    def on_gate(self, verdict: GateVerdict) -> None:
        light = "[green]green[/green]" if verdict.green else "[red]red[/red]"
        needles = f"needles {verdict.niah_mean:.1%}"
        short = f"short-context loss {verdict.short_context_loss:.3f} (before {verdict.short_context_baseline:.3f})"
        self.shown.bars.console.print(f"  gate {verdict.phase} round {verdict.round}: {light}, {needles}, {short}")


def print_summary(opened: Opened) -> None:
    """The phases as trained, as a table."""
    rows = []
    for phase in opened.curriculum.phases:
        folder = opened.graph.node(f"train.{phase.name}").folder
        record: Record = read_record(folder)
        lines = list(read_lines(folder / "train.jsonl"))
        green = record.facts["green"]
        light = "–" if not green else "green" if green[-1] else f"red after {len(green)} rounds"
        tokens = sum(line["tokens"] for line in lines)
        last = f"{lines[-1]['loss']:.3f}"
        rows.append((phase.name, phase.context_tokens, record.counts["steps"], amount(tokens), last, light))
    console.print(table("Phases", ("phase", "context", "steps", "tokens", "last loss", "gate"), rows))
    console.print(f"checkpoints and logs: [bold]{opened.graph.store}[/bold]")
