"""The data card: where every source comes from, what may be done with it, and how much of each licence was used.

Contract: every field of every source card is shown as it stands. Documents of a licence are those encoded (or, before
encoding, those that left the last cleaning step); tokens are the mixes' planned and consumed ones over all phases.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from pipeline.core.provenance import SourceCard
from pipeline.report.composition import Amount, amounts
from pipeline.report.funnel import flows, funnel_steps, step_family
from pipeline.report.gather import Gathered
from pipeline.report.markup import Cell, Markup, Share, facts, folded, missing, section, table

TITLES = {
    "origin": "origin",
    "license": "licence (SPDX)",
    "basis": "legal basis",
    "collected": "collected on",
    "opt_out": "opt-outs",
    "contact": "contact",
    "domain": "domain",
    "personal_data": "personal data",
    "review_collection": "review: collection",
    "review_training": "review: training",
    "review_release": "review: release",
    "note": "note",
}


def card_section(gathered: Gathered) -> Markup:
    """Source cards and licences."""
    introduction = "Where the data comes from, under which licence, and what the reviews of each source said."
    parts = [_licenses(gathered)]
    if gathered.cards:
        parts.append(_overview(gathered))
        parts += _mixes(gathered)
        parts += [folded(f"Source card: {name}", _fields(card)) for name, card in gathered.cards.items()]
    else:
        parts.append(missing("No source cards were given to this page."))
    return section("card", "Data card", introduction, *parts)


def documents_by_license(gathered: Gathered) -> tuple[str, Mapping[str, int]]:
    """(where they were counted, documents by licence)."""
    encoded = [step.record for step in gathered.steps if step_family(step.name) == "encode" and step.record]
    if any(record.licenses for record in encoded):
        total: Counter[str] = Counter()
        for record in encoded:
            total.update(record.licenses)
        return "encoded documents", total
    cleaned = [step for step in funnel_steps(gathered) if step.record is not None and step.record.licenses]
    if cleaned and cleaned[-1].record is not None:
        return f"documents after {cleaned[-1].name}", cleaned[-1].record.licenses
    return "documents", {}


def tokens_by(gathered: Gathered, group: str) -> dict[str, Amount]:
    """Name -> planned and consumed tokens over all phases."""
    total: dict[str, Amount] = {}
    for phase in gathered.phases:
        for name, amount in amounts(phase, group).items():
            whole = total.setdefault(name, Amount())
            whole.planned += amount.planned
            whole.consumed += amount.consumed
    return total


def _licenses(gathered: Gathered) -> Markup:
    counted, documents = documents_by_license(gathered)
    tokens = tokens_by(gathered, "license")
    names = sorted({*documents, *tokens}, key=lambda name: (-tokens.get(name, Amount()).planned, name))
    if not names:
        return missing("No licences have been counted yet: nothing has been encoded or mixed.")
    planned = sum(amount.planned for amount in tokens.values())
    rows: list[tuple[Cell, ...]] = []
    for name in names:
        amount = tokens.get(name, Amount())
        share = Share(amount.planned, planned)
        rows.append((name, documents.get(name, 0), amount.planned, share, amount.consumed))
    columns = ("licence", counted, "planned tokens, all phases", "share", "consumed tokens, all phases")
    return table("Documents and tokens by licence", columns, rows)


def _overview(gathered: Gathered) -> Markup:
    read = flows((step, step.by_source) for step in funnel_steps(gathered) if step.record is not None)
    tokens = tokens_by(gathered, "source")
    rows: list[tuple[Cell, ...]] = []
    for name, card in gathered.cards.items():
        flow = read.get(name)
        rows.append(
            (
                name,
                card.license,
                card.personal_data,
                card.review_collection,
                card.review_training,
                card.review_release,
                flow.read if flow else None,
                flow.out if flow else None,
                tokens.get(name, Amount()).planned,
            )
        )
    columns = (
        "source", "licence", "personal data", "collection", "training", "release", "documents read", "documents kept",
        "planned tokens",
    )  # fmt: skip
    return table("Sources and their reviews", columns, rows)


def _mixes(gathered: Gathered) -> list[Markup]:
    """The data card of every segment."""
    columns = (
        "source", "planned tokens", "share", "licence", "made from", "personal data", "collection", "training",
        "release",
    )  # fmt: skip
    found: list[Markup] = []
    for segment in (one for phase in gathered.phases for one in phase.segments if one.data_card and one.segment):
        rows: list[tuple[Cell, ...]] = [
            (
                row["source"],
                row["tokens"],
                Share(row["share"], 1),
                row["licence"],
                ", ".join(row["made_from"]) or None,
                *(row[name] for name in ("personal_data", "collection", "training", "release")),
            )
            for row in segment.data_card
        ]
        assert segment.segment is not None
        name = f"Data card of the mix {segment.segment.name}"
        found.append(folded(name, table(name, columns, rows)))
    return found


def _fields(card: SourceCard) -> Markup:
    return facts((title, str(getattr(card, name)) or None) for name, title in TITLES.items())
