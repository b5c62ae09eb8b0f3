"""`seodang diff`: two phases' mixes side by side, of one curriculum or of two: shares, shared documents, duplicates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mixes.overlap import sample_components, sampled_overlap, shared_documents
from mixes.stats import GROUPS
from pipeline.commands.mixes import PlannedPhase, planned_phase
from pipeline.commands.plan import print_json
from pipeline.commands.terminal import console, table
from pipeline.core.files import read_json
from pipeline.recipe import open_curriculum
from pipeline.report.composition import GROUP_TITLES

FACTS = (
    "rows",
    "context_tokens",
    "tokens",
    "padding_tokens",
    "fill",
    "unique_tokens",
    "synthetic_share",
    "cut_documents",
)


def show_diff(
    config: Path, one: str, other: str, against: Path | None, overrides: Sequence[str], *, sample: bool, as_json: bool
) -> None:
    """Print what differs between the first segments of two phases, and what they have in common."""
    opened = open_curriculum(config, overrides)
    first = planned_phase(opened, one)
    second = planned_phase(open_curriculum(against, overrides) if against else opened, other)
    found = compare(first, second, sample=sample)
    if as_json:
        print_json(found)
        return
    for part in diff_tables(found):
        console.print(part)


def compare(first: PlannedPhase, second: PlannedPhase, *, sample: bool) -> dict[str, Any]:
    """Facts, shares by every group, shared documents by component, and sketches of a sample when asked for."""
    stats = [read_json(phase.plan.store / phase.segments[0].folder / "stats.json") for phase in (first, second)]
    groups: dict[str, dict[str, list[int]]] = {}
    for group in GROUPS:
        sides = [part[f"by_{group}"] for part in stats]
        names = sorted({*sides[0], *sides[1]})
        groups[group] = {name: [side.get(name, {}).get("tokens", 0) for side in sides] for name in names}
    parts = (first.plan, first.segments[0]), (second.plan, second.segments[0])
    shared = shared_documents(*parts)
    found: dict[str, Any] = {
        "names": [first.name, second.name],
        "facts": {name: [part[name] for part in stats] for name in FACTS},
        "by": groups,
        "shared": {b: {a: asdict(one) for a, one in row.items()} for b, row in shared.items()},
    }
    if sample:
        sketches = [sample_components(*part) for part in parts]
        found["sampled"] = {
            b: {a: sampled_overlap(sketches[0][a], sketches[1][b]) for a in sketches[0]} for b in sketches[1]
        }
    return found


def diff_tables(found: Mapping[str, Any]) -> list[object]:
    """The same as tables."""
    one, other = found["names"]
    facts = [(name.replace("_", " "), _plain(pair[0]), _plain(pair[1])) for name, pair in found["facts"].items()]
    totals = found["facts"]["tokens"]
    parts: list[object] = [table(f"{one} and {other}", ("", one, other), facts)]
    for group, names in found["by"].items():
        columns = (GROUP_TITLES[group], f"{one} tokens", f"{other} tokens", one, other, "points")
        rows = [_group_row(name, pair, totals) for name, pair in names.items()]
        parts.append(table(f"\nTokens by {GROUP_TITLES[group]}", columns, rows))
    columns = (f"component of {other}", f"also in, of {one}", "documents", "share", "tokens", "share of tokens")
    rows = [_shared_row(b, a, part) for b, row in found["shared"].items() for a, part in row.items()]
    parts.append(table("\nThe same documents in both", columns, rows))
    if "sampled" in found:
        columns = (
            f"component of {other}", f"against, of {one}", "sampled", "near-duplicates", "share", "distinct 8-grams",
            "of them in both",
        )  # fmt: skip
        rows = [_sampled_row(b, a, part) for b, row in found["sampled"].items() for a, part in row.items()]
        parts.append(table("\nNear-duplicates and n-grams of a sample", columns, rows))
    return parts


def _group_row(name: str, pair: Sequence[int], totals: Sequence[int]) -> tuple[str, ...]:
    shares = [100 * tokens / total for tokens, total in zip(pair, totals, strict=True)]
    points = f"{shares[1] - shares[0]:+.2f}"
    return name, f"{pair[0]:,}", f"{pair[1]:,}", f"{shares[0]:.2f}%", f"{shares[1]:.2f}%", points


def _shared_row(component: str, against: str, part: Mapping[str, int]) -> tuple[str, ...]:
    documents = _share(part["documents"], part["of_documents"])
    tokens = _share(part["tokens"], part["of_tokens"])
    return component, against, f"{part['documents']:,}", documents, f"{part['tokens']:,}", tokens


def _sampled_row(component: str, against: str, part: Mapping[str, Any]) -> tuple[str, ...]:
    sampled = f"{part['sampled'][0]:,} / {part['sampled'][1]:,}"
    share = f"{100 * part['near_duplicate_share']:.1f}%"
    shared = f"{100 * part['shared_ngram_share']:.1f}%"
    return component, against, sampled, f"{part['near_duplicates']:,}", share, f"{part['distinct_ngrams'][1]:,}", shared


def _plain(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f}%" if whole else "–"
