"""The jobs that a store has on a cluster, by step: of steps in the curriculum file, and of those no longer there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pipeline.commands.terminal import console
from pipeline.core.errors import InputError
from pipeline.core.record import LOGS, finished
from pipeline.executors import Executor
from pipeline.executors.slurm_queue import Queued
from pipeline.recipe import Opened


def refuse_live_jobs(opened: Opened, executor: Executor) -> None:
    """Raise `InputError` when Slurm is making steps that this executor would make a second time."""
    if executor.outlives_us:
        return
    live = [name for name, jobs in known_jobs(opened).items() if any(one.live for one in jobs)]
    live = [name for name in live if name in opened.graph.nodes]
    if live:
        what = f"Slurm is at work on {', '.join(live)}"
        raise InputError(what, where=str(opened.graph.store), fix="use --executor slurm, or `seodang cancel` first")


def known_jobs(opened: Opened) -> Mapping[str, list[Queued]]:
    """Like `jobs_by_step`; when Slurm is not here or does not answer, that is said, and no job is known."""
    try:
        return jobs_by_step(opened)
    except (ConnectionError, InputError) as error:
        console.print(f"[yellow]the queue is not known:[/yellow] {error}")
        return {}


def jobs_by_step(opened: Opened) -> Mapping[str, list[Queued]]:
    """Jobs that count, by step name, or by STEP-FINGERPRINT for steps that are not in the file.

    Slurm is asked only when something unfinished in the store was ever submitted to it. Raises like `queued`.
    """
    store = opened.graph.store
    if not any(not finished(store / path.parent.name) for path in (store / LOGS).glob("*/slurm")):
        return {}
    from pipeline.executors.slurm import jobs_in_store, jobs_of

    queue = jobs_in_store(store)
    found: dict[str, list[Queued]] = {}
    for node in opened.graph.nodes.values():
        if own := jobs_of(opened.graph.job(node), queue):
            found[node.step.name] = own
    named = {node.folder.name for node in opened.graph.nodes.values()}
    for one in queue:
        folder = Path(one.name).stem  # of STEP-FINGERPRINT.make@STORE
        if one.live and folder not in named:
            found.setdefault(folder, []).append(one)
    return found
