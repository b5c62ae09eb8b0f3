"""Inside the mixes: repeats across phases, what phases share, balance of attention, audit, rows as they are trained.

Contract: figures from the plans' statistics and `pipeline.report.mix_details`; every chart's values are in a table too.
Text of documents is escaped like any other text from outside and shortened in the middle.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pipeline.report.charts import bars_height, chart, heat_map, histogram, stacked_bars
from pipeline.report.composition import planned_phases
from pipeline.report.gather import Gathered, PhaseFacts
from pipeline.report.markup import Cell, Markup, Share, folded, missing, section, table, tag
from pipeline.report.mix_details import PhaseDetails, Piece, SampleRow

COLOURS = 6  # of documents in a row, in turns
ENDS_CHARACTERS = 260  # shown of a document from either end
CHART_PIXELS = 320
MOST_TIMES = 5  # seen: more often is one bucket


def mixes_section(gathered: Gathered) -> Markup:
    """Everything about mixes that is not their composition or lengths."""
    introduction = "How fresh each phase's tokens are, what phases have in common, and what rows look like."
    phases = planned_phases(gathered)
    if not phases:
        return section("mixes", "Inside the mixes", introduction, missing("No mix has been made yet."))
    details = gathered.details
    parts = [tag("div", _repeats(phases), *_balance_chart(phases), class_="pair"), _balance_table(phases)]
    parts += [_shared(details), _duplicates(details), _audits(details), *_sample_rows(details)]
    return section("mixes", "Inside the mixes", introduction, *parts)


def times_seen(phase: PhaseFacts) -> Counter[int]:
    """Documents by how often they have been seen when the phase's last segment ends."""
    total: Counter[int] = Counter()
    for segment in phase.segments:
        for times, documents in segment.stats.get("draws_by_times_seen", {}).items():
            total[min(int(times), MOST_TIMES)] += documents
    return total


def _repeats(phases: Sequence[PhaseFacts]) -> Markup:
    found = [times_seen(phase) for phase in phases]
    wholes = [sum(counts.values()) or 1 for counts in found]
    times = sorted({number for counts in found for number in counts})
    names = [f"{number}×" if number < MOST_TIMES else f"{MOST_TIMES}× or more" for number in times]
    parts = {
        name: [100 * counts[number] / whole for counts, whole in zip(found, wholes, strict=True)]
        for name, number in zip(names, times, strict=True)
    }
    figure = stacked_bars(
        [phase.view.name for phase in phases],
        parts,
        {name: place for place, name in enumerate(names)},
        "share of the phase's documents (%)",
    )
    figure.update_xaxes(range=[0, 100])
    caption = "Times a document has been seen since training began, at the end of the phase: repeats across phases."
    return chart("times-seen", "How often documents have been seen", figure, caption, bars_height(len(phases)))


def _balance(phase: PhaseFacts) -> dict[int, tuple[float, float]]:
    """Ranks -> busiest over the mean, as dealt at random and as served, of the phase's first segment."""
    attention = phase.segments[0].stats.get("attention", {}).get("busiest_over_mean", {})
    return {int(ranks): (attention[ranks]["dealt"], attention[ranks]["served"]) for ranks in sorted(attention, key=int)}


def _balance_chart(phases: Sequence[PhaseFacts]) -> list[Markup]:
    two = {phase.view.name: pair[2] for phase in phases if 2 in (pair := _balance(phase))}
    if not two:
        return []
    lines = {
        "dealt at random": [100 * (dealt - 1) for dealt, _ in two.values()],
        "as served": [100 * (served - 1) for _, served in two.values()],
    }
    figure = histogram(list(two), lines, "phase", "busier of 2 ranks above the mean (%)")
    caption = (
        "Attention costs the square of a document's length. Inside each global batch rows are arranged so that ranks "
        "cost about the same; low is good."
    )
    return [chart("attention-balance", "Balance of attention between ranks", figure, caption, CHART_PIXELS)]


def _balance_table(phases: Sequence[PhaseFacts]) -> Markup:
    rows = [(phase.view.name, ranks, *pair) for phase in phases for ranks, pair in _balance(phase).items()]
    columns = ("phase", "ranks", "dealt at random", "as served")
    told = table("Attention cost of the busiest rank over the mean", columns, rows)
    return folded("Balance of attention for every number of ranks, as a table", told)


def _shared(details: Sequence[PhaseDetails]) -> Markup:
    later = [one for one in details if any(one.shared.values()) and any(row for row in one.shared.values())]
    if not later:
        return missing("Only one phase is planned: nothing to compare it with.")
    columns = [one.phase for one in details[:-1]]
    names, cells, rows = [], [], list[tuple[Cell, ...]]()
    for one in later:
        for component, row in one.shared.items():
            names.append(f"{one.phase} · {component}")
            cells.append(
                [_part(row[other].tokens, row[other].of_tokens) if other in row else None for other in columns]
            )
            rows += [
                (
                    one.phase,
                    component,
                    other,
                    s.documents,
                    Share(s.documents, s.of_documents),
                    s.tokens,
                    Share(s.tokens, s.of_tokens),
                )
                for other, s in row.items()
            ]
    figure = heat_map(cells, columns, names, "documents already in", "component")
    figure.update_yaxes(autorange="reversed")
    caption = (
        "Share of each component's tokens whose documents an earlier phase has served: rehearsal should be high, fresh "
        "long documents low. Exact, by document."
    )
    heading = ("phase", "component", "earlier phase", "documents in both", "share", "tokens", "share of tokens")
    return tag(
        "div",
        chart("shared-documents", "Documents of earlier phases", figure, caption, bars_height(len(names)) + 40),
        folded("Documents in both, as a table", table("Documents in both phases", heading, rows)),
    )


def _part(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _duplicates(details: Sequence[PhaseDetails]) -> Markup:
    rows: list[tuple[Cell, ...]] = [
        (
            one.phase,
            component,
            other,
            found["sampled"][1],
            found["near_duplicates"],
            Share(found["near_duplicate_share"], 1),
            found["distinct_ngrams"][1],
            Share(found["shared_ngram_share"], 1),
        )
        for one in details
        for component, row in one.sampled.items()
        for other, found in row.items()
    ]
    if not rows:
        return missing("Near-duplicates between phases need two planned phases.")
    columns = (
        "phase", "component", "against", "sampled documents", "near-duplicates", "share", "distinct 8-token n-grams",
        "of them in both",
    )  # fmt: skip
    told = table("Near-duplicates (MinHash) and n-grams (HyperLogLog) in a sample", columns, rows)
    return folded("Near-duplicates and shared n-grams between components", told)


def _audits(details: Sequence[PhaseDetails]) -> Markup:
    rows: list[tuple[Cell, ...]] = [
        (one.phase, one.audit.steps, one.audit.rows, one.audit.tokens, "equal" if one.audit.clean else "differs")
        for one in details
        if one.audit is not None
    ]
    if not rows:
        return missing("Nothing is trained yet: the log cannot be compared with the plan.")
    problems = [tag("li", problem) for one in details if one.audit for problem in one.audit.problems]
    columns = ("phase", "steps", "rows", "tokens consumed", "consumed and planned")
    told = table("The run log against the plan, step by step and source by source", columns, rows)
    return tag("div", told, tag("ul", *problems)) if problems else told


def _sample_rows(details: Sequence[PhaseDetails]) -> list[Markup]:
    if not any(one.rows for one in details):
        return [missing("Rows are shown once the tokenizer is there.")]
    parts = [tag("h3", "Rows as they are trained")]
    for one in details:
        if one.rows:
            shown = [_row(row) for row in one.rows]
            parts.append(folded(f"{one.phase}: {len(one.rows)} sample rows, documents coloured", *shown))
    return parts


def _row(row: SampleRow) -> Markup:
    documents = "1 document" if len(row.pieces) == 1 else f"{len(row.pieces)} documents"
    told = f"Position {row.position:,}: {documents}, {row.padding_tokens:,} tokens of padding"
    pieces = [_piece(piece, place) for place, piece in enumerate(row.pieces)]
    return tag("div", tag("h4", told), *pieces, class_="row")


def _piece(piece: Piece, place: int) -> Markup:
    name = f"{piece.source} · {piece.lang} · {piece.tokens:,} tokens · {piece.document[:12]}"
    return tag(
        "div",
        tag("div", name, class_="piece-name"),
        tag("pre", _shortened(piece.text), lang=piece.lang),
        class_=f"piece piece-{place % COLOURS}",
    )


def _shortened(text: str) -> str:
    if len(text) <= 2 * ENDS_CHARACTERS:
        return text
    left_out = len(text) - 2 * ENDS_CHARACTERS
    return f"{text[:ENDS_CHARACTERS]}\n… {left_out:,} characters …\n{text[-ENDS_CHARACTERS:]}"
