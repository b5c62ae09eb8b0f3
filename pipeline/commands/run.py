"""`seodang run`: the data, synthesis and mix steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.commands.jobs import refuse_live_jobs
from pipeline.commands.terminal import console, progress
from pipeline.executors import executor_for
from pipeline.graph import locked
from pipeline.recipe import open_curriculum


def run_steps(config: Path, steps: Sequence[str], executor: str, workers: int, overrides: Sequence[str]) -> None:
    """Run the named steps (patterns) and what they need; with none, every step that is not training."""
    opened = open_curriculum(config, overrides)
    chosen = opened.selected(steps) if steps else opened.data_steps
    chosen = [name for name in chosen if not name.startswith("train.")]
    chooser = executor_for(opened.curriculum.execution, executor, workers, opened.located)
    refuse_live_jobs(opened, chooser)
    with locked(opened.graph.store), progress() as shown:
        try:
            opened.graph.run(chosen, chooser, shown)
        except (KeyboardInterrupt, SystemExit):  # the command line ends on Ctrl-C by `SystemExit`
            if chooser.outlives_us:
                console.print(f"the jobs go on: seodang status {config}; to end them: seodang cancel {config}")
            raise
    console.print(f"outputs: [bold]{opened.graph.store}[/bold]")
