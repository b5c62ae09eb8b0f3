"""`seodang synth`: make synthetic sets and show what their filters let through, or what asking will cost.

Contract: runs what the named sets need and the sets themselves; shows for each filter how many samples came to it, how
many it dropped and the first of them. With `--estimate` nothing is asked of an endpoint: only the documents are made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl

from pipeline.commands.jobs import refuse_live_jobs
from pipeline.commands.peek import panel
from pipeline.commands.plan import print_json
from pipeline.commands.terminal import amount, console, progress, table
from pipeline.core.documents import document_files
from pipeline.core.errors import ConfigError, unknown_name
from pipeline.core.record import read_record
from pipeline.executors import executor_for
from pipeline.executors.work import load_work
from pipeline.graph import Node, locked
from pipeline.recipe import Opened, open_curriculum
from synth.acceptance import FilterShare, acceptance
from synth.config import ReplayConfig, asks_endpoint, bound_endpoint
from synth.endpoint_set import RESPONSES, EndpointWork
from synth.estimate import Estimate, estimate
from synth.sourced import JudgeConfig
from synth.store import ResponseStore
from synth.subagents.config import SearchConfig
from synth.subagents.work import MEASURES
from synth.tools.work import ToolsWork


def make_sets(
    config: Path, name: str, executor: str, workers: int, examples: int, overrides: Sequence[str], *, as_json: bool
) -> None:
    """Make one set, or all, and print the acceptance of each."""
    opened = open_curriculum(config, overrides)
    nodes = _nodes(opened, name)
    later = {node.step.name: _later(opened, node.step.name) for node in nodes}
    _run(opened, [one.step.name for node in nodes for one in (node, *later[node.step.name])], executor, workers)
    found = {node.step.name: _shown(node, later[node.step.name], examples) for node in nodes}
    if as_json:
        print_json(found)
        return
    for step, shown in found.items():
        _print(step, shown)


def estimate_sets(config: Path, name: str, overrides: Sequence[str], *, as_json: bool) -> None:
    """Print what asking for one set, or all, would cost."""
    opened = open_curriculum(config, overrides)
    nodes = [node for node in _nodes(opened, name) if asks_endpoint(node.step.config)]
    nodes = [node for node in nodes if not isinstance(node.step.config, SearchConfig)]
    where = name or "synth"
    named = [node.step.config for node in _nodes(opened, name)] if name else []
    if any(isinstance(one, SearchConfig) and one.endpoint for one in named):
        what = "how much a search set asks depends on what it is answered: it cannot be told before"
        raise ConfigError(what, where=where, fix="run it with few `questions`, or give the endpoint a `budget`")
    if not nodes:
        raise ConfigError("no such set asks an endpoint", where=where, fix="name one of the kinds that do: thinking, …")
    _run(opened, [needed for node in nodes for needed in node.step.inputs.values()], "", 0)
    found = {node.step.name: _estimated(opened, node) for node in nodes}
    on_top = {node.step.name: _not_counted(node.step.config) for node in nodes}
    if as_json:
        print_json({step: {**asdict(one), "not_counted": on_top[step]} for step, one in found.items()})
        return
    columns = (
        "set",
        "requests",
        "stored",
        "prompt tokens",
        "completion at most",
        "expected",
        "cost at most",
        "expected",
    )
    rows = [
        (step, one.requests, one.stored, amount(one.prompt_tokens), amount(one.completion_tokens_at_most),
         _or_dash(one.completion_tokens_expected), _money(one.money_at_most, one), _money(one.money_expected, one))
        for step, one in found.items()
    ]  # fmt: skip
    console.print(table("What asking would cost (expected: by the answers stored so far)", columns, rows))
    for step, parts in on_top.items():
        if parts:
            console.print(f"[yellow]{step}[/yellow] asks more than that: {', '.join(parts)}")


def _not_counted(config: object) -> list[str]:
    """What a set asks once it has seen answers, which nobody can count before."""
    judge: JudgeConfig = getattr(config, "judge", JudgeConfig())
    ways_back = getattr(config, "minimum_round_trip", 0.0) > 0
    return [
        *([f"a judge about {judge.permille} of 1,000 samples that pass"] if judge.permille else []),
        *(["the way back of each translation"] if ways_back else []),
    ]


def _or_dash(tokens: int | None) -> str:
    return "–" if tokens is None else amount(tokens)


def _money(value: float | None, one: Estimate) -> str:
    return "–" if value is None else f"{value:,.2f} {one.currency}"


def _nodes(opened: Opened, name: str) -> list[Node]:
    sets = opened.curriculum.synth
    if name and name not in sets:
        raise unknown_name("synthetic set", name, sets)
    if not sets:
        raise ConfigError("the file has no synthetic sets", where=str(opened.path), fix="list some under `synth:`")
    return [opened.graph.node(f"synth.{one}") for one in ([name] if name else sets)]


def _later(opened: Opened, step: str) -> list[Node]:
    """The steps that drop copies and contaminated samples of a set, where there are any."""
    name = step.removeprefix("synth.")
    return [opened.graph.node(one) for one in (f"distinct.{name}", f"guard.{name}") if one in opened.graph.nodes]


def _run(opened: Opened, steps: Sequence[str], executor: str, workers: int) -> None:
    chooser = executor_for(opened.curriculum.execution, executor, workers)
    refuse_live_jobs(opened, chooser)
    with locked(opened.graph.store), progress() as shown:
        opened.graph.run(list(dict.fromkeys(steps)), chooser, shown)


def _estimated(opened: Opened, node: Node) -> Estimate:
    task = opened.graph.task(node)
    work = load_work(node.step.work)
    assert isinstance(work, EndpointWork | ToolsWork)
    endpoint = bound_endpoint(task.paths)
    store = None if isinstance(endpoint, ReplayConfig) else ResponseStore(task.store / RESPONSES, "estimate")
    requests = (one for shard in range(work.shard_count(task)) for one in work.first_requests(task, shard))
    return estimate(requests, store, endpoint)


def _shown(node: Node, later: Sequence[Node], examples: int) -> dict[str, Any]:
    record = read_record(node.folder)
    kind = node.step.kind.removeprefix("synth.")
    counts = record.counts
    filters = acceptance(kind, counts["documents_in"], record.dropped)
    rejected = {one.reason: _first(node.folder, one.reason, examples) for one in filters if one.dropped}
    last = counts["documents_out"]
    for further in later:
        for reason, dropped in sorted(read_record(further.folder).dropped.items()):
            filters.append(FilterShare(reason, last, dropped))
            rejected[reason] = _first(further.folder, reason, examples)
            last -= dropped
    return {
        "documents_in": counts["documents_in"],
        "documents_out": last,
        "filters": [{**asdict(one), "accepted_share": one.accepted_share} for one in filters],
        "rejected": rejected,
        "by_language": record.facts.get("by_language", {}),
        "by_maker": record.facts.get("by_maker", {}),
        "measured": record.facts.get(MEASURES, {}),
        "folder": str(node.folder),
        "kept": _kept(later[-1].folder if later else node.folder, examples),
    }


def _first(folder: Path, reason: str, limit: int) -> list[dict[str, Any]]:
    """The first rejected samples of a reason whose text was kept."""
    paths = sorted((folder / "dropped").glob("[0-9]*.parquet"))
    rows = pl.scan_parquet(paths).filter((pl.col("reason") == reason) & pl.col("text").is_not_null())
    return rows.select("id", "lang", "reason", "detail", "text").head(limit).collect().to_dicts()


def _kept(folder: Path, limit: int) -> list[dict[str, Any]]:
    return (
        pl.scan_parquet(document_files(folder))
        .select("id", "lang", "maker", "text")
        .head(min(limit, 1))
        .collect()
        .to_dicts()
    )


def _print_measured(measured: dict[str, dict[str, int]]) -> None:
    """What search sets measure: means a question, of contexts with sub-agents and without."""
    columns = (
        "language", "questions", "right", "facts kept", "compressions", "longest context", "without", "read", "without",
        "by sub-agents",
    )  # fmt: skip
    counted = ("peak_tokens", "peak_tokens_plain", "read_tokens", "read_tokens_plain", "subagent_tokens")
    rows = [
        (language, one["questions"], one["right"], f"{one['facts_kept']} of {one['facts']}", one["compressions"],
         *(amount(round(one[name] / max(1, one["questions"]))) for name in counted))
        for language, one in measured.items()
    ]  # fmt: skip
    console.print(
        table("Tokens of a search, estimated: with sub-agents, and without along the same way", columns, rows)
    )


def _print(step: str, shown: dict[str, Any]) -> None:
    for reason, rows in shown["rejected"].items():
        for row in rows:
            console.print(panel({**row, "reason": reason}))
    rows = [
        (one["reason"], one["reached"], one["dropped"], f"{100 * one['accepted_share']:.1f}%")
        for one in shown["filters"]
    ]
    share = 100 * shown["documents_out"] / max(1, shown["documents_in"])
    if shown["measured"]:
        _print_measured(shown["measured"])
    title = f"{step}: {shown['documents_out']:,} of {shown['documents_in']:,} samples stay ({share:.1f}%)"
    console.print(table(title, ("filter", "came to it", "dropped", "accepted"), rows))
