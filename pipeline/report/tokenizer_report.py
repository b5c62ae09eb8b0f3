"""The tokenizer on held-out text, as `seodang tokenizer report` measured it: tables for the page.

Contract: shows what the file `REPORT` in the store says, and how to make it where it is not there.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.core.files import read_json
from pipeline.report.markup import Cell, Markup, folded, missing, table, tag, with_code

REPORT = "tokenizer-report.json"


def read_report(store: Path) -> Mapping[str, Any] | None:
    """The last measurement, or None."""
    return read_json(store / REPORT) if (store / REPORT).is_file() else None


def held_out_tables(report: Mapping[str, Any] | None) -> Markup:
    """Bytes per token and fertility by group, language and domain; superwords; tokens never used."""
    if report is None:
        return missing("Not measured on held-out text yet: run `seodang tokenizer report CONFIG`.")
    parts = [
        _figures(report, "groups", "Held-out text by group", "group"),
        _figures(report, "languages", "Held-out text by language", "language"),
        folded("By domain", _figures(report, "domains", "Held-out text by domain", "domain")),
        _superwords(report),
        _unused(report),
    ]
    return Markup("".join(parts))


def _figures(report: Mapping[str, Any], kind: str, caption: str, what: str) -> Markup:
    names: list[str] = [report["tokenizer"], *report["others"]]
    columns = [what, "documents", "text (bytes)"]
    columns += [f"{name}: {figure}" for name in names for figure in ("bytes per token", "tokens per word")]
    rows: list[tuple[Cell, ...]] = [
        (
            key,
            row["documents"],
            row["bytes"],
            *(_rounded(row[figure].get(name)) for name in names for figure in ("bytes_per_token", "fertility")),
        )
        for key, row in report[kind].items()
    ]
    return table(caption, columns, rows)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _superwords(report: Mapping[str, Any]) -> Markup:
    rows: list[tuple[Cell, ...]] = [
        (language, ", ".join(f"“{text.strip()}” {count:,}" for text, count in found))
        for language, found in report["frequent_superwords"].items()
    ]
    if not rows:
        return missing("No superword occurs in the held-out text.")
    return table("Most frequent superwords", ("language", "superword and how often"), rows)


def _unused(report: Mapping[str, Any]) -> Markup:
    unused = report["unused"]
    sentence = (
        f"{unused['tokens']:,} of {unused['of']:,} tokens of text occur nowhere in it, "
        f"{unused['superwords']:,} superwords among them."
    )
    examples = " ".join(f"`{text.replace('`', '')}`" for text in unused["first"])
    shown = with_code(f"{sentence} The first: {examples}" if examples else sentence)
    return folded("Tokens never used in it", tag("p", shown))
