"""`seodang synth`: make synthetic sets and show what their filters let through.

Contract: runs what the named sets need and the sets themselves; shows for each filter how many samples came to it, how
many it dropped and the first of them.
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
from pipeline.graph import Node, locked
from pipeline.recipe import Opened, open_curriculum
from synth.acceptance import FilterShare, acceptance
from synth.subagents.work import MEASURES


def make_sets(
    config: Path, name: str, executor: str, workers: int, examples: int, overrides: Sequence[str], *, as_json: bool
) -> None:
    """Make one set, or all, and print the acceptance of each."""
    opened = open_curriculum(config, overrides)
    nodes = nodes_of(opened, name)
    later = {node.step.name: _later(opened, node.step.name) for node in nodes}
    run_steps(opened, [one.step.name for node in nodes for one in (node, *later[node.step.name])], executor, workers)
    found = {node.step.name: _shown(node, later[node.step.name], examples) for node in nodes}
    if as_json:
        print_json(found)
        return
    for step, shown in found.items():
        _print(step, shown)


def nodes_of(opened: Opened, name: str) -> list[Node]:
    """The step of one set, or of all. Raises `ConfigError` where there is none."""
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


def run_steps(opened: Opened, steps: Sequence[str], executor: str, workers: int) -> None:
    """Run what is missing of these steps and of what they need."""
    chooser = executor_for(opened.curriculum.execution, executor, workers)
    refuse_live_jobs(opened, chooser)
    with locked(opened.graph.store), progress() as shown:
        opened.graph.run(list(dict.fromkeys(steps)), chooser, shown)


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
