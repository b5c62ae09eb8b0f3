"""Sets of reasoning-gym's problems: exact scores from the row alone, the same bytes everywhere, planted mistakes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from pipeline.core.documents import read_documents, read_dropped
from pipeline.core.errors import UserError
from pipeline.core.steps import StepTask
from pipeline.core.verify.arithmetic import stated
from pipeline.recipe import open_curriculum
from synth.acceptance import FILTERS
from synth.gym import library, work
from synth.gym.config import GYM_FAMILIES, GymConfig, GymFamily
from synth.gym.library import entry_of, library_version, score
from synth.gym.ways import WAYS, way, wrong_step
from synth.gym.work import LOGIC, MATHEMATICS, WORK, draw, fault, score_of, wrong_answers

pytest.importorskip("reasoning_gym", reason="the optional package reasoning-gym is not installed")

ROOT = Path(__file__).resolve().parents[2]
QUICK: tuple[GymFamily, ...] = tuple(name for name in GYM_FAMILIES if name not in ("countdown", "sudoku"))


def settings(documents: int, **more: object) -> GymConfig:
    return GymConfig.model_validate({"kind": "gym", "documents": documents, **more})


def made(task: StepTask) -> list[dict[str, Any]]:
    for shard in range(WORK.shard_count(task)):
        WORK.make_shard(task, shard)
    return [row for table in read_documents(task.folder) for row in table.to_pylist()]


def test_the_list_of_families_is_the_configurations() -> None:
    assert get_args(GymFamily) == GYM_FAMILIES
    assert len(set(GYM_FAMILIES)) == len(GYM_FAMILIES) == 38
    assert set(GYM_FAMILIES) >= MATHEMATICS | LOGIC | set(WAYS)
    assert not MATHEMATICS & LOGIC
    with pytest.raises(ValidationError, match="gsm_symbolic"):
        settings(1, families=("game_of_life_halting",))


def test_every_sample_scores_one_from_its_row_alone(make_task: Callable[..., StepTask]) -> None:
    task = make_task("synth.gym", settings(400, documents_per_shard=200))
    rows = made(task)
    assert len(rows) > 380
    families = {json.loads(row["extra"])["family"] for row in rows}
    assert families == set(GYM_FAMILIES)
    for row in rows:
        family = json.loads(row["extra"])["family"]
        assert score_of(row) == 1.0
        question, answer = row["messages"]
        assert (question["role"], answer["role"]) == ("user", "assistant")
        assert row["text"].startswith(question["content"])
        assert row["text"].endswith(answer["content"])
        assert (answer["reasoning"] is not None) == (family in WAYS)
        assert answer["reasoning"] is None or answer["reasoning"] in row["text"]
        assert all(one.right for one in stated(answer["reasoning"] or ""))
        assert (row["lang"], row["license"], row["source"]) == ("en", "Apache-2.0", "gym")
        assert row["maker"] == f"reasoning-gym.{family}@{library_version()}"
        assert row["domain"] in ("mathematics", "logic", "code")
    refused = [row for table in read_dropped(task.folder) for row in table.to_pylist()]
    assert len(rows) + len(refused) == 400
    assert {row["reason"] for row in refused} <= {f"gym.{name}" for name in FILTERS["gym"]}


def test_a_row_with_another_rows_answer_no_longer_scores_one(make_task: Callable[..., StepTask]) -> None:
    """The score is the answer's: it is not read from what the row says of itself."""
    rows = made(make_task("synth.gym", settings(60, families=("gcd", "maze", "mini_sudoku"))))
    for row, other in pairwise(rows):
        if row["messages"][1]["content"] != other["messages"][1]["content"]:
            assert score_of({**row, "messages": [row["messages"][0], other["messages"][1]]}) < 1.0


@pytest.mark.parametrize("family", GYM_FAMILIES)
def test_wrong_answers_score_below_one(family: GymFamily) -> None:
    """Text around the answer, parts of it, constants, and the next entry's answer."""
    count = 4 if family in ("countdown", "sudoku") else 12
    config = settings(count, families=(family,))
    entries = [draw(config, index)[1] for index in range(count)]
    judged = 0
    for entry, following in zip(entries, [*entries[1:], entries[0]], strict=True):
        if fault(family, entry)[0]:
            continue
        planted = list(wrong_answers(family, entry["answer"]))
        assert len(planted) >= 8
        if following["answer"] != entry["answer"] and family != "jugs":  # whose sums may have several ways
            planted.append(following["answer"])
        assert all(score(family, text, entry) < 1.0 for text in planted)
        assert score(family, entry["answer"], entry) == 1.0
        judged += 1
    assert judged >= count // 2


def test_verifiers_that_take_anything_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Families that are not let in, asked all the same."""
    monkeypatch.setattr(library, "FORMS", {})
    for name in ("game_of_life_halting", "survo", "puzzle24", "knights_knaves", "gsm_symbolic", "kakurasu"):
        found = [fault(name, entry_of(name, seed))[0] for seed in range(3)]  # pyright: ignore[reportArgumentType]
        assert found == ["accepts_wrong"] * 3, name
    arc: Any = "rearc"
    assert fault(arc, entry_of(arc, 1))[0] == "not_exact"
    raising: Any = "prime_factorization"
    assert score(raising, "no number at all", entry_of(raising, 1)) == 0.0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"answer": "24"}, "not_exact"),
        ({"metadata": {"answer_cot": "3 * 4 = 13\n12 + 11 = 23\n#### 23"}}, "wrong_step"),
        ({"metadata": {"answer_cot": "3 * 4 = 12\n12 + 10 = 22\n#### 23"}}, "wrong_step"),
        ({"metadata": {"answer_cot": "It is 23\n#### 23"}}, "wrong_step"),
        ({"metadata": {"answer_cot": "3 * 4 = 12\n12 + 11 = 23\n#### 23"}}, ""),
    ],
)
def test_planted_mistakes_are_refused(
    monkeypatch: pytest.MonkeyPatch, make_task: Callable[..., StepTask], change: dict[str, Any], reason: str
) -> None:
    entry = {"question": "How many?", "answer": "23", "metadata": {"answer_cot": "#### 23"}} | change
    if reason == "not_exact":
        monkeypatch.setattr(work, "score", lambda family, answer, entry: float(answer == "23"))
    monkeypatch.setattr(work, "draw", lambda config, index: ("gsm_symbolic", entry))
    result = WORK.make_shard(make_task("synth.gym", settings(2)), 0)
    assert dict(result.dropped) == ({f"gym.{reason}": 2} if reason else {"gym.duplicate": 1})


def test_a_generator_that_fails_drops_its_sample(
    monkeypatch: pytest.MonkeyPatch, make_task: Callable[..., StepTask]
) -> None:
    """This maze has no room for its goal, in the version named."""
    if library_version() != "0.1.25":
        pytest.skip("another version of reasoning-gym has other mazes")
    seeds = iter((3017139, 5))
    monkeypatch.setattr(work, "draw", lambda config, index: ("maze", entry_of("maze", next(seeds))))
    task = make_task("synth.gym", settings(2))
    result = WORK.make_shard(task, 0)
    assert result.dropped == {"gym.no_entry": 1}
    assert result.counts["documents_out"] == 1
    (row,) = [row for table in read_dropped(task.folder) for row in table.to_pylist()]
    assert row["detail"].startswith("maze: RuntimeError: Could not find")


def test_truncated_division_is_refused() -> None:
    """The library rounds some quotients: the equation says so, the score does not."""
    faults = {fault("basic_arithmetic", entry_of("basic_arithmetic", seed * 7919 + 3)) for seed in range(150)}
    reasons = sorted(reason for reason, _ in faults if reason)
    assert set(reasons) == {"wrong_step"}
    assert all("is not right" in detail for reason, detail in faults if reason)


@pytest.mark.parametrize("family", sorted(WAYS))
def test_a_way_with_another_end_is_refused(family: GymFamily) -> None:
    for seed in range(20):
        entry = entry_of(family, seed)
        text = way(family, entry)
        if wrong_step(family, entry, text):
            continue
        assert wrong_step(family, entry, text + " Or 77771.")
        if WAYS[family].equations:
            assert wrong_step(family, entry, "2 + 2 = 5. " + text)


def test_samples_do_not_depend_on_the_shards(make_task: Callable[..., StepTask]) -> None:
    config = settings(90, families=QUICK)
    whole = made(make_task("synth.a/synth.gym", config))
    parts = made(make_task("synth.b/synth.gym", config.replaced(documents_per_shard=7)))
    assert whole
    assert [row["text"] for row in whole] == [row["text"] for row in parts]
    assert [row["extra"] for row in whole] == [row["extra"] for row in parts]


ALONE = """
import json, sys
from synth.gym.config import GYM_FAMILIES, GymConfig
from synth.gym.work import draw
config = GymConfig(kind="gym", documents=200)
print(json.dumps([draw(config, index) for index in reversed(range(200))], sort_keys=True))
"""


def test_another_process_with_another_hash_seed_draws_the_same() -> None:
    """In the opposite order, too: no entry depends on the ones before it."""
    config = settings(200)
    ours = [json.loads(json.dumps(draw(config, index), sort_keys=True)) for index in range(200)]
    environment = {**os.environ, "PYTHONHASHSEED": "4711", "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        [sys.executable, "-c", ALONE], env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    assert json.loads(ran.stdout)[::-1] == ours
    assert {family for family, _ in ours} == set(GYM_FAMILIES)


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    for family in QUICK:
        fault(family, entry_of(family, 11))
    assert capfd.readouterr().out == ""


def test_another_version_of_the_library_is_another_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its problems are others: their step is made anew, and nothing else is."""
    monkeypatch.chdir(ROOT)
    overrides = [f"store={tmp_path}", "synth.problems={kind: gym, documents: 20}"]
    nodes = [open_curriculum(Path("tests/golden.yaml"), overrides).graph.nodes]
    monkeypatch.setattr(library.metadata, "version", lambda package: "0.1.26")
    nodes.append(open_curriculum(Path("tests/golden.yaml"), overrides).graph.nodes)
    before, after = ({name: node.fingerprint for name, node in one.items()} for one in nodes)
    changed = {name for name in before if before[name] != after[name]}
    assert {"synth.problems", "distinct.problems", "encode.problems"} <= changed
    assert not any(name.startswith(("clean", "synth.reason", "tokenizer")) for name in changed)


def test_without_the_library_the_error_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "reasoning_gym.factory", None)
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[gym\]'"):
        entry_of("gcd", 1)
    monkeypatch.setattr(library, "PACKAGE", "a-package-that-is-not-there")
    with pytest.raises(UserError, match="is not installed"):
        library_version()
