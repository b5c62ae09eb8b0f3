"""Tables and CSV rows of one segment's statistics."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
from rich.console import Console

from pipeline.report.composition import GROUP_TITLES
from pipeline.report.gather import gather
from pipeline.report.terminal_stats import csv_text, statistics_tables, unicode_bars


@pytest.fixture(scope="module")
def parts(store: Any) -> tuple[Any, Any]:
    found = gather(store.root, store.graph, store.phases)
    segment = found.phases[1].segments[0]
    return segment.stats, segment.consumed


def printed(tables: list[Any]) -> str:
    console = Console(width=160, file=io.StringIO(), force_terminal=False)
    for table in tables:
        console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_tables_hold_every_name_and_amount(parts: tuple[Any, Any]) -> None:
    stats, consumed = parts
    text = printed(statistics_tables("extend-1", stats, consumed))
    for group in GROUP_TITLES:
        for name, part in stats[f"by_{group}"].items():
            line = next(
                line for line in text.splitlines() if line.startswith(f"{name} ") and f"{part['tokens']:,}" in line
            )
            assert f"{part['unique_tokens']:,}" in line
            assert f"{consumed[group].get(name, 0):,}" in line
    assert f"{stats['padding_tokens']:,}" in text
    assert "█" in text


def test_names_are_not_read_as_markup(parts: tuple[Any, Any]) -> None:
    stats, consumed = parts
    part = next(iter(stats["by_source"].values()))
    assert "[red]web[/red]" in printed(
        statistics_tables("extend-1", {**stats, "by_source": {"[red]web[/red]": part}}, consumed)
    )


def test_csv_adds_up_to_the_segment(parts: tuple[Any, Any]) -> None:
    stats, consumed = parts
    rows = list(csv.DictReader(io.StringIO(csv_text([(stats, consumed)]))))
    for group in GROUP_TITLES:
        own = [row for row in rows if row["group"] == group]
        assert sum(int(row["planned_tokens"]) for row in own) == stats["tokens"]
        assert sum(int(row["unique_tokens"]) for row in own) == stats["unique_tokens"]
        assert sum(int(row["consumed_tokens"]) for row in own) == sum(consumed["source"].values())
    asked = [int(row["asked_tokens"]) for row in rows if row["group"] == "component"]
    assert sum(asked) == stats["rows"] * stats["context_tokens"]
    assert {row["asked_tokens"] for row in rows if row["group"] == "lang"} == {""}


def test_bars() -> None:
    assert unicode_bars([8, 4, 3, 0], cells=2) == ["██", "█", "▊", ""]
    assert unicode_bars([1, 1_000_000], cells=4)[0] == "▏"
    assert unicode_bars([]) == []
