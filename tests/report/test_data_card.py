"""The data card of a mix and the page's account of benchmarks."""

from __future__ import annotations

from pipeline.core.provenance import SourceCard
from pipeline.core.record import Record
from pipeline.report.contamination import contamination_section
from pipeline.report.data_card import data_card
from pipeline.report.gather import Gathered, StepFacts
from pipeline.reviews import origins

CARD = SourceCard(
    origin="a crawl", license="CC-BY-4.0", basis="licence", collected="2025-05-01", opt_out="robots", contact="x",
)  # fmt: skip
CARDS = {
    "web": CARD,
    "books": CARD.replaced(license="MIT", review_release="refused", personal_data="masked", origin="a library"),
}
SETS = {"think": ("web", "books"), "reason": ()}


def test_sets_carry_the_strictest_terms_of_their_sources() -> None:
    tokens = {"web": 60, "think": 30, "reason": 10, "books": 0}
    statistics = {"by_source": {name: {"tokens": count} for name, count in tokens.items()}}
    rows = data_card(statistics, CARDS, lambda names: origins(names, CARDS, SETS))
    assert [(row["source"], row["tokens"], row["share"]) for row in rows] == [
        ("web", 60, 0.6), ("think", 30, 0.3), ("reason", 10, 0.1),
    ]  # fmt: skip
    web, think, reason = rows
    assert (web["licence"], web["made_from"], web["release"], web["origin"]) == ("CC-BY-4.0", [], "approved", "a crawl")
    assert (think["licence"], think["made_from"]) == ("CC-BY-4.0 AND MIT", ["books", "web"])
    assert (think["release"], think["training"], think["personal_data"]) == ("refused", "approved", "masked")
    assert (reason["licence"], reason["made_from"], reason["release"]) == ("generated", [], "approved")


def test_the_page_shows_benchmarks_and_their_most_quoted_items() -> None:
    facts = {"decontaminate": {"mmlu": {"items": 9, "too_short": 2, "items_quoted": 1, "documents": 41}}}
    record = Record("clean-2", "stages.clean", 1, "f", {}, {}, {}, {}, {}, facts, {})
    quoted = ({"item": "mmlu.jsonl:7", "record": "q<7>", "field": "question", "documents": 41},)
    step = StepFacts("clean-2", "stages.clean", "clean-2-f", record, quoted_items=quoted)
    page = str(contamination_section(Gathered((step,), (), {})))
    assert all(text in page for text in ("mmlu.jsonl:7", "q&lt;7&gt;", ">41<", ">9<", ">2<"))
    assert "No finished step" in str(contamination_section(Gathered((), (), {})))
