"""A "model" for search sets, for tests: it says in every part what our scripts would have said, spoilt or not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from search_set import config, index_of
from translator import completion, replay

from pipeline.core.steps import StepTask
from synth.cache import Request
from synth.client import ask
from synth.subagents.config import SearchConfig
from synth.subagents.drawing import questions_of
from synth.subagents.index import SearchIndex
from synth.subagents.outcome import Trajectory
from synth.subagents.questions import Question
from synth.subagents.trajectory import Loop, drive

ALL = {"agent": "endpoint", "summariser": "endpoint", "compressor": "endpoint", "endpoint": "e"}


class Recorder:
    """A "model" that says what it is given to say, by part and question or page."""

    def __init__(self, index: SearchIndex, spoil: Callable[[Request, str], str] = lambda _, text: text) -> None:
        self.index = index
        self.spoil = spoil
        self.turns: dict[str, list[str]] = {}
        self.recorded: dict[str, Any] = {}

    def __call__(self, requests: list[Request]) -> list[Any]:
        for request in requests:
            if request.key not in self.recorded:
                # Where the way has left the script, the model has nothing more to say.
                turns = self.turns.get(prompt_key(request)) or ["I give up."]
                self.recorded[request.key] = completion(self.spoil(request, turns.pop(0)))
        return ask(requests, replay(self.recorded))


def prompt_key(request: Request) -> str:
    """What tells requests of one part about one question or page apart."""
    kind = request.prompt.split("@")[0]
    return kind + (request.document.split()[0] if kind == "search.agent" else request.messages[-1]["content"])


def scripted(task: StepTask, settings: SearchConfig, spoil: Callable[[Request, str], str]) -> list[Trajectory]:
    """The set's questions with all parts played by a "model" that says what the scripts would have said."""
    index = index_of(task)
    drawn = questions_of(index, settings, range(settings.questions), "m", no_model)
    questions = [one.result for one in drawn if isinstance(one.result, Question)]
    offline = drive([Loop(question, index, config(compress_after_steps=4)) for question in questions], no_model)
    recorder = Recorder(index, spoil)
    for one in offline:
        for sample in one.samples:
            if sample.part == "agent":
                said = [said_by_a_model(message) for message in sample.messages if message["role"] == "assistant"]
                recorder.turns.setdefault(f"search.agent{one.question.key}", []).extend(said)
            else:
                key = f"search.{sample.part}{sample.messages[1]['content']}"
                recorder.turns.setdefault(key, []).append(sample.messages[-1]["content"])
    played = drive([Loop(question, index, settings, "m") for question in questions], recorder)
    for ours, theirs in zip(offline, played, strict=True):
        if spoil is unspoilt and ours.failure is None:
            assert theirs.failure is None
            assert (theirs.answer, theirs.measure.compressions) == (ours.answer, ours.measure.compressions)
    return played


def no_model(requests: list[Request]) -> list[Any]:
    raise AssertionError(f"{len(requests)} requests without a model")


def unspoilt(_: Request, text: str) -> str:
    return text


def said_by_a_model(message: Mapping[str, Any]) -> str:
    calls = message["tool_calls"] or ()
    written = [f'<tool_call>{{"name": "{one["name"]}", "arguments": {one["arguments"]}}}</tool_call>' for one in calls]
    return "\n".join([message["content"] or "", *written]).strip()
