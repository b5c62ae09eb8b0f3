"""`seodang status` and `cancel`: how far each step is, its jobs on a cluster, its speed, and what went wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.commands.plan import print_json, state
from pipeline.commands.terminal import amount, console, table
from pipeline.core.errors import InputError
from pipeline.core.files import read_json
from pipeline.core.record import IDENTITY, RUN, SHARDS, read_record, read_shard_result, shard_done
from pipeline.executors import Executor
from pipeline.executors.slurm_queue import Queued, cancel
from pipeline.executors.work import Job, read_failures
from pipeline.graph import Graph, Node
from pipeline.recipe import Opened, open_curriculum

COLUMNS = ("step", "state", "shards", "in", "dropped", "out", "documents_per_second", "jobs")


def show_status(config: Path, overrides: Sequence[str], *, as_json: bool) -> None:
    opened = open_curriculum(config, overrides)
    queue = jobs_by_step(opened)
    found = [status(opened.graph, node, queue.get(name, ())) for name, node in opened.graph.nodes.items()]
    if as_json:
        print_json(found)
        return
    rows = [[_shown(row[name]) for name in COLUMNS] for row in found]
    columns = [name.replace("documents_per_second", "documents/s") for name in COLUMNS]
    console.print(table(f"{opened.curriculum.name} in {opened.graph.store}", columns, rows))
    for row in found:
        if row["trouble"]:
            console.print(f"[red]✗[/red] {row['step']}: {row['trouble']['line']}", markup=True)
            console.print(f"  [dim]log: {row['trouble']['log']}[/dim]")


def cancel_jobs(config: Path, steps: Sequence[str], overrides: Sequence[str]) -> None:
    """Cancel the jobs of the named steps (patterns), or of all."""
    opened = open_curriculum(config, overrides)
    chosen = set(opened.selected(steps) if steps else opened.graph.nodes)
    queue = {name: jobs for name, jobs in jobs_by_step(opened).items() if name in chosen}
    live = {name: [one for one in jobs if one.live] for name, jobs in queue.items()}
    cancel(sorted({one.array for jobs in live.values() for one in jobs}))
    for name, jobs in live.items():
        if jobs:
            console.print(f"cancelled {', '.join(sorted({one.array for one in jobs}))} of {name}")
    if not any(live.values()):
        console.print("no jobs to cancel")
    else:
        console.print("finished shards are kept: the same `seodang run` makes the rest")


def refuse_live_jobs(opened: Opened, executor: Executor) -> None:
    """Raise `InputError` when Slurm is making steps that this executor would make a second time."""
    if executor.outlives_us:
        return
    live = [name for name, jobs in jobs_by_step(opened).items() if any(one.live for one in jobs)]
    if live:
        what = f"Slurm is at work on {', '.join(live)}"
        raise InputError(what, where=str(opened.graph.store), fix="use --executor slurm, or `seodang cancel` first")


def jobs_by_step(opened: Opened) -> dict[str, list[Queued]]:
    """Jobs of unfinished steps that were ever submitted to Slurm; asks Slurm only when there is one."""
    jobs = [opened.graph.job(node) for node in opened.graph.nodes.values() if not node.finished]
    jobs = [job for job in jobs if (job.logs / "slurm").is_dir()]
    if not jobs:
        return {}
    from pipeline.executors.slurm import jobs_in_queue, step_of

    names = step_of(jobs)
    found: dict[str, list[Queued]] = {}
    try:
        for one in jobs_in_queue(jobs):
            found.setdefault(names[one.name], []).append(one)
    except (ConnectionError, InputError) as error:
        console.print(f"[yellow]the queue is not known:[/yellow] {error}")
    return found


def status(graph: Graph, node: Node, queue: Sequence[Queued]) -> dict[str, Any]:
    """State, shards, counts, speed, jobs and trouble of one step."""
    job = graph.job(node)
    live = [one for one in queue if one.live]
    row: dict[str, Any] = dict.fromkeys(COLUMNS, "")
    row |= {"step": node.step.name, "state": state(node), "folder": node.folder.name}
    row |= {"jobs": dict(Counter(one.state.lower() for one in queue)), "trouble": {}}
    if node.finished:
        record = read_record(node.folder)
        if "documents_in" in record.counts:
            documents = record.counts["documents_in"]
            seconds = read_json(node.folder / RUN)["seconds"]
            row |= {"in": documents, "dropped": sum(record.dropped.values())}
            row |= {"out": record.counts.get("documents_out", ""), "documents_per_second": _rate(documents, seconds)}
        return row
    if any(one.state == "RUNNING" for one in live):
        row["state"] = "running"
    elif live:
        row["state"] = "queued"
    elif trouble := trouble_of(job, queue):
        row |= {"state": "failed", "trouble": trouble}
    ready = all(graph.nodes[name].finished for name in node.step.inputs.values())
    if ready and node.folder.is_dir():
        count = job.shard_count()
        row["shards"] = f"{sum(shard_done(node.folder, shard) for shard in range(count))} of {count}"
        row["documents_per_second"] = speed(node.folder)
    return row


def trouble_of(job: Job, queue: Sequence[Queued]) -> dict[str, str]:
    """The line that matters and the log that it is in; empty when nothing went wrong."""
    for failure in read_failures(job.logs).values():
        return {"line": f"{failure.where}: {failure.what}" if failure.where else failure.what, "log": str(job.logs)}
    if not (job.logs / "slurm").is_dir():
        return {}
    from pipeline.executors.slurm import last_words

    log, line = last_words(job)
    ended = sorted({one.state for one in queue if one.state != "COMPLETED"})
    line = line or "its jobs are gone and left no record"
    return {"line": f"{', '.join(ended)}: {line}" if ended else line, "log": str(log or job.logs)}


def speed(folder: Path) -> float | str:
    """Documents read per second by the shards made since the step was last started."""
    identity = folder / IDENTITY
    if not identity.is_file():
        return ""
    started = identity.stat().st_mtime
    made = {path: path.stat().st_mtime for path in (folder / SHARDS).glob("[0-9]*.json")}
    recent = {path: when for path, when in made.items() if when >= started}
    documents = sum(read_shard_result(folder, int(path.stem)).counts.get("documents_in", 0) for path in recent)
    return _rate(documents, max(recent.values()) - started) if recent and documents else ""


def _rate(documents: int, seconds: float) -> float:
    return round(documents / max(seconds, 1e-3), 1)


def _shown(value: object) -> object:
    if isinstance(value, Mapping):
        return ", ".join(f"{count} {name}" for name, count in sorted(value.items()))
    return amount(value) if isinstance(value, float) else value
