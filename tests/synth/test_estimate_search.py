"""Search sets in the estimate: bounds that no model can pass, and what our scripts come to in its place."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forecasts import binding, holds, most_of, nothing_stored, requests_of, size
from search_model import ALL, scripted, unspoilt
from search_set import config as search_config
from search_set import index_of
from translator import completion, replay

from pipeline.core.steps import StepTask
from synth.cache import Request
from synth.client import Outcome, ask
from synth.completion import ContentError
from synth.config import EndpointConfig
from synth.estimate import answers_of, estimate
from synth.forecast import NOTHING, AtMost
from synth.store import ResponseStore, Stored
from synth.subagents.drawing import question_of
from synth.subagents.forecast import QUESTIONS, Longest, bounds, forecast, played
from synth.subagents.questions import Question, draw
from synth.subagents.trajectory import Loop, drive
from synth.subagents.work import WORK as SEARCH_WORK

ENDPOINT = EndpointConfig.model_validate({"url": "http://x/v1", "model": "m"})
Make = Callable[..., StepTask]
PARTS = ("agent", "summariser", "compressor")


@pytest.mark.parametrize("agent", ["endpoint", "oracle"])
def test_what_scripts_come_to_is_what_a_model_that_plays_like_them_is_asked(indexed: Make, agent: str) -> None:
    settings = search_config(compress_after_steps=4, **{**ALL, "agent": agent})
    task = indexed(search_config())
    index = index_of(task)
    made = scripted(task, settings, unspoilt)
    asked = {
        part: size(
            request for one in made for sample in one.samples if sample.part == part for request, _ in sample.requests
        )
        for part in PARTS
    }
    likely = played(index, settings)
    drawn = [draw(settings, number, index.languages) for number in range(settings.questions)]
    most = dict.fromkeys(PARTS, NOTHING)
    for one in drawn:
        for part, bound in bounds(settings, one, Longest.of(index)).items():
            most[part] += bound
    assert ("agent" in likely) == (settings.agent == "endpoint")
    for part in likely:
        assert likely[part].requests == asked[part].requests > 0
        assert likely[part].prompt_tokens == pytest.approx(asked[part].prompt_tokens, rel=0.1)
        assert holds(most[part], asked[part])
        assert holds(most[part], likely[part])
    assert [part for part, _ in forecast(index, settings, "m")] == [part for part in PARTS if part in likely]


ENDLESS = {
    "summariser": {"summary": "Of ships. " * 40, "answer": None},
    "compressor": {"key_facts": [], "open_questions": ["What is left of it? " * 20]},
}


@pytest.mark.parametrize(
    "more",
    [
        {"compress_after_steps": 3},
        {"compress_after_steps": 0, "compressor": "rules"},
        {"compress_after_steps": 3, "summariser": "none"},
        {"compress_after_steps": 2, "summariser": "extractive", "compressor": "rules"},
    ],
)
def test_a_model_that_never_comes_to_an_end_stays_within_the_bounds(indexed: Make, more: dict[str, Any]) -> None:
    """It opens the longest page for ever, with as many words as it is allowed: as many requests as the bounds say."""
    most_tokens = 300
    settings = search_config(
        question_kinds=("chain", "gaps"), maximum_hops=3, maximum_steps=11, max_tokens=most_tokens, summary_characters=500,
        **{**ALL, **more},
    )  # fmt: skip
    index = index_of(indexed(search_config()))
    page = max((index.page(*place) for place in index.identities("en")), key=lambda one: len(one.text))
    call = json.dumps({"name": "open", "arguments": {"url": page.url, "pattern": "What is it about? " * 10}})

    def go_on(requests: list[Request]) -> list[Outcome]:
        said: dict[str, Any] = {}
        for one in requests:
            part = one.prompt.split("@")[0].removeprefix("search.")
            content = json.dumps(ENDLESS[part]) if part in ENDLESS else f"{'Well. ' * 150}<tool_call>{call}</tool_call>"
            assert len(content) / 4.5 < most_tokens
            said[one.key] = completion(content)
        return ask(requests, replay(said))

    for number in range(6):
        question = question_of(index, settings, number)
        assert isinstance(question, Question)
        (made,) = drive([Loop(question, index, settings, "m")], go_on)
        assert made.failure is not None
        assert made.failure.check == "steps"
        found = bounds(settings, draw(settings, number, index.languages), Longest.of(index))
        for part in PARTS:
            asked = size(request for sample in made.samples if sample.part == part for request, _ in sample.requests)
            assert holds(found.get(part, NOTHING), asked), part
            assert found.get(part, NOTHING).requests == asked.requests, part


def test_a_search_that_was_stopped_is_followed_along_its_stored_answers(indexed: Make) -> None:
    settings = search_config(compress_after_steps=4, questions=6, question_kinds=("chain",), **ALL)
    task = indexed(search_config(compress_after_steps=4, questions=6, question_kinds=("chain",)))
    index = index_of(task)
    made = scripted(task, settings, unspoilt)
    asked = [(sample.part, one) for each in made for sample in each.samples for one in sample.requests]
    answers = {request.key: outcome for _, (request, outcome) in asked}
    whole = list(forecast(index, settings, "m", lambda one: answers.get(one.key)))
    assert Counter(part for part, _ in whole) == Counter(part for part, _ in asked)
    assert {one.key for part in PARTS for one in requests_of(whole, part)} == set(answers)  # and no bounds
    # Without the first answer of the first question its way is unknown again, that of the others is not.
    first = requests_of(whole, "agent")[0]
    less = {key: outcome for key, outcome in answers.items() if key != first.key}
    rest = list(forecast(index, settings, "m", lambda one: less.get(one.key)))
    left = {part: one for part, one in rest if isinstance(one, AtMost)}
    one_question = bounds(settings, draw(settings, 0, index.languages), Longest.of(index))
    assert set(left) == set(PARTS)
    assert left["agent"].most == one_question["agent"].less(size([first]))
    assert left["summariser"].most == one_question["summariser"]
    likely = left["agent"].likely
    assert likely is not None
    assert 0 < likely.requests < left["agent"].most.requests
    known = [one for part in PARTS for one in requests_of(rest, part)]
    assert first.key in {one.key for one in known}
    assert len(known) == len(asked) - sum(len(sample.requests) for sample in made[0].samples) + 1
    # Where nothing is stored the first requests are known, and with what is left come to the bounds again.
    empty, bounded = list(forecast(index, settings, "m", nothing_stored)), list(forecast(index, settings, "m"))
    for part in PARTS:
        assert most_of(empty, part) + size(requests_of(empty, part)) == most_of(bounded, part)


def test_journals_of_a_stopped_run_are_what_a_search_is_followed_along(indexed: Make, tmp_path: Path) -> None:
    more = {"questions": 3, "question_kinds": ("written",), "agent": "endpoint", "endpoint": "replay"}
    settings = search_config(maximum_hops=2, **more)
    task = indexed(settings, **binding(settings, tmp_path))

    def refused(_: Request) -> Outcome:
        return ContentError("no answer")

    assert {part for part, _ in SEARCH_WORK.forecast(task, refused)} == {QUESTIONS, "agent"}
    journal = task.store / "responses" / f"{task.fingerprint[:16]}-00000.jsonl"
    journal.parent.mkdir()
    journal.write_text("")
    assert {part for part, _ in SEARCH_WORK.forecast(task, refused)} == {QUESTIONS}  # no question, nobody to answer it


def test_an_oracle_asks_the_summariser_no_more_than_it_opens(indexed: Make) -> None:
    settings = search_config(summariser="endpoint", endpoint="e", opens_per_search=2, maximum_hops=3, results=4)
    longest = Longest(page=5000, entry=100)
    for number in range(20):
        drawn = draw(settings, number, ("en",))
        assert bounds(settings, drawn, longest)["summariser"].requests == drawn.hops * 2 * 2
        assert set(bounds(settings.replaced(maximum_steps=3), drawn, longest)) == {"summariser"}
        assert bounds(settings.replaced(maximum_steps=3), drawn, longest)["summariser"].requests == 3


def test_written_questions_are_known_and_those_that_are_stored_cost_nothing(indexed: Make, tmp_path: Path) -> None:
    settings = search_config(questions=5, question_kinds=("written",), endpoint="replay", maximum_hops=3)
    task = indexed(settings, **binding(settings, tmp_path))
    found = list(SEARCH_WORK.forecast(task, nothing_stored))
    drawn = [draw(settings, number, index_of(task).languages) for number in range(5)]
    assert {part for part, _ in found} == {QUESTIONS}  # the scripts do the rest
    assert len(found) == sum(one.hops for one in drawn)
    store = ResponseStore(tmp_path / "responses", "w")
    known_requests = requests_of(found, QUESTIONS)
    store.put(known_requests[0], Stored(completion("?")))
    cost = estimate(SEARCH_WORK.forecast(task, answers_of(store)), store, ENDPOINT)[QUESTIONS]
    assert (cost.requests_at_most, cost.stored) == (len({one.key for one in known_requests}), 1)
    nobody = settings.replaced(agent="endpoint")
    (unplayed,) = [one for part, one in forecast(index_of(task), nobody, "m") if part == "agent"]
    assert isinstance(unplayed, AtMost)
    assert unplayed.likely is None  # no script knows what a model will ask about
