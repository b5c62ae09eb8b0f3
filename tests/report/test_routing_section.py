"""Experts in the report: the file's own figures, groups that others could mistake for HTML, and age told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.files import write_json
from pipeline.core.runlog import ROUTING_VERSION
from pipeline.report.gather import Gathered, gather
from pipeline.report.routing import routing_section
from report_page import Page


def layer(number: int, bits: float, loss_without: list[float] | None) -> dict[str, Any]:
    return {
        "layer": number,
        "specialisation_bits": bits,
        "interval": [bits - 0.1, bits + 0.2],
        "share_by_group": {"ko": [0.7, 0.2, 0.1], "<en>": [0.1, 0.3, 0.6]},
        "together": [[1.0, 0.25, 0.75], [0.5, 1.0, 0.5], [0.8, 0.2, 1.0]],
        "loss_without": loss_without,
    }


ANALYSIS = {
    "version": ROUTING_VERSION,
    "phase": "pretrain-1", "kind": "languages", "checkpoint": "0123", "step": 7, "segment": "pretrain-1", "rows": 32,
    "loss_rows": 4,
    "layers": [layer(1, 0.125, None), layer(2, 0.5, [0.25, -0.0625, 0.0])],
}  # fmt: skip


@pytest.fixture(scope="module")
def gathered(store: Any) -> Gathered:
    return gather(store.root, store.graph, store.phases, store.cards)


def test_figures_are_the_files(gathered: Gathered) -> None:
    section = routing_section(replace(gathered, routing=(ANALYSIS,)))
    assert "32 rows of pretrain-1" in section
    assert "over the first 4 of the rows" in section
    page = Page(section)
    points = page.figures["specialisation-0"]["data"][0]
    assert (points["x"], points["y"]) == (["1", "2"], [0.125, 0.5])
    assert points["error_y"]["array"] == pytest.approx([0.2, 0.2])
    assert points["error_y"]["arrayminus"] == pytest.approx([0.1, 0.1])
    shares = page.figures["shares-0"]["data"][0]
    assert shares["y"] == ["ko", "&lt;en&gt;"]
    assert shares["z"] == [[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]]
    worth = page.figures["worth-0"]["data"][0]
    assert (worth["y"], worth["z"]) == (["2"], [[0.25, -0.0625, 0.0]])
    together = page.figures["together-0"]["data"][0]["z"]
    assert together[0] == [None, 0.25, 0.75]
    row = page.row("Experts by layer and group, pretrain-1, languages", "2", "0.5000", "0.4000", "0.7000", "<en>")
    assert row[5:] == ["2", "60.0 %", "10.0 %"]


def test_an_analysis_of_an_earlier_checkpoint_is_told(gathered: Gathered) -> None:
    last = max(line["step"] for line in gathered.phases[0].lines)
    old, new = (routing_section(replace(gathered, routing=({**ANALYSIS, "step": step},))) for step in (7, last))
    assert f"gone on to step {last}" in old
    assert "gone on" not in new


def test_files_are_found_in_the_order_of_phases(store: Any, tmp_path: Path) -> None:
    for phase in ("extend-1", "pretrain-1", "of-another-curriculum"):
        write_json(tmp_path / "routing" / f"{phase}-languages.json", {**ANALYSIS, "phase": phase})
    write_json(tmp_path / "routing" / "pretrain-1-domains.json", {"phase": "pretrain-1", "layers": []})  # of version 1
    found = gather(
        tmp_path, replace_root(store.graph, tmp_path), [replace(one, segments=(), train=None) for one in store.phases]
    )
    assert [one["phase"] for one in found.routing] == ["pretrain-1", "extend-1"]


def replace_root(graph: Any, root: Path) -> Any:
    return type(graph)(root, [node.step for node in graph.nodes.values()])


def test_without_an_analysis_the_page_says_how_to_make_one(gathered: Gathered) -> None:
    assert "seodang routing" in routing_section(gathered)
