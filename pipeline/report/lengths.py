"""How long the documents of each mix are and how well they fill their rows.

Contract: histograms count drawn documents by powers of two of their tokens; a bucket named 2^k holds lengths from 2^k
up to 2^(k+1) - 1. Fill is real tokens over rows times context.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.report.charts import chart, histogram
from pipeline.report.composition import planned_phases
from pipeline.report.gather import Gathered, PhaseFacts
from pipeline.report.markup import Cell, Markup, Share, folded, missing, section, table, tag

CHART_PIXELS = 300


def lengths_section(gathered: Gathered) -> Markup:
    """Document lengths and packing of every phase."""
    introduction = "How long the drawn documents are, and how much of each training row is text rather than padding."
    phases = planned_phases(gathered)
    if not phases:
        return section("lengths", "Lengths and packing", introduction, missing("No mix has been made yet."))
    found = [merged_counts(phase, "document_lengths") for phase in phases]
    buckets = sorted({int(key) for counts in found for key in counts})
    charts = [
        _length_chart(index, phase, counts, buckets)
        for index, (phase, counts) in enumerate(zip(phases, found, strict=True))
    ]
    names = [phase.view.name for phase in phases]
    by_length = table(
        "Drawn documents by length",
        ("length (tokens)", *names),
        [(bucket_label(bucket), *(counts[str(bucket)] for counts in found)) for bucket in buckets],
    )
    return section(
        "lengths",
        "Lengths and packing",
        introduction,
        _packing_table(phases),
        _excluded_table(phases),
        tag("div", *charts, class_="pair"),
        folded("Documents by length, as a table", by_length),
        folded("Documents by length and source", _by_source_table(phases, buckets)),
        folded("Documents in a row", _per_row_table(phases)),
    )


def merged_counts(phase: PhaseFacts, key: str) -> Counter[str]:
    """A histogram of the statistics, added up over the phase's segments."""
    total: Counter[str] = Counter()
    for segment in phase.segments:
        total.update(segment.stats.get(key, {}))
    return total


def bucket_label(start: int) -> str:
    """16 → 16-31; the first ones hold a single length."""
    return f"{start:,}" if start < 2 else f"{start:,}-{2 * start - 1:,}"


def _length_chart(index: int, phase: PhaseFacts, counts: Mapping[str, int], buckets: Sequence[int]) -> Markup:
    values = [counts.get(str(bucket), 0) for bucket in buckets]
    figure = histogram(
        [f"{bucket:,}" for bucket in buckets], {"documents": values}, "length (tokens, from)", "documents"
    )
    figure.update_layout(showlegend=False)
    context = phase.view.context_tokens
    longer = sum(count for bucket, count in zip(buckets, values, strict=True) if bucket >= context)
    caption = (
        f"Rows of this phase hold {context:,} tokens. {longer:,} drawn documents are at least that long: they fill "
        "whole rows, and are cut where their component allows it."
    )
    return chart(f"lengths-{index}", f"Document lengths, {phase.view.name}", figure, caption, CHART_PIXELS)


def _packing_table(phases: Sequence[PhaseFacts]) -> Markup:
    rows: list[tuple[Cell, ...]] = []
    for phase in phases:
        for segment in phase.segments:
            stats = segment.stats
            if not stats:
                continue
            capacity = stats["rows"] * stats["context_tokens"]
            per_row = stats.get("documents_per_row", {})
            rows.append(
                (
                    stats["name"],
                    stats["rows"],
                    stats["context_tokens"],
                    stats["tokens"],
                    stats["padding_tokens"],
                    Share(stats["tokens"], capacity),
                    round(per_row["mean"], 2) if per_row else None,
                    per_row.get("most"),
                    stats.get("cut_documents"),
                    excluded_documents(stats),
                )
            )
    columns = (
        "segment", "rows", "context (tokens)", "text (tokens)", "padding (tokens)", "fill", "pieces per row, mean",
        "pieces per row, most", "documents cut", "documents excluded",
    )  # fmt: skip
    return table("Packing by segment", columns, rows)


def excluded(stats: Mapping[str, Any]) -> list[tuple[str, str, str, int, int]]:
    """(component, source, reason, documents, tokens) of what the mix left out by its own conditions."""
    return [
        (component, source, reason, amount["documents"], amount["tokens"])
        for component, sources in sorted(stats.get("excluded", {}).items())
        for source, reasons in sorted(sources.items())
        for reason, amount in sorted(reasons.items())
        if amount["documents"]
    ]


def excluded_documents(stats: Mapping[str, Any]) -> int:
    return sum(documents for *_, documents, _ in excluded(stats))


def _excluded_table(phases: Sequence[PhaseFacts]) -> Markup:
    rows = [
        (segment.stats["name"], *row)
        for phase in phases
        for segment in phase.segments
        for row in excluded(segment.stats)
    ]
    if not rows:
        return tag("p", "No document was excluded by a component's conditions.")
    columns = ("segment", "component", "source", "reason", "documents", "tokens")
    return folded(
        "Excluded documents, by component, source and reason", table("Documents excluded from mixes", columns, rows)
    )


def _by_source_table(phases: Sequence[PhaseFacts], buckets: Sequence[int]) -> Markup:
    rows: list[tuple[Cell, ...]] = []
    for phase in phases:
        found: dict[str, Counter[str]] = {}
        for segment in phase.segments:
            for source, counts in segment.stats.get("document_lengths_by_source", {}).items():
                found.setdefault(source, Counter()).update(counts)
        for source, counts in sorted(found.items()):
            rows.append((phase.view.name, source, *(counts[str(bucket)] for bucket in buckets)))
    columns = ("phase", "source", *(bucket_label(bucket) for bucket in buckets))
    return table("Drawn documents by length (tokens) and source", columns, rows)


def _per_row_table(phases: Sequence[PhaseFacts]) -> Markup:
    rows: list[tuple[Cell, ...]] = []
    for phase in phases:
        for segment in phase.segments:
            counts = segment.stats.get("documents_per_row", {}).get("histogram", {})
            rows += [
                (segment.stats["name"], bucket_label(int(key)), count)
                for key, count in sorted(counts.items(), key=lambda item: int(item[0]))
            ]
    return table("Rows by number of pieces", ("segment", "pieces in the row", "rows"), rows)
