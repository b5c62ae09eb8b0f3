"""A mix segment's statistics for the terminal and for spreadsheets: rich tables and CSV rows.

Contract: pure functions over `stats.json` (the mapping `mixes.stats.plan_statistics` gives) and, where training has
begun, the consumed tokens by group. CSV rows hold plain numbers, tables thousands separators.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from pipeline.report.composition import GROUP_TITLES, asked_tokens
from pipeline.report.consumed import Composition
from pipeline.report.lengths import bucket_label, excluded
from pipeline.report.markup import NOTHING, Cell, Share, shown

Stats = Mapping[str, Any]

BAR_CELLS = 40
EIGHTHS = " ▏▎▍▌▋▊▉█"
CSV_COLUMNS: tuple[str, ...] = (
    "segment", "group", "name", "asked_tokens", "planned_tokens", "unique_tokens", "synthetic_tokens", "documents",
    "consumed_tokens",
)  # fmt: skip


def statistics_tables(name: str, stats: Stats, consumed: Composition | None = None) -> list[Table]:
    """Everything about one segment: packing, tokens by every group, repeats, lengths, excluded documents.

    Args:
        name: Of the segment, in the first title.
        stats: Content of its `stats.json`.
        consumed: Tokens trained on so far, by group and name; None before training.
    """
    trained = consumed or {}
    groups = [group_table(stats, trained, group) for group in GROUP_TITLES]
    left_out = [excluded_table(stats)] if excluded(stats) else []
    return [packing_table(name, stats, trained), *groups, repeats_table(stats), lengths_table(stats), *left_out]


def packing_table(name: str, stats: Stats, consumed: Composition) -> Table:
    """Rows, tokens, fill and padding of the segment."""
    capacity = stats["rows"] * stats["context_tokens"]
    per_row = stats["documents_per_row"]
    rows: list[tuple[str, Cell]] = [
        ("rows", stats["rows"]),
        ("context (tokens)", stats["context_tokens"]),
        ("planned (tokens)", stats["tokens"]),
        ("unique (tokens)", stats["unique_tokens"]),
        ("consumed (tokens)", sum(consumed.get("source", {}).values())),
        ("padding (tokens)", stats["padding_tokens"]),
        ("fill", Share(stats["tokens"], capacity)),
        ("synthetic share", Share(stats["synthetic_share"], 1)),
        ("pieces per row, mean", round(per_row["mean"], 2)),
        ("pieces per row, most", per_row["most"]),
        ("documents cut", stats["cut_documents"]),
        ("documents excluded", sum(row[3] for row in excluded(stats))),
    ]
    for ranks, pair in stats.get("attention", {}).get("busiest_over_mean", {}).items():
        told = f"attention of the busiest of {ranks} ranks over the mean (dealt at random)"
        rows.append((told, f"{pair['served']:.3f} ({pair['dealt']:.3f})"))
    return _table(f"Mix of {name}", ("", "value"), rows)


def group_rows(stats: Stats, consumed: Composition, group: str) -> list[dict[str, Any]]:
    """One mapping of `CSV_COLUMNS` a name, most planned tokens first; asked is None where a mix does not ask by it."""
    asked = asked_tokens(stats, group)
    planned: Mapping[str, Mapping[str, int]] = stats[f"by_{group}"]
    trained = consumed.get(group, {})
    names = sorted({*planned, *asked}, key=lambda name: (-planned.get(name, {}).get("tokens", 0), name))
    return [
        {
            "segment": stats["name"],
            "group": group,
            "name": name,
            "asked_tokens": asked[name] if asked else None,
            "planned_tokens": planned.get(name, {}).get("tokens", 0),
            "unique_tokens": planned.get(name, {}).get("unique_tokens", 0),
            "synthetic_tokens": planned.get(name, {}).get("synthetic_tokens", 0),
            "documents": planned.get(name, {}).get("documents", 0),
            "consumed_tokens": trained.get(name, 0),
        }
        for name in names
    ]


def group_table(stats: Stats, consumed: Composition, group: str) -> Table:
    """Tokens by the names of one group."""
    rows: list[tuple[Cell, ...]] = []
    for row in group_rows(stats, consumed, group):
        planned, unique = row["planned_tokens"], row["unique_tokens"]
        rows.append(
            (
                row["name"],
                row["asked_tokens"],
                planned,
                Share(planned, stats["tokens"]),
                unique,
                f"{planned / unique:.2f}×" if unique else NOTHING,
                Share(row["synthetic_tokens"], planned) if planned else NOTHING,
                row["documents"],
                row["consumed_tokens"],
            )
        )
    columns = (
        GROUP_TITLES[group],
        "asked",
        "planned",
        "share",
        "unique",
        "repeats",
        "synthetic",
        "documents",
        "consumed",
    )
    return _table(f"Tokens by {GROUP_TITLES[group]}", columns, rows)


def repeats_table(stats: Stats) -> Table:
    """How many documents have been seen how often when the segment ends."""
    counts = sorted((int(times), count) for times, count in stats["draws_by_times_seen"].items())
    rows: list[tuple[Cell, ...]] = [(f"{times}×", count) for times, count in counts]
    return _table("Documents by times seen", ("seen", "documents"), rows)


def lengths_table(stats: Stats) -> Table:
    """Histogram of drawn documents' lengths with bars."""
    counts = sorted((int(start), count) for start, count in stats["document_lengths"].items())
    bars = unicode_bars([count for _, count in counts])
    rows = [(bucket_label(start), count, bar) for (start, count), bar in zip(counts, bars, strict=True)]
    return _table("Drawn documents by length", ("tokens", "documents", " "), rows)


def excluded_table(stats: Stats) -> Table:
    """Documents the mix's own conditions left out."""
    return _table("Excluded documents", ("component", "source", "reason", "documents", "tokens"), excluded(stats))


def card_table(name: str, card: Sequence[Mapping[str, Any]]) -> Table:
    """A mix's data card (`pipeline.report.data_card`), without the origins, which are long."""
    points = ("collection", "training", "release")
    columns = ("source", "tokens", "share", "licence", "made from", "personal data", *points)
    rows: list[tuple[Cell, ...]] = [
        (
            row["source"],
            row["tokens"],
            Share(row["share"], 1),
            row["licence"],
            ", ".join(row["made_from"]) or NOTHING,
            row["personal_data"],
            *(row[point] for point in points),
        )
        for row in card
    ]
    return _table(f"Data card of {name}: sources, licences and reviews", columns, rows)


def unicode_bars(values: Sequence[int], cells: int = BAR_CELLS) -> list[str]:
    """A bar an amount, the longest `cells` wide, in eighths of a cell; more than nothing is never invisible."""
    most = max(values, default=0)
    found = []
    for value in values:
        eighths = max(1, round(8 * cells * value / most)) if value else 0
        found.append(EIGHTHS[8] * (eighths // 8) + EIGHTHS[eighths % 8].strip())
    return found


def csv_text(segments: Iterable[tuple[Stats, Composition]]) -> str:
    """All groups of all segments as CSV with a header; an amount the mix does not know is empty."""
    out = io.StringIO()
    writer = csv.DictWriter(out, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for stats, consumed in segments:
        for group in GROUP_TITLES:
            writer.writerows(group_rows(stats, consumed, group))
    return out.getvalue()


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> Table:
    drawn = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for index, name in enumerate(columns):
        left = index == 0 or any(_is_word(row[index]) for row in rows)
        drawn.add_column(name, justify="left" if left else "right", overflow="fold")
    for row in rows:
        drawn.add_row(*(escape(shown(cell)) for cell in row))
    return drawn


def _is_word(cell: Cell) -> bool:
    return isinstance(cell, str) and cell != NOTHING and not cell.endswith("×")
