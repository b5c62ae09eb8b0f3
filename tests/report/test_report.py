"""The report page: every section's figures exactly, hostile text, missing parts, nothing loaded from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixes.loader import MixLoader
from pipeline.core.record import read_record
from pipeline.core.runlog import read_lines
from pipeline.graph import Graph
from pipeline.report.charts import label, smoothed, thinned
from pipeline.report.composition import amounts
from pipeline.report.consumed import consumed_composition
from pipeline.report.funnel import flows, funnel_steps, totals
from pipeline.report.gather import Gathered, PhaseView, StepFacts, Tally, gather
from pipeline.report.markup import Share, percent, shown, tag
from pipeline.report.page import POLICY, SECTIONS, render, write_page
from report_page import Page

WHEN = datetime(2025, 3, 14, 15, 9, tzinfo=UTC)

SYNTHETIC = "Synthetic share by language, domain, source and maker"


@pytest.fixture(scope="module")
def gathered(store: Any) -> Gathered:
    return gather(store.root, store.graph, store.phases, store.cards)


@pytest.fixture(scope="module")
def page(store: Any, gathered: Gathered) -> Page:
    return Page(render(store.root, "quickstart", gathered, WHEN))


def test_funnel_shows_every_step_and_source_with_nothing_unaccounted(page: Page) -> None:
    assert page.row("Documents by step", "clean.web-ko") == ["clean.web-ko", "480", "0", "130", "27.1 %", "350", "0"]
    assert page.row("Documents by step", "dedup.minhash") == [
        "dedup.minhash",
        "1,205",
        "0",
        "30",
        "2.5 %",
        "1,175",
        "0",
    ]
    assert page.row("Documents by source", "web-ko") == ["web-ko", "480", "0", "140", "29.2 %", "340", "0"]
    # 7 cleaned away, 10 duplicates, 4 held out by a step that records nothing by source
    assert page.row("Documents by source", "notes") == ["notes", "75", "0", "21", "28.0 %", "54", "0"]
    assert page.row("Documents by language", "en") == ["en", "987", "0", "156", "15.8 %", "831", "0"]
    assert page.row("Documents dropped, by reason", "rules.gopher_short")[1] == "185"
    assert page.row("Documents dropped, by reason and source", "split.held_out") == ["split.held_out", "0", "0", "4"]
    assert page.row("Synthetic documents by step", "synth.reason") == ["synth.reason", "140", "20", "120"]


def test_funnel_chart_adds_up_to_what_was_read(page: Page) -> None:
    bars = page.figures["funnel-source"]["data"]
    assert bars[0]["name"] == "kept"
    assert [sum(column) for column in zip(*(bar["x"] for bar in bars), strict=True)] == [912, 480, 75]


def test_splitting_steps_gain_documents(gathered: Gathered) -> None:
    step = next(step for step in gathered.steps if step.name == "clean.notes")
    assert step.record is not None
    tally = replace(step.by_source["notes"], documents_in=70, documents_out=68, dropped={"rules.short": 5})
    counts = {"documents_in": 70, "documents_out": 68, "documents_split": 3}
    split = replace(step, record=replace(step.record, counts=counts), by_source={"notes": tally})
    flow = flows([(split, split.by_source)])["notes"]
    assert (flow.read, flow.gained, flow.out, flow.unaccounted) == (70, 3, 68, 0)


def test_a_step_that_loses_documents_in_silence_is_shown(gathered: Gathered) -> None:
    step = next(step for step in gathered.steps if step.name == "clean.notes")
    lossy = replace(step, by_source={"notes": replace(step.by_source["notes"], documents_out=60)})
    assert flows([(lossy, lossy.by_source)])["notes"].unaccounted == 8


def test_two_stages_side_by_side_are_read_once(gathered: Gathered) -> None:
    """Each source goes through `clean` and then `filter`; a language is in several sources."""
    step = next(step for step in gathered.steps if step.name == "clean.notes")
    assert step.record is not None
    record = replace(step.record, counts={"documents_in": 0, "documents_out": 0})

    def made(name: str, read: int, out: int) -> tuple[StepFacts, dict[str, Tally]]:
        counted = replace(
            step.by_source["notes"], documents_in=read, documents_out=out, dropped={"rules.x": read - out}
        )
        return replace(step, name=name, record=record), {"ko": counted}

    flow = flows([made("clean.a", 10, 9), made("clean.b", 5, 5), made("filter.a", 9, 7), made("filter.b", 5, 4)])["ko"]
    assert (flow.read, flow.out, flow.unaccounted) == (15, 11, 0)


def test_consumed_equals_what_the_loader_serves(store: Any, gathered: Gathered) -> None:
    """The second phase stopped in the middle: consumed tokens by group against the loader's own batches."""
    plan = store.plans["extend-1"]
    segment = plan.segments[-1]
    phase = gathered.phases[1]
    assert 0 < phase.consumed_rows < segment.rows
    batch = MixLoader(plan).batch(segment.first_row, phase.consumed_rows)
    pieces = batch.pieces
    for group, ids, names in (
        ("source", pieces.source_P, batch.sources),
        ("component", pieces.component_P, batch.components),
        ("lang", pieces.language_P, batch.languages),
        ("domain", pieces.domain_P, batch.domains),
    ):
        tokens = np.bincount(ids, weights=pieces.length_P, minlength=len(names)).astype(int)
        expected = {name: int(count) for name, count in zip(names, tokens, strict=True) if count}
        assert {name: amount.consumed for name, amount in amounts(phase, group).items() if amount.consumed} == expected
    logged: dict[str, int] = {}
    for line in phase.lines:
        for name, tokens in line["tokens_by_source"].items():
            logged[name] = logged.get(name, 0) + tokens
    assert {name: amount.consumed for name, amount in amounts(phase, "source").items() if amount.consumed} == logged


def test_all_rows_served_is_the_plan(store: Any, gathered: Gathered) -> None:
    plan = store.plans["pretrain-1"]
    stats = gathered.phases[0].segments[0].stats
    found = consumed_composition(plan, plan.segments[0], plan.segments[0].rows)
    for group, names in found.items():
        assert dict(names) == {name: part["tokens"] for name, part in stats[f"by_{group}"].items()}
    assert consumed_composition(plan, plan.segments[0], 0)["source"] == {}


def test_composition_tables_hold_the_statistics_to_the_token(page: Page, gathered: Gathered) -> None:
    titles = {"component": "component", "source": "source", "lang": "language", "license": "licence", "maker": "maker"}
    for phase in gathered.phases[:2]:
        stats = phase.segments[0].stats
        for group, title in titles.items():
            for name, part in stats[f"by_{group}"].items():
                row = page.row(f"Tokens by {title}", phase.view.name, name)
                assert f"{part['tokens']:,}" in row[2:4], row
                assert row[-3:-1] == [f"{part['unique_tokens']:,}", f"{part['documents']:,}"]
        asked = {source: target["asked"] for source, target in stats["targets"].get("code", {}).items()}
        for source, tokens in asked.items():
            assert page.row("Tokens by source", phase.view.name, source)[2] == f"{tokens:,}"
    overview = page.row("Tokens by phase", "extend-1")
    stats = gathered.phases[1].segments[0].stats
    assert overview[4:6] == [f"{stats['tokens']:,}", f"{stats['unique_tokens']:,}"]
    assert overview[-1] == f"{100 * stats['synthetic_share']:.1f} %"
    for group, title in (("lang", "language"), ("domain", "domain"), ("source", "source")):
        for name, part in stats[f"by_{group}"].items():
            rows = [row for row in page.tables[SYNTHETIC] if row[:3] == ["extend-1", title, name]]
            share = f"{100 * part['synthetic_tokens'] / part['tokens']:.1f} %"
            assert rows == ([["extend-1", title, name, f"{part['synthetic_tokens']:,}", share]] if rows else [])
            assert bool(rows) is (part["synthetic_tokens"] > 0)
    makers = [row for row in page.tables[SYNTHETIC] if row[:2] == ["extend-1", "maker"]]
    total = sum(int(row[3].replace(",", "")) for row in makers)
    assert total == round(stats["synthetic_share"] * stats["tokens"]) > 0
    bars = page.figures["composition-source"]["data"]
    assert [sum(column) for column in zip(*(bar["x"] for bar in bars), strict=True)] == pytest.approx([100, 100])


def test_lengths_and_packing(page: Page, gathered: Gathered) -> None:
    stats = gathered.phases[0].segments[0].stats
    row = page.row("Packing by segment", "pretrain-1")
    assert row[1:5] == [f"{stats[key]:,}" for key in ("rows", "context_tokens", "tokens", "padding_tokens")]
    assert row[-2] == f"{stats['cut_documents']:,}"
    counts = page.figures["lengths-0"]["data"][0]
    assert dict(zip(counts["x"], counts["y"], strict=True)).get("64") == stats["document_lengths"]["64"]
    assert page.row("Drawn documents by length", "64-127")[1] == f"{stats['document_lengths']['64']:,}"
    excluded = [row for row in page.tables["Documents excluded from mixes"] if row[0] == "extend-1"]
    assert sum(int(row[4].replace(",", "")) for row in excluded) > 0


def test_training_table_holds_the_log(store: Any, page: Page) -> None:
    lines = list(read_lines(store.root / store.phases[1].train / "train.jsonl"))
    row = page.row("Training by phase", "extend-1")
    assert row[1] == str(len(lines)) == "11"
    assert row[2] == f"{sum(line['tokens'] for line in lines):,}"
    assert row[3] == f"{lines[0]['loss']:.4f}"  # the first tenth of eleven steps is one
    assert row[4] == f"{lines[-1]['loss']:.4f}"
    raw = page.figures["loss"]["data"][2]  # raw and smoothed of the first phase come before
    assert raw["y"] == [line["loss"] for line in lines]
    met = sum("reason" in line["loss_by_source"] for line in lines)
    assert page.row("Loss by source, mean over steps", "extend-1", "reason")[2] == str(met)


def test_gates_show_every_round(page: Page) -> None:
    assert page.row("Verdicts by phase and round", "extend-1", "0")[2:8] == [
        "red", "512", "28.7 %", "5.0 %", "99.0 %", "2.3125",
    ]  # fmt: skip
    assert page.row("Verdicts by phase and round", "extend-1", "1")[2:5] == ["green", "512", "100.0 %"]
    assert page.figures["needles-0"]["data"][0]["z"][0] == [0.75, 0.5, 0.25, 0.5, 1.0]
    assert page.row("Needles by length and depth, extend-1, round 0", "512", "100 %")[2] == "25.0 %"
    assert page.row("Needles by language, extend-1, round 0", "ko")[1] == "62.5 %"
    assert "needles found: 5.0% at 512 tokens; 99.0% needed at every length" in page.sections["gates"]
    assert "2.3125 nats per token, 2.3000 before (+0.54 %), 2.3230 allowed" in page.sections["gates"]


def test_card_and_tokenizer(store: Any, page: Page, gathered: Gathered) -> None:
    text = page.sections["card"]
    for source, card in store.cards.items():
        assert f"Source card: {source}" in text
        for value in card.model_dump().values():
            assert str(value) in text
    planned = sum(
        phase.segments[0].stats["by_license"].get("PSF-2.0", {"tokens": 0})["tokens"] for phase in gathered.phases[:2]
    )
    assert page.row("Documents and tokens by licence", "PSF-2.0")[1:3] == ["260", f"{planned:,}"]
    assert page.row("Sources and their reviews", "web-ko")[6:8] == ["480", "340"]
    tokens = read_record(store.graph.node("encode.clean").folder).counts["tokens"]
    both = [
        read_record(store.graph.node(name).folder).facts["tokens_by_language"]
        for name in ("encode.clean", "encode.reason")
    ]
    assert page.row("Encoded tokens by language", "ko")[1] == f"{both[0]['ko'] + both[1]['ko']:,}"
    assert page.row("Encoded documents", "encode.clean")[3] == f"{tokens:,}"


def test_summary_line(page: Page, gathered: Gathered) -> None:
    assert totals(funnel_steps(gathered))[:2] == (1467, 1171)
    assert "1,467 documents were read and 1,171 kept (79.8 %)" in page.sections["summary"]
    assert "1 of 1 gated phases ended on green" in page.sections["summary"]
    assert page.row("Phases", "extend-2")[3:] == ["–", "–", "no gate", "not trained yet"]
    assert page.row("Steps", "mix.extend-2")[3] == "not run yet"


def test_missing_parts_are_named(tmp_path: Path, page: Page, empty_graph: Callable[[Path], Graph]) -> None:
    assert "No mix has been made yet for: extend-2." in page.sections["composition"]
    assert "Not trained yet: extend-2." in page.sections["losses"]
    graph = empty_graph(tmp_path)
    views = (PhaseView("pretrain-1", 256, 1000, (graph.node("mix.pretrain-1").folder.name,), "train.none"),)
    empty = Page(render(tmp_path, "empty", gather(tmp_path, graph, views), WHEN))
    for section, sentence in {
        "summary": "Nothing has been run yet.",
        "funnel": "No cleaning step has been run yet.",
        "composition": "No mix has been made yet for: pretrain-1.",
        "lengths": "No mix has been made yet.",
        "losses": "Not trained yet: pretrain-1.",
        "gates": "No gate has been run yet.",
        "classifiers": "No finished step scores documents.",
        "tokenizer": "No tokenizer has been trained or taken over yet.",
        "card": "No source cards were given to this page.",
    }.items():
        assert sentence in empty.sections[section]
    assert empty.figures == {}


def test_classifiers_are_shown_once_with_curve_buckets_and_examples(store: Any, gathered: Gathered) -> None:
    curve = {
        "false_positive_rate": [0.0, 0.25, 1.0],
        "true_positive_rate": [0.0, 0.75, 1.0],
        "area": 0.75,
        "brier": 0.1,
    }
    ko = {
        "documents": {"train": {"positive": 80, "negative": 80}, "report": {"positive": 10, "negative": 12}},
        "labels": {"positive": curve, "negative": curve},
        "right": 0.9,
        "buckets": [{"bucket": 0, "documents": 12, "positive": 0.125}, {"bucket": 1, "documents": 10, "positive": 1.0}],
        "sheet": [
            {"kind": "right", "taken_for": "positive", "is": "positive", "chance": 0.99, "text": "수문이 열린다"},
            {"kind": "wrong", "taken_for": "positive", "is": "negative", "chance": 0.5, "text": HOSTILE},
        ],
    }
    scored = [
        replace(step, record=replace(step.record, facts={"classifier": {"quality": {"languages": {"ko": ko}}}}))
        for step in gathered.steps[:2]
        if step.record is not None
    ]
    found = Page(render(store.root, "x", replace(gathered, steps=tuple(scored)), WHEN))
    assert found.tables["Classifier quality"][1:] == [
        ["ko", "positive", "10", "0.750", "0.100", "0.900"],
        ["ko", "negative", "12", "0.750", "0.100", "0.900"],
    ]
    assert found.tables["Buckets of quality"][1:] == [["ko", "0", "12", "12.5 %"], ["ko", "1", "10", "100.0 %"]]
    assert [row[1] for row in found.tables["Example sheets of quality"][1:]] == ["wrong", "right"]
    assert found.tables["Example sheets of quality"][1][5] == HOSTILE
    (line,) = found.figures["roc-quality"]["data"]
    assert (line["name"], line["x"], line["y"]) == ("ko positive", [0.0, 0.25, 1.0], [0.0, 0.75, 1.0])


HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>&amp;\"'`%{x}"


def test_hostile_text_stays_text(store: Any, gathered: Gathered, page: Page) -> None:
    step = gathered.steps[0]
    assert step.record is not None
    record = replace(step.record, dropped={HOSTILE: 130})
    tally = replace(step.by_source["web-ko"], dropped={HOSTILE: 130})
    evil = replace(
        step, name=f"clean.{HOSTILE}", record=record, by_source={HOSTILE: tally}, by_language={HOSTILE: tally}
    )
    phase = gathered.phases[1]
    lines = tuple({**line, "loss_by_source": {HOSTILE: 1.0}} for line in phase.lines)
    gate = {**phase.gates[0], "phase": HOSTILE, "reasons": [HOSTILE]}
    worse = replace(phase, view=replace(phase.view, name=HOSTILE), lines=lines, gates=(gate,))
    card = store.cards["notes"].model_copy(update={"origin": HOSTILE})
    hostile = Gathered((evil, *gathered.steps[1:]), (gathered.phases[0], worse), {HOSTILE: card})
    found = Page(render(store.root, HOSTILE, hostile, WHEN))
    assert found.elements.count("script") == len(found.figures) + 2  # plotly and ours
    assert "img" not in found.elements
    assert HOSTILE in found.sections["card"]
    assert page.row("Documents by step", "clean.notes") == found.row("Documents by step", "clean.notes")
    names = [trace.get("name", "") for figure in found.figures.values() for trace in figure["data"]]
    assert not any("<" in name for name in names)
    assert any("&lt;/script&gt;" in name for name in names)


def test_page_loads_nothing(page: Page, store: Any, gathered: Gathered, tmp_path: Path) -> None:
    assert page.loaded == []
    path = tmp_path / "report.html"
    write_page(store.root, path, "quickstart", gathered)
    html = path.read_text(encoding="utf-8")
    assert f'content="{escape(POLICY)}"' in html
    assert POLICY.startswith("default-src 'none';")
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    own = html[: html.index("<noscript>")]  # all but the scripts at the end
    assert not re.search(r"https?:", own)


def test_same_run_gives_the_same_bytes(store: Any, gathered: Gathered) -> None:
    again = gather(store.root, store.graph, store.phases, store.cards)
    assert render(store.root, "q", again, WHEN) == render(store.root, "q", gathered, WHEN)


def test_every_link_and_chart_has_its_place(page: Page) -> None:
    assert set(page.sections) == {name for name, _, _ in SECTIONS}
    assert len(set(page.ids)) == len(page.ids)
    assert {f"chart-{name}" for name in page.figures} == {name for name in page.ids if name.startswith("chart-")}
    assert page.targets == {f"#{name}" for name in page.sections}


@given(st.text())
def test_tag_escapes_what_is_not_markup(text: str) -> None:
    parser = Page(f"<section id='s'>{tag('p', text, id=text)}</section>")
    assert parser.elements == ["section", "p"]
    assert parser.sections.get("s", "") == text
    assert parser.ids[1:] == ([text] if text else [])


@given(st.lists(st.floats(min_value=-100, max_value=100), max_size=3000))
def test_smoothing_and_thinning_stay_inside(values: list[float]) -> None:
    assert len(smoothed(values)) == len(values)
    assert len(thinned(values)) <= 1000
    if values:
        for found in (smoothed(values), thinned(values)):
            assert min(values) - 1e-6 <= min(found)
            assert max(found) <= max(values) + 1e-6
        assert smoothed(values)[0] == pytest.approx(values[0], abs=1e-9)


def test_smoothing_does_not_lag() -> None:
    assert smoothed([0.0, 1.0, 2.0, 3.0, 4.0]) == pytest.approx([0.0, 1.0, 2.0, 3.0, 4.0])
    assert smoothed([0.0, 3.0, 0.0]) == pytest.approx([0.0, 1.0, 0.0])


def test_numbers_are_shown_for_people() -> None:
    assert [shown(cell) for cell in (1234567, 0.12345678, 3e-05, 2.0, None, Share(1, 8))] == [
        "1,234,567", "0.1235", "3e-05", "2", "–", "12.5 %",
    ]  # fmt: skip
    assert [percent(Share(part, 10_000)) for part in (0, 1, 9_999, 10_000)] == [
        "0.0 %",
        "< 0.1 %",
        "> 99.9 %",
        "100.0 %",
    ]
    assert percent(Share(1, 0)) == "–"
    assert label("<b>&") == "&lt;b&gt;&amp;"
