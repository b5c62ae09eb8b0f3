"""Inside the mixes: repeats, overlap, balance, the audit and sample rows, exactly."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mixes.overlap import shared_documents
from pipeline.report.gather import Gathered, gather
from pipeline.report.mix_details import PhaseDetails, Piece, SampleRow
from pipeline.report.mixes import mixes_section, times_seen
from report_page import Page


@pytest.fixture(scope="module")
def gathered(store: Any) -> Gathered:
    return gather(store.root, store.graph, store.phases)


def test_repeats_are_those_of_the_statistics(gathered: Gathered) -> None:
    for phase in gathered.phases[:2]:
        counts = phase.segments[0].stats["draws_by_times_seen"]
        assert sum(times_seen(phase).values()) == sum(counts.values())
        assert times_seen(phase)[1] == counts.get("1", 0)
        assert times_seen(phase)[5] == sum(count for times, count in counts.items() if int(times) >= 5)


def test_overlap_and_audit_are_the_functions_own(store: Any, gathered: Gathered) -> None:
    page = Page(mixes_section(gathered))
    tables = {caption: rows[1:] for caption, rows in page.tables.items()}  # without their headings
    first, second = store.plans["pretrain-1"], store.plans["extend-1"]
    shared = shared_documents((first, first.segments[0]), (second, second.segments[1]))
    rows = {row[1]: row for row in tables["Documents in both phases"]}
    for component, found in shared.items():
        assert rows[component][3] == f"{found['all'].documents:,}"
        assert rows[component][5] == f"{found['all'].tokens:,}"
    assert rows["rehearsal"][2] == "pretrain-1"
    audits = tables["The run log against the plan, step by step and source by source"]
    assert [row[0] for row in audits] == ["pretrain-1", "extend-1"]
    assert {row[-1] for row in audits} == {"equal"}
    assert audits[0][3] == f"{first.segments[0].tokens:,}"
    balance = tables["Attention cost of the busiest rank over the mean"]
    assert [row[:2] for row in balance] == [
        ["pretrain-1", "2"],
        ["pretrain-1", "4"],
        ["extend-1", "2"],
        ["extend-1", "4"],
    ]
    assert "Rows are shown once the tokenizer is there." in mixes_section(gathered)


def test_text_of_documents_is_never_markup(gathered: Gathered) -> None:
    hostile = Piece("web", "ko", "0123456789abcdef", 7, "<script>alert(1)</script>" + "x" * 900)
    row = SampleRow(12, (hostile, hostile), 3)
    details = (PhaseDetails("one", {}, {}, None, (row,)),)
    html = mixes_section(replace(gathered, details=details))
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert(1)" in html
    assert "405 characters" in html
    assert "Position 12: 2 documents, 3 tokens of padding" in html
    assert 'class="piece piece-1"' in html
