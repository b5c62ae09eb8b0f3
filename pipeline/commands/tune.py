"""`seodang tune`: what each threshold drops, by language, and what another value would; no text is read again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl

from pipeline.commands.peek import panel
from pipeline.commands.plan import print_json
from pipeline.commands.terminal import console, table
from pipeline.core.documents import document_files
from pipeline.core.errors import ConfigError, InputError
from pipeline.graph import Node
from pipeline.recipe import Opened, open_curriculum
from stages.config import CleanConfig
from stages.rules import RulesConfig
from stages.tuning import Change, Effect, changes, effects, read_signals, with_proposals


def show_tuning(
    config: Path, step: str, rule: str, lang: str, proposals: Sequence[str], examples: int, overrides: Sequence[str],
    *, as_json: bool,
) -> None:  # fmt: skip
    """Print every rule's effect, or with `proposals` what they change."""
    folders, rules = _judged(open_curriculum(config, overrides), step)
    signals = read_signals(folders)
    if proposals:
        changed = changes(signals, rules, with_proposals(rules, proposals))
        changed = [one for one in changed if lang in ("", one.lang)]
        rows = _with_texts(changed, folders, examples)
        _print_changes(changed, rows, signals.num_rows, as_json=as_json)
        return
    shown = [one for one in effects(signals, rules) if rule in one.rule and lang in ("", one.lang)]
    if as_json:
        print_json([asdict(one) for one in shown])
        return
    console.print(_effects_table(shown))


def _judged(opened: Opened, step: str) -> tuple[list[Path], RulesConfig]:
    """The folders of finished steps whose documents are judged by rules, next or already, and those rules.

    `step` names the one that judges or the one that measured.
    """
    named = opened.graph.node(step) if step else None
    nodes = [node for node in opened.graph.nodes.values() if named in (None, node) or step in node.step.inputs.values()]
    found: dict[str, tuple[list[Path], RulesConfig]] = {}
    for node in nodes:
        measured = [opened.graph.node(name) for name in node.step.inputs.values()]
        rules = rules_of(node)
        if rules is not None and all(one.finished for one in measured):
            found[node.step.name] = [one.folder for one in measured], rules
    if not found:
        fix = "run the `clean` steps first, and name a `filter` step"
        raise InputError("no finished step measured signals for rules", where=step or str(opened.graph.store), fix=fix)
    (_, first), *others = found.values()
    if any(rules != first for _, rules in others):
        raise ConfigError("these steps judge by different rules", where=", ".join(found), fix="name one of them")
    return [folder for folders, _ in found.values() for folder in folders], first


def rules_of(node: Node) -> RulesConfig | None:
    """The rules that a step begins with, if it does."""
    blocks = node.step.config.blocks if isinstance(node.step.config, CleanConfig) else ()
    return blocks[0].config if blocks and isinstance(blocks[0].config, RulesConfig) else None


def _effects_table(shown: Sequence[Effect]) -> Any:
    names = ("lang", "rule", "drops when", "documents", "fails", "first", "only", "1 / 5 / 10% at")
    rows = [
        (
            one.lang, one.rule, f"{one.side} {one.threshold:g}", one.documents, _share(one.fails, one),
            _share(one.first, one), _share(one.only, one), " / ".join(f"{value:.3g}" for value in one.at_shares),
        )
        for one in shown
    ]  # fmt: skip
    title = "Rules (first: no earlier rule drops; only: no other rule drops; at: the threshold that would drop so many)"
    return table(title, names, rows)


def _share(count: int, one: Effect) -> str:
    return f"{100 * count / one.documents:.1f}%"


def _with_texts(changed: Sequence[Change], folders: Sequence[Path], limit: int) -> list[dict[str, Any]]:
    """The first `limit` changes each way, with the text where it was kept."""
    kept = [one for one in changed if one.after is None][:limit]
    dropped = [one for one in changed if one.after is not None][:limit]
    ids = [one.id for one in (*kept, *dropped)]
    texts: dict[str, str | None] = {}
    for folder in folders:
        for paths in (document_files(folder), sorted((folder / "dropped").glob("[0-9]*.parquet"))):
            if paths and ids:
                rows = pl.scan_parquet(paths).filter(pl.col("id").is_in(ids)).select("id", "text").collect()
                texts.update(rows.iter_rows())
    return [{**asdict(one), "text": texts.get(one.id)} for one in (*kept, *dropped)]


def _print_changes(changed: Sequence[Change], rows: Sequence[dict[str, Any]], documents: int, *, as_json: bool) -> None:
    newly_dropped = sum(one.after is not None for one in changed)
    if as_json:
        print_json(
            {
                "documents": documents,
                "newly_dropped": newly_dropped,
                "newly_kept": len(changed) - newly_dropped,
                "examples": rows,
            }
        )
        return
    for row in rows:
        verdict = row["after"] or row["before"]
        head = "would be dropped" if row["after"] else "would be kept, now dropped"
        why = f"{verdict['rule']} {verdict['value']:.4g}, threshold {verdict['threshold']:g}"
        console.print(panel({"id": row["id"], "lang": row["lang"], "verdict": f"{head}: {why}", "text": row["text"]}))
    console.print(
        f"of {documents:,} documents {newly_dropped:,} more would be dropped, "
        f"{len(changed) - newly_dropped:,} more kept (later blocks may still drop them)"
    )
