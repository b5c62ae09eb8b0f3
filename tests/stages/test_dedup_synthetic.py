"""Copies within a finished synthetic set: found over shards by what the maker wrote, each naming the sample kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.config import Config
from pipeline.core.documents import (
    document_id,
    read_documents,
    read_dropped,
    table_from_rows,
    text_hash,
    write_documents,
)
from pipeline.core.record import Record, read_record, write_record
from pipeline.core.steps import Step
from pipeline.core.written import WRITTEN, woven, written_text
from pipeline.executors import LocalExecutor
from pipeline.graph import Graph, Silent
from pipeline.recipe import open_curriculum
from stages.dedup.synthetic import Method, set_parts

ROOT = Path(__file__).resolve().parents[2]
WORDS = ["lock", "water", "gate", "boat", "keeper", "rope", "ladder", "stone", "river", "mill", "wheel", "barge"]


def words(seed: int, count: int) -> str:
    dice = Random(seed)
    return " ".join(f"{dice.choice(WORDS)}{dice.randrange(60)}" for _ in range(count))


def sample(name: str, document: str, thought: str) -> dict[str, Any]:
    text, spans = woven([(document, False), (thought, True)], "\n\n")
    columns = {"id": document_id("think", name), "text": text, "text_hash": text_hash(text), "source": "think"}
    return {**columns, "lang": "en", "license": "MIT", "extra": json.dumps({WRITTEN: spans})}


@given(parts=st.lists(st.tuples(st.text(max_size=5), st.booleans()), max_size=6), joint=st.text(max_size=3))
def test_spans_give_back_what_was_written(parts: list[tuple[str, bool]], joint: str) -> None:
    text, spans = woven(parts, joint)
    assert text == joint.join(part for part, _ in parts)
    assert [text[start:end] for start, end in spans] == [part for part, ours in parts if ours]
    expected = "\n".join(part for part, ours in parts if ours) if spans else text
    assert written_text(text, json.dumps({WRITTEN: spans})) == expected


def test_a_sample_without_spans_was_written_as_a_whole() -> None:
    assert written_text("all", None) == written_text("all", '{"layout": "pairs-only"}') == "all"


def distinct(
    tmp_path: Path, shards: Sequence[Sequence[dict[str, Any]]], method: Method
) -> tuple[list[str], dict[str, str], set[str]]:
    """(ids kept, dropped id -> kept one, reasons) of a set that went through all its steps."""
    graph = Graph(tmp_path, [Step("synth.think", "test.given", 1, Config(), {}, "")])
    given = graph.node("synth.think")
    for number, rows in enumerate(shards):
        write_documents(given.folder, number, table_from_rows(rows))
    write_record(
        given.folder, Record("synth.think", "test.given", 1, given.fingerprint, {}, {}, {}, {}, {}, {}, {}), {}
    )
    for part in set_parts("think", method):
        inputs = {**({"documents": "synth.think"} if part.reads_documents else {}), **part.after}
        graph.add(Step(part.name, part.kind, part.version, part.config, inputs, part.work))
    graph.run(["distinct.think"], LocalExecutor(1), Silent())
    folder = graph.node("distinct.think").folder
    kept = [identity for table in read_documents(folder) for identity in table["id"].to_pylist()]
    gone = [row for table in read_dropped(folder) for row in table.to_pylist()]
    counts = read_record(folder).counts
    assert counts["documents_in"] == counts["documents_out"] + len(gone)
    return kept, {row["id"]: row["detail"] for row in gone}, {row["reason"] for row in gone}


def planted() -> list[list[dict[str, Any]]]:
    """Four shards: one document with two different thoughts, three documents with nearly the same thought."""
    same = words(1, 120)
    changed = same.replace(same.split()[40], "altered")
    return [
        [sample("a", words(10, 300), same), sample("b", words(11, 300), words(2, 120))],
        [sample("c", words(12, 300), changed)],
        [sample("d", words(10, 300), words(3, 120))],  # the document of `a`, another thought
        [sample("e", words(13, 310), same), sample("f", words(14, 300), words(4, 120))],
    ]


def test_planted_near_duplicate_traces_go_and_thoughts_on_one_document_stay(tmp_path: Path) -> None:
    kept, gone, reasons = distinct(tmp_path, planted(), "minhash")
    identity = {name: document_id("think", name) for name in "abcdef"}
    assert reasons == {"guard.near_duplicate"}
    assert len(kept) == 4
    assert {identity[name] for name in "bdf"} < set(kept)
    (winner,) = set(kept) - {identity[name] for name in "bdf"}
    assert gone == {identity[name]: winner for name in "ace" if identity[name] != winner}


def test_equal_samples_go_and_templated_ones_stay(tmp_path: Path) -> None:
    problem = words(5, 200)
    rows = [
        sample(name, problem, f"The answer is {number}.") for name, number in zip("pqrs", (1, 2, 1, 3), strict=True)
    ]
    kept, gone, reasons = distinct(tmp_path, [rows[:2], rows[2:]], "exact")
    assert reasons == {"guard.duplicate"}
    assert len(kept) == 3
    assert sorted((*kept, *gone)) == sorted(row["id"] for row in rows)


def test_how_samples_are_spread_over_shards_changes_nothing(tmp_path: Path) -> None:
    shards = planted()
    one = distinct(tmp_path / "one", [[row for shard in shards for row in shard]], "minhash")
    assert one == distinct(tmp_path / "four", shards, "minhash")


def test_parts_of_a_set_have_names_of_their_own() -> None:
    methods: tuple[Method, ...] = ("exact", "minhash")
    for method in methods:
        names = [part.name for part in set_parts("minhash", method)]
        assert names == [
            "signatures.synth.minhash", "pairs.synth.minhash", "forests.synth.minhash", "clusters.synth.minhash",
            "distinct.minhash",
        ]  # fmt: skip
    assert pytest.approx(0.65) == set_parts("x", "minhash")[1].config.model_dump()["minimum_similarity"]


def test_the_choice_of_copies_makes_no_sample_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for name in ("reason", "search"):  # a search set's index stands before its samples
        by_choice = {}
        for choice in ("none", "exact", "minhash"):
            overrides = [f"store={tmp_path}", f"synth.{name}.deduplicate={choice}"]
            graph = open_curriculum(Path("tests/golden.yaml"), overrides).graph
            by_choice[choice] = graph.node(f"synth.{name}").fingerprint
            assert (f"distinct.{name}" in graph.nodes) is (choice != "none")
            before = graph.node(f"guard.{name}").step.inputs["documents"]
            assert before == (f"synth.{name}" if choice == "none" else f"distinct.{name}")
        assert len(set(by_choice.values())) == 1
