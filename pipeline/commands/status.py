"""`seodang status`: how far each step is, its speed, its jobs on a cluster, and what went wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.commands.jobs import known_jobs
from pipeline.commands.plan import print_json, state
from pipeline.commands.terminal import amount, console, table
from pipeline.core.files import read_json
from pipeline.core.record import IDENTITY, RUN, SHARDS, read_record, read_shard_result, summed
from pipeline.executors.slurm_queue import CANCELLED, COMPLETED, Queued
from pipeline.executors.work import FAILURES, Job, read_failures
from pipeline.graph import Graph, Node
from pipeline.recipe import open_curriculum

FIGURES = ("in", "dropped", "out", "documents_per_second", "megabytes_per_second")
COLUMNS = ("step", "state", "shards", *FIGURES, "jobs")
HEADERS = {"documents_per_second": "documents/s", "megabytes_per_second": "MB/s"}
NOT_IN_THE_FILE = "not in the file"


def show_status(config: Path, overrides: Sequence[str], *, as_json: bool) -> None:
    opened = open_curriculum(config, overrides)
    queue = known_jobs(opened)
    found = [status(opened.graph, node, queue.get(name, ())) for name, node in opened.graph.nodes.items()]
    strangers = [name for name in queue if name not in opened.graph.nodes]
    found += [_row(name, NOT_IN_THE_FILE, queue[name], folder=name) for name in strangers]
    if as_json:
        print_json(found)
        return
    rows = [[*(_shown(row[name]) for name in COLUMNS[:-1]), _jobs_shown(row)] for row in found]
    title = f"{opened.curriculum.name} in {opened.graph.store}"
    console.print(table(title, [HEADERS.get(name, name) for name in COLUMNS], rows))
    for row in found:
        if row["trouble"]:
            console.print(f"[red]✗[/red] {row['step']}: ", end="", markup=True)
            console.print(row["trouble"]["line"], markup=False)
            console.print(f"  log: {row['trouble']['log']}", style="dim", markup=False, soft_wrap=True)
    if strangers:
        console.print(f"jobs of steps that the file no longer has: end them with seodang cancel {config}")
    console.print(_summary(found))


def status(graph: Graph, node: Node, queue: Sequence[Queued]) -> dict[str, Any]:
    """State, shards, figures, jobs and trouble of one step."""
    row = _row(node.step.name, state(node), queue, folder=node.folder.name)
    if node.finished:
        record = read_record(node.folder)
        count = len(list((node.folder / SHARDS).glob("[0-9]*.json")))
        row["shards"] = f"{count} of {count}"
        return row | figures(record.counts, record.dropped, read_json(node.folder / RUN)["seconds"])
    job = graph.job(node)
    live = [one for one in queue if one.live]
    row["trouble"] = trouble_of(job, queue)
    if any(one.state == "RUNNING" for one in live):
        row["state"] = "running"
    elif live:
        row["state"] = "queued"
    elif row["trouble"]:
        row["state"] = "failed"
    elif queue:
        row["state"] = "cancelled"
    ready = all(graph.nodes[name].finished for name in node.step.inputs.values())
    if ready and node.folder.is_dir():
        count = job.shard_count()
        row["shards"] = f"{count - len(job.missing())} of {count}"
        row |= so_far(node.folder)
    return row


def figures(counts: Mapping[str, int], dropped: Mapping[str, int], seconds: float) -> dict[str, Any]:
    """Documents in, dropped and out, and speeds; empty for a step that reads none."""
    if "documents_in" not in counts:
        return {}
    found: dict[str, Any] = {
        "in": counts["documents_in"],
        "dropped": sum(dropped.values()),
        "out": counts.get("documents_out", ""),
    }
    seconds = max(seconds, 1e-3)
    found["documents_per_second"] = round(counts["documents_in"] / seconds, 1)
    if "bytes_in" in counts:
        found["megabytes_per_second"] = round(counts["bytes_in"] / seconds / 1e6, 3)
    return found


def so_far(folder: Path) -> dict[str, Any]:
    """Figures of the shards made; speeds of those made since the step was last started."""
    made = {path: path.stat().st_mtime for path in sorted((folder / SHARDS).glob("[0-9]*.json"))}
    if not made:
        return {}
    results = {path: read_shard_result(folder, int(path.stem)) for path in made}
    counts, dropped, _ = summed(list(results.values()))
    started = (folder / IDENTITY).stat().st_mtime
    recent = [path for path, when in made.items() if when >= started]
    found = figures(counts, dropped, 0.0)
    speeds = {}
    if recent:
        counts, dropped, _ = summed([results[path] for path in recent])
        speeds = figures(counts, dropped, max(made.values()) - started)
    return {name: (speeds if name.endswith("_per_second") else found).get(name, "") for name in FIGURES}


def trouble_of(job: Job, queue: Sequence[Queued]) -> dict[str, Any]:
    """Of a step that is not finished: the line that matters, the log it is in, and how many shards it concerns."""
    failures = read_failures(job.logs)
    for name, failure in failures.items():
        line = f"{failure.where}: {failure.what}" if failure.where else failure.what
        return {"line": line, "log": str(job.logs / FAILURES / f"{name}.json"), "failures": len(failures)}
    live = any(one.live for one in queue)
    ended = Counter(one.state for one in queue if not one.live and one.state != COMPLETED)
    if not (job.logs / "slurm").is_dir() or (live and not ended):
        return {}
    from pipeline.executors.slurm import last_words

    log, line = last_words(job)
    if not line and set(ended) <= {CANCELLED}:
        return {}  # before it had begun: by `seodang cancel`, or by Slurm since a step before it failed
    line = line or "its jobs are gone and left no record"
    line = f"{', '.join(sorted(ended))}: {line}" if ended else line
    return {"line": line, "log": str(log or job.logs), "failures": sum(ended.values())}


def _row(step: str, shown_state: str, queue: Sequence[Queued], *, folder: str) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(COLUMNS, "")
    jobs = dict(sorted(Counter(one.state.lower() for one in queue).items()))
    running = max((one.elapsed for one in queue if one.state == "RUNNING"), key=lambda one: (len(one), one), default="")
    waiting = sorted({one.reason for one in queue if one.state == "PENDING" and one.reason != "None"})
    row |= {"step": step, "state": shown_state, "folder": folder, "jobs": jobs, "trouble": {}}
    return row | {"running_for": running, "waiting_for": waiting}


def _summary(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line: steps and jobs by state."""
    steps = Counter(row["state"] for row in rows if row["state"] != NOT_IN_THE_FILE)
    jobs: Counter[str] = Counter()
    for row in rows:
        jobs.update(row["jobs"])
    told = ", ".join(f"{count} {name}" for name, count in steps.items())
    listed = ", ".join(f"{count} {name}" for name, count in sorted(jobs.items()))
    return f"{steps.total()} steps: {told}" + (f"; jobs: {listed}" if jobs else "")


def _shown(value: object) -> object:
    return amount(value) if isinstance(value, float) else value


def _jobs_shown(row: Mapping[str, Any]) -> str:
    """How many in each state, since when the oldest runs, and what pending ones wait for but other steps."""
    reasons = [reason for reason in row["waiting_for"] if reason != "Dependency"]
    told = {"running": row["running_for"], "pending": ", ".join(reasons)}
    cells = [(f"{count} {name}", told.get(name, "")) for name, count in row["jobs"].items()]
    return ", ".join(f"{cell} ({more})" if more else cell for cell, more in cells)
