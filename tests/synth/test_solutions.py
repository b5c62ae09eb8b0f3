"""Rejection sampling: of several answers the first right one stays, judged by verifiers and never by the model."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.documents import read_documents, read_dropped
from pipeline.core.record import ShardResult
from pipeline.core.steps import StepTask
from pipeline.core.verify.math import verify_solution
from synth.cache import Request
from synth.config import LANGUAGES, ReplayConfig, SolutionsConfig, endpoint_binding
from synth.families.base import phrases
from synth.reasoning import Sample, make_sample
from synth.solutions import WORK, SolutionsMaker

MODEL = "recorded-writer"
Make = Callable[..., StepTask]


def config(**more: Any) -> SolutionsConfig:
    given = {"kind": "solutions", "documents": 12, "samples": 2, "families": ("shopping", "linear_equation"), **more}
    return SolutionsConfig.model_validate(given)


def solution(sample: Sample) -> str:
    """Our own worked solution, as a model might write it."""
    return "\n".join(sample.worked.steps) + f"\n\n{label(sample)} {sample.worked.answer}"


def label(sample: Sample) -> str:
    return phrases(sample.language, sample.family.name).answer_label


def made(
    tmp_path: Path, make_task: Make, settings: SolutionsConfig, answers: Callable[[Sample, int], Mapping[str, str]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], ShardResult]:
    """The set from recorded answers to each sample of each problem."""
    path = tmp_path / "answers.jsonl"
    path.write_text("")
    binding = endpoint_binding("solve", settings, {"replay": ReplayConfig(responses=str(path))})[0]
    task = make_task("synth.solve", settings, (), binding)
    lines: list[str] = []
    for shard in range(WORK.shard_count(task)):
        for index, row in enumerate(WORK.rows(task, shard)):
            for number in range(settings.samples):
                (request,) = SolutionsMaker().requests(row, settings, MODEL, number)
                assert isinstance(request, Request)
                message = dict(answers(make_sample(settings, index), number))
                finish = message.pop("finish", "stop")
                choice = {"message": {"role": "assistant", **message}, "finish_reason": finish}
                lines.append(json.dumps(request.row({"model": "m-7", "choices": [choice], "usage": {}})) + "\n")
    path.write_text("".join(dict.fromkeys(lines)))
    result = WORK.make_shard(task, 0)
    kept = [one for table in read_documents(task.folder) for one in table.to_pylist()]
    return kept, [one for table in read_dropped(task.folder) for one in table.to_pylist()], result


def test_the_first_right_answer_stays(tmp_path: Path, make_task: Make) -> None:
    """Every first answer is wrong, every second one right: all problems are kept with the second."""

    def answers(sample: Sample, number: int) -> Mapping[str, str]:
        wrong = f"{label(sample)} 987654321"
        return {"content": solution(sample) if number else wrong}

    kept, dropped, result = made(tmp_path, make_task, config(), answers)
    assert dropped == []
    assert result.counts["documents_out"] == 12
    for index, row in enumerate(kept):
        sample = make_sample(config(), index)
        assert row["text"] == f"{sample.worked.problem}\n\n{solution(sample)}"
        assert (row["lang"], row["domain"], row["maker"]) == (sample.language, sample.family.domain, "m-7")
        assert row["parents"] == []
        extra = json.loads(row["extra"])
        assert [row["text"][start:end] for start, end in extra["written"]] == [solution(sample)]
        assert verify_solution(row["text"], label(sample), extra["answer"], 0).right


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda text: text + " 1", "wrong_answer"),
        (lambda text: text.rsplit("\n", 1)[0], "no_answer"),
        (lambda text: "2 + 2 = 5\n" + text, "wrong_step"),
        (lambda text: "The user asks me to solve this problem.\n" + text, "leakage"),
        (lambda text: "so we go on and see what is left of it all now, " * 40 + "\n" + text, "loop"),
        (lambda text: "Wir rechnen das jetzt ganz genau nach und schauen, was am Ende herauskommt. " * 2 + text, "language"),
    ],
)  # fmt: skip
def test_what_is_not_right_goes_with_its_reason(
    tmp_path: Path, make_task: Make, change: Callable[[str], str], reason: str
) -> None:
    settings = config(languages=("en",), samples=1, documents=6, families=("linear_equation",))
    kept, dropped, result = made(tmp_path, make_task, settings, lambda sample, _: {"content": change(solution(sample))})
    assert kept == []
    assert {one["reason"] for one in dropped} == {f"solutions.{reason}"}
    assert result.counts["documents_in"] == sum(result.dropped.values()) == 6


def test_reasoning_told_apart_stays_in_the_sample_and_cut_off_answers_go(tmp_path: Path, make_task: Make) -> None:
    settings = config(languages=("en",), samples=1, documents=4, families=("linear_equation",))

    def answers(sample: Sample, _: int) -> Mapping[str, str]:
        finish = "length" if sample == make_sample(settings, 3) else "stop"
        return {"reasoning_content": "First I look at both sides.", "content": solution(sample), "finish": finish}

    kept, (gone,), _ = made(tmp_path, make_task, settings, answers)
    assert gone["reason"] == "solutions.finish"
    assert len(kept) == 3
    for row in kept:
        (start, end), _ = json.loads(row["extra"])["written"]
        assert row["text"][start:end] == "First I look at both sides."


def test_a_problem_is_asked_about_once_a_shard(tmp_path: Path, make_task: Make) -> None:
    settings = config(families=("committee",), maximum_level=1, documents=200, samples=1, languages=("en",))
    kept, dropped, result = made(tmp_path, make_task, settings, lambda sample, _: {"content": solution(sample)})
    assert result.dropped["solutions.duplicate"] == len(dropped) > 0
    problems: Sequence[str] = [row["text"].split("\n\n")[0] for row in kept]
    assert len(set(problems)) == len(problems) == 200 - len(dropped)


@pytest.mark.parametrize("language", LANGUAGES)
def test_prompts_carry_problem_and_label(language: str) -> None:
    row = {"text": "{problem} {x}", "label": "Antwort:", "lang": language, "source": "s", "id": "i"}
    (request,) = SolutionsMaker().requests(row, config(), MODEL, 0)
    assert "{problem} {x}" in request.messages[1]["content"]
    assert "Antwort:" in request.messages[1]["content"]
