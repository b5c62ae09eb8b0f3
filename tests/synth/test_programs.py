"""Programming sets: every program passes its tests in the sandbox, and wrong, slow and broken ones are found out."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from pipeline.core.documents import read_documents
from pipeline.core.steps import StepTask
from pipeline.core.verify.sandbox import run_program
from synth import programs
from synth.config import LANGUAGES, PROGRAM_NAMES, ProgrammingConfig
from synth.families.programs import PROGRAMS
from synth.language import detect
from synth.programs import WORK, judge, make_problem

pytestmark = pytest.mark.usefixtures("sandboxed")


def config(documents: int, **more: object) -> ProgrammingConfig:
    return ProgrammingConfig.model_validate({"kind": "programming", "documents": documents, **more})


def test_the_list_of_families_is_the_configurations() -> None:
    assert set(PROGRAMS) == set(PROGRAM_NAMES)


def test_every_sample_holds_a_program_that_answers_its_examples(make_task: Callable[..., StepTask]) -> None:
    task = make_task("synth.programs", config(24))
    result = WORK.make_shard(task, 0)
    assert set(result.dropped) <= {"programming.duplicate"}
    (table,) = read_documents(task.folder)
    found = table.to_pylist()
    assert {row["lang"] for row in found} == set(LANGUAGES)
    assert {json.loads(row["extra"])["family"] for row in found} == set(PROGRAM_NAMES)
    for row in found[:5]:
        program = re.findall(r"```python\n(.*?)\n```", row["text"], re.S)[0]
        examples = re.findall(r"solve\((.*)\)\D*?(-?\d+)[.。]$", row["text"].split("\n\n```")[0], re.M)
        assert len(examples) == 2
        calls = "\n".join(f"print(solve({given}))" for given, _ in examples)
        assert run_program(f"{program}\n{calls}").output.split() == [result for _, result in examples]
        assert detect(row["text"].split("\n\n")[2]) == row["lang"]
        assert "«" not in row["text"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda code: code.replace("return count", "return count + (len(values) == 3)"), "disagrees"),
        pytest.param(
            lambda code: code.replace("count = 0", "count = 0\n    for _ in range(10**9): pass"),
            "failed",
            marks=pytest.mark.slow,
        ),
        (lambda code: "import os\n" + code.replace("count = 0", "count = len(os.listdir('/root'))"), "failed"),
        (lambda code: code.replace("def solve", "def other"), "failed"),
        (lambda code: "raise SystemExit\n" + code, "failed"),
    ],
)
def test_bad_programs_are_found_out(monkeypatch: pytest.MonkeyPatch, change: Callable[[str], str], reason: str) -> None:
    monkeypatch.setattr(programs, "SECONDS_A_PROBLEM", 0.5)
    problem = make_problem(config(1, families=("later_smaller",), languages=("en",)), 0)
    bad = replace(problem, program=replace(problem.program, reference=change(problem.program.reference)))
    found = judge([problem, bad, problem])
    assert [one.reason for one in found] == ["", reason, ""]


def test_a_program_that_is_right_but_slow_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "SECONDS_A_PROBLEM", 0.02)
    problem = make_problem(config(1, families=("longest_calm",), languages=("en",)), 0)
    slow = problem.program.reference.replace("    return best", "    sum(range(3 * 10**6))\n    return best")
    assert judge([replace(problem, program=replace(problem.program, reference=slow))])[0].reason == "too_slow"


def test_samples_do_not_depend_on_the_shards(make_task: Callable[..., StepTask]) -> None:
    made = []
    for size in (3, 8):
        task = make_task(f"synth.p{size}", config(8, documents_per_shard=size))
        for shard in range(WORK.shard_count(task)):
            WORK.make_shard(task, shard)
        made.append([row["text"] for table in read_documents(task.folder) for row in table.to_pylist()])
    assert made[0] == made[1]
