"""`seodang cancel`: end the jobs that steps have on a cluster; what they have made is kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.commands.jobs import jobs_by_step
from pipeline.commands.terminal import console
from pipeline.core.errors import InputError
from pipeline.executors.slurm_queue import cancel
from pipeline.recipe import open_curriculum


def cancel_jobs(config: Path, steps: Sequence[str], overrides: Sequence[str]) -> None:
    """Cancel the live jobs of the named steps (patterns); with none, every one of the store."""
    opened = open_curriculum(config, overrides)
    named = opened.selected(steps)
    try:
        queue = jobs_by_step(opened)
        chosen = named if steps else list(queue)
        live = {name: sorted({one.array for one in queue.get(name, ()) if one.live}, key=int) for name in chosen}
        cancel(sorted({array for arrays in live.values() for array in arrays}, key=int))
    except ConnectionError as error:
        raise InputError(f"Slurm does not answer: {error}", fix="cancel again when it does") from error
    for name, arrays in live.items():
        if arrays:
            console.print(f"cancelled {', '.join(arrays)} of {name}")
    if any(live.values()):
        console.print("finished shards are kept: the same `seodang run` makes the rest")
    else:
        console.print("no jobs to cancel")
