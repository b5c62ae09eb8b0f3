"""Signals once, rules later: a step that measures, a step that judges, and what a changed threshold re-runs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipeline.commands.tune import show_tuning
from pipeline.core.config import Located
from pipeline.core.documents import read_documents, read_dropped
from pipeline.core.errors import ConfigError, InputError
from pipeline.core.record import Record
from pipeline.executors import LocalExecutor
from pipeline.graph import Silent
from pipeline.recipe import Opened, open_curriculum
from stages.catalog import block_config
from stages.listed import ListedBlock, cut_at_rules, filter_name
from stages.read import read_parts
from stages.rows import Origin
from stages.rules import Rules, RulesConfig
from stages.sources import files_of, shard_parts
from stages.stored_signals import StoredSignals

ROOT = Path(__file__).parents[2]
CARD = """
origin: invented
license: CC-BY-4.0
basis: own work
collected: "2025-01-01"
opt_out: none
contact: x@example.org
"""
ENGLISH = (
    "The river runs past the old mill, and the people of village {n} have walked there with their dogs since spring. "
    "Nobody knows who built the stone bridge, but an entry in the parish book names a carpenter from the next valley. "
    "On market days carts used to wait in a long queue, which is why the inn beside it has such a wide yard."
)
TEXTS = [
    *(ENGLISH.format(n=n) for n in range(6)),
    *(ENGLISH.format(n=n) + "\nWrite to me at someone@example.org about it." for n in range(6, 9)),
    "It was late, and the two of them walked back to the house with a lamp between them.",
    "buy the best now and be glad of it " * 60,
    "\n".join(f"* the item that is number {n} of this list and of that one" for n in range(40)),
]


def opened(tmp_path: Path, clean: Sequence[Any], *settings: str) -> Opened:
    """A curriculum over one source; only its cleaning matters here."""
    data = tmp_path / "data"
    data.mkdir(exist_ok=True)
    for number in range(3):
        rows = [json.dumps({"id": f"d{n}", "text": text}) for n, text in enumerate(TEXTS) if n % 3 == number]
        (data / f"{number}.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (tmp_path / "card.yaml").write_text(CARD)
    written = yaml.safe_load((ROOT / "tests" / "golden.yaml").read_text())
    read = {"kind": "jsonl", "paths": [str(data / "*.jsonl")], "shard_bytes": 1500}  # shards without a line among them
    written |= {
        "store": str(tmp_path / "store"),
        "sources": {"web": {"read": read, "card": str(tmp_path / "card.yaml")}},
        "clean": list(clean),
        "synth": {},
        "mixes": {name: {"components": {"web": {"from": ["web"], "weight": 1}}} for name in written["mixes"]},
    }
    path = tmp_path / "curriculum.yaml"
    path.write_text(yaml.safe_dump(written, sort_keys=False))
    return open_curriculum(path, settings)


def run(one: Opened, step: str) -> Record:
    return one.graph.run([step], LocalExecutor(1), Silent())[-1]


CLEAN = [{"normalise": {}}, {"language": {"keep": ["en"]}}, {"rules": {}}, {"pii": {}}]


def test_a_threshold_leaves_the_measuring_step_and_remakes_the_judging_one(tmp_path: Path) -> None:
    before = opened(tmp_path, CLEAN)
    assert list(before.graph.nodes)[:2] == ["clean.web", "filter.web"]
    changed = [*CLEAN[:2], {"rules": {"thresholds": {"en": {"gopher_too_short": 5}}}}, CLEAN[3]]
    after = opened(tmp_path, changed)
    same, other = (
        [one.graph.node(name).fingerprint for one in (before, after)] for name in ("clean.web", "filter.web")
    )
    assert same[0] == same[1]
    assert other[0] != other[1]
    assert opened(tmp_path, [*CLEAN[:2], {"rules": {"preset": "c4"}}]).graph.node("clean.web").fingerprint == same[0]
    assert "filter.web" not in opened(tmp_path, [*CLEAN[:2], CLEAN[3]]).graph.nodes


def test_a_changed_threshold_reads_no_source_again_and_changes_only_its_verdicts(tmp_path: Path) -> None:
    first = run(opened(tmp_path, CLEAN), "filter.web")
    assert first.dropped == {
        "rules.gopher_top_3_gram": 1,
        "rules.gopher_too_short": 1,
        "rules.gopher_top_4_gram": 1,
    }
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    (tmp_path / "data").mkdir()
    for file in (tmp_path / "elsewhere").iterdir():
        (tmp_path / "data" / file.name).write_bytes(file.read_bytes())
    changed = [*CLEAN[:2], {"rules": {"thresholds": {"en": {"gopher_too_short": 5}}}}, CLEAN[3]]
    again = opened(tmp_path, changed)
    before = (again.graph.node("clean.web").folder / "record.json").stat().st_mtime_ns
    for file in (tmp_path / "data").iterdir():
        file.unlink()  # whoever would read them again would fail
    second = run(again, "filter.web")
    assert (again.graph.node("clean.web").folder / "record.json").stat().st_mtime_ns == before
    assert second.counts["documents_in"] == first.counts["documents_in"] == len(TEXTS)
    assert second.counts["documents_out"] == first.counts["documents_out"] + 1
    assert second.dropped == {"rules.gopher_top_3_gram": 1, "rules.gopher_top_4_gram": 1}
    assert first.counts["pii.email"] == second.counts["pii.email"] == 3


@pytest.mark.parametrize("rules", [{}, {"preset": "c4"}, {"thresholds": {"en": {"gopher_too_short": 60}}}])
def test_stored_verdicts_are_those_of_measuring_afresh(tmp_path: Path, rules: dict[str, Any]) -> None:
    one = opened(tmp_path, [{"language": {"keep": ["en"]}}, {"rules": rules}])
    run(one, "filter.web")
    folder, measured = one.graph.node("filter.web").folder, one.graph.node("clean.web").folder
    config = RulesConfig(**rules)
    fresh = [Rules(config).apply(documents) for documents in read_documents(measured)]
    assert [table["id"].to_pylist() for table in read_documents(folder)] == [
        result.kept["id"].to_pylist() for result in fresh
    ]
    gone = [row for table in read_dropped(folder) for row in table.to_pylist()]
    assert [row["reason"] for row in gone] == [reason for result in fresh for reason in result.reasons]
    assert [row["detail"] for row in gone] == [detail for result in fresh for detail in result.details]
    assert all(row["text"] for row in gone)


def test_signals_are_stored_for_every_document_and_handed_on_with_those_that_stay(tmp_path: Path) -> None:
    one = opened(tmp_path, [*CLEAN, {"dedup.exact": {}}, {"normalise": {}}])
    run(one, "clean-2")
    for name in ("clean.web", "filter.web", "dedup.exact", "clean-2"):
        folder = one.graph.node(name).folder
        for path in sorted((folder / "signals").iterdir()):
            signals, documents = pq.read_table(path), pq.read_table(folder / "documents" / path.name)
            assert signals["id"].to_pylist() == documents["id"].to_pylist()
            assert "words@2" in signals.column_names
    assert len(list((one.graph.node("clean-2").folder / "signals").iterdir())) == 3  # of 7: shards with documents


def test_a_killed_judging_step_makes_the_same_bytes(tmp_path: Path) -> None:
    one = opened(tmp_path, CLEAN)
    whole = run(one, "filter.web")
    folder = one.graph.node("filter.web").folder
    for name in ("record.json", "shards/00001.json", "documents/00001.parquet", "signals/00004.parquet"):
        (folder / name).unlink()
    (folder / "shards" / "00004.json").unlink()
    assert run(one, "filter.web") == whole


def test_documents_without_signals_are_named(tmp_path: Path) -> None:
    one = opened(tmp_path, CLEAN)
    run(one, "clean.web")
    shutil.rmtree(one.graph.node("clean.web").folder / "signals")
    with pytest.raises(InputError, match="no stored signals"):
        run(one, "filter.web")
    stored = StoredSignals(pa.table({"id": ["a", "b"]}), "signals/00000.parquet")
    assert stored.rows(["b", "a"]) == [1, 0]
    with pytest.raises(InputError, match="no signals of document 'c'"):
        stored.rows(["a", "c"])


def listed(*names: str) -> list[ListedBlock]:
    options = {"rules-datatrove": {"segmenter": "datatrove"}, "signals-datatrove": {"segmenter": "datatrove"}}
    return [
        ListedBlock(
            name.removesuffix("-datatrove"),
            block_config(name.removesuffix("-datatrove"), Located(options.get(name, {}))),
            f"c.yaml:{number}",
        )
        for number, name in enumerate(names, start=1)
    ]


@pytest.mark.parametrize(
    ("names", "steps"),
    [
        (("normalise", "pii"), [["normalise", "pii"]]),
        (("normalise", "rules", "pii"), [["normalise", "signals"], ["rules", "pii"]]),
        (("rules",), [["signals"], ["rules"]]),
        (("rules", "rules", "pii"), [["signals"], ["rules", "rules", "pii"]]),
        (("rules", "rules-datatrove"), [["signals"], ["rules", "signals"], ["rules"]]),
        (("rules", "pii", "rules"), [["signals"], ["rules", "pii", "signals"], ["rules"]]),
        (("normalise", "signals", "rules"), [["normalise", "signals"], ["rules"]]),
        (("signals", "normalise"), [["signals", "normalise"]]),
    ],
)
def test_blocks_are_cut_before_rules(names: tuple[str, ...], steps: list[list[str]]) -> None:
    assert [[one.name for one in step] for step in cut_at_rules(listed(*names))] == steps


@given(st.lists(st.sampled_from(["normalise", "pii", "rules"]), max_size=8))
def test_cutting_keeps_every_block_in_its_place(names: list[str]) -> None:
    steps = cut_at_rules(listed(*names))
    assert [one.name for step in steps for one in step if one.name != "signals"] == names
    assert all(step[-1].name == "signals" for step in steps[:-1])
    assert all(step[0].name == "rules" for step in steps[1:])


def test_steps_that_judge_have_names_of_their_own() -> None:
    assert [filter_name(*place) for place in ((1, 1), (1, 2), (2, 1), (2, 2))] == [
        "filter",
        "filter-1-2",
        "filter-2",
        "filter-2-2",
    ]


def test_signals_that_fit_no_rules_are_the_users_error() -> None:
    with pytest.raises(ConfigError, match="measured twice"):
        cut_at_rules(listed("signals", "normalise", "rules"))
    with pytest.raises(ConfigError, match="`signals` counts the words of `datatrove`, `rules` those of `seodang`"):
        cut_at_rules(listed("signals-datatrove", "rules"))


def test_tuning_needs_the_signals_and_no_verdicts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = opened(tmp_path, CLEAN)
    with pytest.raises(InputError, match="no finished step measured signals"):
        show_tuning(one.path, "", "", "", [], 5, [], as_json=True)
    run(one, "clean.web")
    show_tuning(one.path, "filter.web", "gopher_too_short", "en", [], 5, [], as_json=True)
    (effect,) = json.loads(capsys.readouterr().out)
    assert (effect["documents"], effect["fails"], effect["first"]) == (len(TEXTS), 1, 1)
    show_tuning(one.path, "clean.web", "gopher_too_short", "", [], 5, [], as_json=True)
    assert json.loads(capsys.readouterr().out) == [effect]
    show_tuning(one.path, "", "", "", ["en.gopher_too_short=5"], 5, [], as_json=True)
    changed = json.loads(capsys.readouterr().out)
    assert (changed["newly_dropped"], changed["newly_kept"]) == (0, 1)
    assert [row["text"] for row in changed["examples"]] == [TEXTS[9]]


def test_reading_feeds_the_same_documents_to_both_ways(tmp_path: Path) -> None:
    """The whole way by hand: read, judge at once, and compare with the two steps."""
    one = opened(tmp_path, [{"rules": {}}])
    run(one, "filter.web")
    task = one.graph.task(one.graph.node("clean.web"))
    read = task.config.read
    kept: list[str] = []
    for parts in shard_parts(files_of(task.paths), read.kind, read.shard_bytes):
        for batch in read_parts(parts, read, Origin("web", "CC-BY-4.0", None, None)):
            kept += Rules(RulesConfig()).apply(batch.documents).kept["id"].to_pylist()
    stored = [name for table in read_documents(one.graph.node("filter.web").folder) for name in table["id"].to_pylist()]
    assert kept == stored
