"""Comparisons for people: a table in the terminal, and rows of the table in `docs/benchmarks.md`."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from benchmarks.catalogue import BENCHMARKS
from benchmarks.result import Comparison, Spread

HEADINGS = ("benchmark", "what", "ours", "peer", "unit", "against", "ratio", "equal", "quality", "input")
EQUAL = {True: "yes", False: "no", None: ""}


def cells(found: Comparison) -> tuple[str, ...]:
    """One comparison, a text a column of `HEADINGS`."""
    return (
        found.name,
        found.what,
        spread(found.ours),
        spread(found.peer),
        found.unit,
        found.peer_name,
        f"{found.ratio:.2f}",
        EQUAL[found.equal],
        quality(found),
        found.input,
    )


def spread(values: Spread) -> str:
    """Median, and least to largest where there is more than one value."""
    text = number(values.median)
    return text if values.low == values.high else f"{text} ({number(values.low)}–{number(values.high)})"


def number(value: float) -> str:
    """Three significant digits, thousands in groups."""
    return f"{float(f'{value:.3g}'):,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def quality(found: Comparison) -> str:
    """Ours and the peer's quality with its name; empty when there is none."""
    known = [f"{value:.4g}" for value in (found.quality_ours, found.quality_peer) if value is not None]
    return f"{found.quality} {' / '.join(known)}" if known else ""


def print_table(comparisons: Sequence[Comparison], console: Console) -> None:
    """The comparisons of a run: a table for each benchmark and input."""
    for name, where in dict.fromkeys((found.name, found.input) for found in comparisons):
        table = Table(title=f"{name}: {where}", title_justify="left", show_edge=False, expand=False)
        table.add_column("what, against", overflow="fold")
        for heading in ("ours", "peer"):
            table.add_column(heading, justify="right")
        for heading in ("unit", "ratio", "equal", "quality"):
            table.add_column(heading, overflow="fold")
        for found in comparisons:
            if (found.name, found.input) == (name, where):
                _, what, ours, peer, unit, against, ratio, equal, good, _ = cells(found)
                table.add_row(f"{what}\n{against}", _two_lines(ours), _two_lines(peer), unit, ratio, equal, good)
        console.print(table)


def _two_lines(text: str) -> str:
    return text.replace(" (", "\n(")


def print_list(console: Console) -> None:
    """The catalogue."""
    table = Table(show_edge=False)
    for heading in ("benchmark", "measures", "against"):
        table.add_column(heading, overflow="fold")
    for entry in BENCHMARKS.values():
        table.add_row(entry.name, entry.what, ", ".join(entry.peers))
    console.print(table)


def markdown_heading() -> str:
    """The heading of the table in `docs/benchmarks.md`."""
    return f"| {' | '.join(HEADINGS)} |\n|{'---|' * len(HEADINGS)}"


def markdown(found: Comparison) -> str:
    """A row of that table."""
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells(found))} |"
