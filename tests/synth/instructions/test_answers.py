"""Exercises answered by an endpoint: right answers stay, wrong ones go for their reason, the first right sample counts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from pipeline.core.documents import read_documents, read_dropped
from pipeline.core.steps import StepTask
from pipeline.core.written import written_text
from synth.acceptance import FILTERS
from synth.cache import Replay, Request
from synth.completion import parse_completion
from synth.config import AnswersConfig, GroundedConfig
from synth.endpoint_set import make_samples
from synth.instructions import open_tasks
from synth.instructions.answers import PROMPT, WORK, AnswersMaker
from synth.instructions.checks import ANOTHER_LANGUAGE
from synth.instructions.domains import exercises, verdicts
from synth.instructions.exercise import Exercise, conversation_of, written
from synth.instructions.grounded import GroundedMaker, conversation
from synth.instructions.work import draw_exercise
from synth.output import ShardWriter

Make = Callable[..., StepTask]
QUICK = ("mathematics", "logic", "long-context", "instruction-following", "korean")
MAKER = AnswersMaker()


def settings(documents: int, **more: Any) -> AnswersConfig:
    given = {"kind": "answers", "documents": documents, "domains": QUICK, "maximum_tokens": 600}
    return AnswersConfig.model_validate(given | more)


def completion(content: str, reasoning: str = "", finish: str = "stop") -> dict[str, Any]:
    message = {"role": "assistant", "content": content, "reasoning_content": reasoning}
    return {
        "model": "m-2",
        "choices": [{"message": message, "finish_reason": finish}],
        "usage": {"completion_tokens": 9},
    }


def solved(row: Mapping[str, Any]) -> tuple[str, str] | None:
    """(thinking, content) as a model that is right would write them; None for open tasks."""
    one, draw = row["exercise"], row["draw"]
    if one.family == "open":
        return None
    (own,) = exercises([draw])
    assert isinstance(own, Exercise)
    content = own.answer if draw.form == "reasoning" else own.plain
    return own.steps, content.removeprefix("답: ") if draw.domain == "korean" else content


def asked(
    task: StepTask, bodies: Callable[[Mapping[str, Any], int], dict[str, Any]]
) -> tuple[list[dict[str, Any]], Counter[str]]:
    """Make the first shard with an endpoint that answers `bodies(row, sample)`."""
    config: AnswersConfig = task.config
    rows = WORK.rows(task, 0)
    answers: dict[str, Any] = {}
    for row in rows:
        for sample in range(config.samples):
            for request in MAKER.requests(row, config, "m", sample):
                answers[request.key] = bodies(row, sample)
    writer = ShardWriter(task, 0)
    make_samples(MAKER, rows, config, "m", Replay(answers, "r", "s", "e"), writer)
    writer.commit()
    kept = [row for table in read_documents(task.folder) for row in table.to_pylist()]
    dropped = Counter(row["reason"] for table in read_dropped(task.folder) for row in table.to_pylist())
    assert len(kept) + dropped.total() == len(rows)
    return kept, dropped


def test_right_answers_stay_in_their_form(make_task: Make) -> None:
    task = make_task("synth.asked", settings(80))
    kept, dropped = asked(task, lambda row, _: completion(*reversed(solved(row) or ("…", "7, 7"))))
    assert set(dropped) <= {"answers.constraint", "answers.language", "answers.form"}  # the open tasks, badly answered
    assert dropped.total() <= 20
    assert {row["domain"] for row in kept} == set(QUICK)
    assert all(verdict.right for verdict in verdicts([conversation_of(row) for row in kept]))
    forms = {json.loads(row["extra"])["form"] for row in kept}
    assert forms == {"reasoning", "plain"}
    for row in kept:
        extra = json.loads(row["extra"])
        assert bool(row["messages"][-1]["reasoning"]) == (extra["form"] == "reasoning")
        assert (row["maker"], row["license"], row["parents"], extra["prompt"]) == ("m-2", "Apache-2.0", [], PROMPT)


def test_wrong_answers_go_and_the_first_right_sample_stays(make_task: Make) -> None:
    def bodies(row: Mapping[str, Any], sample: int) -> dict[str, Any]:
        thinking, content = solved(row) or ("…", "x")
        if sample == 0:
            return completion(content + "7", thinking)
        if sample == 1:
            return completion(content, thinking, "length")
        return completion(content, thinking) if sample == 2 else completion("never looked at")

    config = settings(40, samples=4, domains=("mathematics", "logic", "korean"))
    kept, dropped = asked(make_task("synth.asked", config), bodies)
    assert len(kept) == 40, dropped
    config = settings(40, samples=2, domains=("mathematics", "logic", "korean"))
    kept, dropped = asked(make_task("synth.other", config), bodies)
    assert kept == []
    assert set(dropped) <= {"answers.wrong_answer", "answers.no_answer"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda thinking, content: completion(content, ""), "no_thinking"),
        (lambda thinking, content: completion(content, thinking, "length"), "finish"),
        (
            lambda thinking, content: completion(content + "\n\nAs an AI language model I hope this helps.", thinking),
            "leakage",
        ),
        (lambda thinking, content: {"choices": []}, "no_completion"),
        (lambda thinking, content: completion("?", thinking), "no_answer"),
        (lambda thinking, content: completion(content, thinking + "\nCheck: 2 + 2 = 5."), "wrong_step"),
    ],
)
def test_each_reason(make_task: Make, change: Callable[[str, str], dict[str, Any]], reason: str) -> None:
    config = settings(12, domains=("mathematics",), forms={"reasoning": 1.0, "plain": 0.0}, languages=("en",))
    kept, dropped = asked(make_task("synth.asked", config), lambda row, _: change(*(solved(row) or ("", ""))))
    wanted = "wrong_answer" if reason == "no_answer" else reason
    assert kept == []
    assert set(dropped) <= {f"answers.{reason}", f"answers.{wanted}"}
    assert {name.split(".")[1] for name in dropped} <= set(FILTERS["answers"])


def test_open_tasks_stay_when_every_condition_is_kept(make_task: Make) -> None:
    task = make_task(
        "synth.asked", settings(900, maximum_level=1, domains=("instruction-following",), languages=("en",))
    )
    rows = [row for row in WORK.rows(task, 0) if row["exercise"].family == "open"]
    assert 400 < len(rows) < 500
    names = Counter(one["name"] for row in rows for one in row["exercise"].facts["constraints"])
    assert len(names) >= 15
    able = {"bullets", "no_digits", "forbidden", "forbidden_characters", "ends_with"}
    only = next(row for row in rows if {"bullets"} < _names(row) <= able)
    told = {one["name"]: one["options"] for one in only["exercise"].facts["constraints"]}
    lines = ["- The bees of the garden fly out in the early morning."] * told["bullets"]["minimum"]
    lines += [told["ends_with"]["text"]] if "ends_with" in told else []
    for content, right in (("\n".join(lines), True), ("\n".join(lines[1:]), False)):
        (request,) = MAKER.requests(only, task.config, "m", 0)
        made = MAKER.judged(
            only, task.config, [request], [parse_completion(request, completion(content, "Thinking of bees."))]
        )
        assert type(made).__name__ == ("Made" if right else "Refused"), made


def test_an_open_task_may_want_another_language() -> None:
    draws = [draw_exercise(settings(1, domains=("instruction-following",)), 0, n, "plain") for n in range(400)]
    exercises_made = [(draw, open_tasks.make_exercise(draw)) for draw in draws]
    abroad = [(draw, one) for draw, one in exercises_made if ANOTHER_LANGUAGE in one.facts]
    assert 60 < len(abroad) < 140
    draw, only = next((d, e) for d, e in abroad if d.language == "ko" and e.facts[ANOTHER_LANGUAGE] == "de")
    assert "답하는 언어: 독일어." in only.question
    german = "Der alte Fischer erzählt den Kindern am Fluss jeden Abend eine lange Geschichte über das Meer."
    facts = {**only.facts, "constraints": [{"name": "language", "options": {"language": "de"}}]}
    one = replace(written(draw, replace(only, facts=facts)), content=german)
    assert verdicts([one])[0].right
    assert (
        verdicts([replace(one, content="강은 오래된 마을을 지나 바다로 흐른다. 아이들이 강가에서 논다.")])[0].reason
        == "language"
    )
    assert (
        sum(not verdict.right for verdict in verdicts([written(d, e) for d, e in exercises_made])) == 400
    )  # no answers yet


def _names(row: Mapping[str, Any]) -> set[str]:
    return {one["name"] for one in row["exercise"].facts["constraints"]}


def test_our_exercise_says_how_to_answer(make_task: Make) -> None:
    task = make_task("synth.asked", settings(80, languages=("en",), domains=("mathematics", "logic")))
    for row in WORK.rows(task, 0):
        question = row["exercise"].question
        assert "`Answer:`" in question or "\\boxed" in question or "result alone" in question, question


def test_programs_of_a_model_are_judged_in_the_sandbox(make_task: Make, sandboxed: None) -> None:
    del sandboxed
    config = settings(5, domains=("code",), languages=("en",))
    kept, dropped = asked(
        make_task("synth.right", config), lambda row, _: completion(*reversed(solved(row) or ("", "")))
    )
    assert len(kept) == 5, dropped
    kept, dropped = asked(
        make_task("synth.wrong", config), lambda row, _: completion("```python\nassert True\n```", "Hm.")
    )
    assert kept == []
    assert set(dropped) <= {"answers.wrong_answer", "answers.no_answer"}


DOCUMENT = "The canal climbs slowly. A boat needs patience, for each of the ten locks\ntakes 6 minutes, day and night."
PAIR = {
    "question": "How long does a boat need for the ten locks of the canal?",
    "reasoning": "Each of the ten locks takes 6 minutes, and 10 × 6 = 60, so it is an hour.",
    "answer": "It needs 60 minutes for the ten locks, which is an hour.",
    "evidence": "each of the ten locks takes 6 minutes",
}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, ""),
        ({"evidence": "each of the ten locks takes 7 minutes"}, "evidence"),
        (
            {"reasoning": "Die zehn Schleusen brauchen jeweils sechs Minuten, das macht zusammen eine Stunde."},
            "language",
        ),
        ({"reasoning": "The user asks for the time, and each of the ten locks takes its six minutes."}, "leakage"),
        ({"answer": "It needs 95 minutes for the ten locks.", "reasoning": "Each lock takes 6 minutes."}, "numbers"),
    ],
)
def test_conversations_about_documents(library: Any, make_task: Make, change: dict[str, str], reason: str) -> None:
    config = GroundedConfig.model_validate(
        {"kind": "grounded", "from": "articles", "forms": {"reasoning": 1.0, "plain": 0.0}}
    )
    source = library.row("en", "locks", text=DOCUMENT)
    task = make_task("synth.talk", config, [[source]])
    maker = GroundedMaker()
    row = {**source, "target": "en", "lang_score": None, "parallel_id": None}
    assert maker.targets(row["id"], "en", config) == ("en",)
    (request,) = maker.requests(row, config, "m", 0)
    body = completion(json.dumps({"pairs": [{**PAIR, **change}]}))
    writer = ShardWriter(task, 0)
    make_samples(maker, [row], config, "m", Replay({request.key: body}, "r", "s", "e"), writer)
    writer.commit()
    if reason:
        (dropped,) = read_dropped(task.folder)
        assert dropped["reason"].to_pylist() == [f"grounded.{reason}"]
        return
    (table,) = read_documents(task.folder)
    (made,) = table.to_pylist()
    assert [one["content"] for one in made["messages"]] == [f"{DOCUMENT}\n\n{PAIR['question']}", PAIR["answer"]]
    assert made["messages"][1]["reasoning"] == PAIR["reasoning"]
    assert (made["domain"], made["lang"], made["parents"]) == ("world-knowledge", "en", [source["id"]])
    parts = [PAIR[name] for name in ("question", "reasoning", "answer")]
    assert made["text"] == "\n\n".join([DOCUMENT, *parts])
    assert written_text(made["text"], made["extra"]) == "\n".join(
        parts
    )  # copies are told by these, not by the document


def test_knowledge_without_the_document_and_in_another_language(library: Any) -> None:
    config = GroundedConfig.model_validate(
        {"kind": "grounded", "from": "articles", "asked_in": "other", "layout": "closed-book", "into": ("ko", "en")}
    )
    maker = GroundedMaker()
    assert maker.targets("x", "en", config) == ["ko"]
    row = {**library.row("en", "locks", text=DOCUMENT), "target": "ko"}
    for forms, thinking in (
        ({"reasoning": 0.0, "plain": 1.0}, None),
        ({"reasoning": 1.0, "plain": 0.0}, PAIR["reasoning"]),
    ):
        made = conversation(
            row, [PAIR], GroundedConfig.model_validate(config.model_dump(by_alias=True) | {"forms": forms})
        )
        assert made.columns["messages"][0]["content"] == PAIR["question"]
        assert made.columns["messages"][1]["reasoning"] == thinking
        assert (made.columns["domain"], made.columns["lang"]) == ("multilingual", "ko")


def test_requests_are_the_exercise_alone(make_task: Make) -> None:
    task = make_task("synth.asked", settings(30))
    row = next(row for row in WORK.rows(task, 0) if row["draw"].has_system)
    one, two = (MAKER.requests(row, task.config, "m", sample)[0] for sample in (0, 1))
    assert [message["role"] for message in one.messages] == ["system", "user"]
    assert one.messages[1]["content"] == row["exercise"].question
    assert one.key != two.key
    assert isinstance(one, Request)
    assert replace(one, sample=1).key == two.key
