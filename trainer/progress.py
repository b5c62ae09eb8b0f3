"""The training progress bar on stderr: step, loss, tokens a second, time left.

Contract: shows and never decides; `None` in its place changes no result.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pipeline.core.runlog import StepLine

OnStep = Callable[[StepLine, int, int], None]  # (line, updates done in the segment, updates of the segment)


@contextmanager
def training_bar(title: str) -> Generator[OnStep]:
    """Give a callback for `train_segment`; the bar closes with the context."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}  {task.fields[rate]} tokens/s"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task(title, total=None, loss="–", rate="–")

        def on_step(line: StepLine, done: int, steps: int) -> None:
            rate = f"{line.tokens_per_second:,.0f}"
            progress.update(bar, total=steps, completed=done, loss=f"{line.loss:.3f}", rate=rate)

        yield on_step
