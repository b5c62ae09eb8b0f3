"""What a person sees on stderr: live progress, tables, amounts in short form. Data never goes through here."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from pipeline.core.record import Record

console = Console(stderr=True, highlight=False)


def amount(value: float) -> str:
    """1234567 -> 1.23M: three significant digits and a unit letter."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "K")):
        if abs(value) >= size:
            return f"{value / (1e3 if letter == 'K' else size):.3g}{letter}"
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.3g}"


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """A plain table; numbers are right-aligned by the caller's formatting."""
    drawn = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    body = [[str(cell) for cell in row] for row in rows]
    for index, name in enumerate(columns):
        numeric = bool(body) and all(_is_amount(row[index]) for row in body)
        drawn.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in body:
        drawn.add_row(*row)
    return drawn


def _is_amount(cell: str) -> bool:
    return cell in ("", "–") or cell.replace(",", "").replace(".", "").rstrip("KMGT%×").lstrip("-").isdigit()


class TerminalProgress:
    """Shows each step's shards as a bar, and one line when it is finished. Implements `pipeline.graph.Progress`."""

    def __init__(self, bars: Progress) -> None:
        self.bars = bars
        self.tasks: dict[str, TaskID] = {}

    def step_started(self, name: str, shards: int, done: int) -> None:
        self.tasks[name] = self.bars.add_task(name, total=max(shards, 1), completed=done)

    def shards_done(self, name: str, done: int) -> None:
        self.bars.update(self.tasks[name], completed=done)

    def step_finished(self, name: str, record: Record, seconds: float, *, was_there: bool) -> None:
        if name in self.tasks:
            self.bars.remove_task(self.tasks.pop(name))
        took = "[dim]already there[/dim]" if was_there else f"{seconds:6.1f} s"
        self.bars.console.print(f"[green]✓[/green] {name:<28} {took}  [dim]{_summary(record)}[/dim]")
        if record.facts.get("nothing_left"):
            reasons = ", ".join(f"{reason} {count:,}" for reason, count in record.dropped.items())
            self.bars.console.print(f"  [yellow]nothing is left of it[/yellow]: {reasons}; `seodang peek` shows them")


def _summary(record: Record) -> str:
    counts = record.counts
    if "rows" in counts and "tokens" in counts:
        rows, tokens, documents = (amount(counts[name]) for name in ("rows", "tokens", "documents_out"))
        return f"{rows} rows, {tokens} tokens of {documents} documents"
    if "documents_in" in counts:
        dropped = sum(record.dropped.values())
        return f"{amount(counts['documents_in'])} in, {amount(dropped)} dropped, {amount(counts['documents_out'])} out"
    return ", ".join(f"{amount(value)} {key.replace('_', ' ')}" for key, value in list(counts.items())[:3])


@contextmanager
def progress() -> Generator[TerminalProgress]:
    with progress_bars() as bars:
        yield TerminalProgress(bars)


@contextmanager
def progress_bars() -> Generator[Progress]:
    """Bars that go when their work is done."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        yield bars
