"""The Trajectory Compressor: after a number of steps the whole history becomes one JSON record of facts and questions.

Contract: pure functions. A record fits `SCHEMA` (validated here, whoever wrote it): key facts with the address of the
page each is from, and the questions that are still open. `compression_request` asks a model; `record_of` gives a
`Record` or a `Refused` (`no_answer`, `finish`). `rule_record` does the same without a model, from the history alone:
answers of opened pages are facts, steps of the question that no opened page answered are open. `grounded` drops facts
the tools did not give, each with its reason: `source` (no tool result is from that address), `number` (a number that
is not in those results), `terms` (too few of its terms are). The published example shows the Summariser's form; of the
record only that it is one JSON object of key facts and open questions is known, the field names are ours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from synth.cache import Request
from synth.client import Outcome
from synth.completion import ContentError
from synth.endpoint_set import Refused
from synth.prompts import prompt
from synth.subagents.config import SearchConfig
from synth.subagents.environment import Message, calls_with_results, listed_addresses
from synth.subagents.questions import steps_of
from synth.subagents.summariser import answer_in, extractive_summary
from synth.subagents.terms import Weigh, query_terms
from synth.subagents.wording import wording

SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "key_facts": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {name: {"type": "string", "minLength": 1} for name in ("fact", "source_url")},
                "required": ["fact", "source_url"],
                "additionalProperties": False,
            },
        },
        "open_questions": {"type": "array", "items": {"type": "string", "minLength": 1}},
    },
    "required": ["key_facts", "open_questions"],
    "additionalProperties": False,
}
GROUNDED_TERMS = 0.6  # of the terms a fact adds to the question, in the results from its page; ours
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
FactFault = Literal["source", "number", "terms"]


@dataclass(frozen=True)
class KeyFact:
    """One thing found, and where."""

    fact: str
    source_url: str


@dataclass(frozen=True)
class Record:
    """What a history is compressed into."""

    key_facts: Sequence[KeyFact]
    open_questions: Sequence[str]

    @property
    def json(self) -> str:
        facts = [{"fact": one.fact, "source_url": one.source_url} for one in self.key_facts]
        return orjson.dumps({"key_facts": facts, "open_questions": list(self.open_questions)}).decode()

    @property
    def text(self) -> str:
        """The facts alone, a line each."""
        return "\n".join(one.fact for one in self.key_facts)


EMPTY = Record((), ())


def rule_record(question: str, history: Sequence[Message], previous: Record, language: str, weigh: Weigh) -> Record:
    """The record of a history, by rule. `history` begins after the question."""
    facts = {(one.fact, one.source_url): one for one in previous.key_facts}
    found: dict[str, KeyFact | None] = {}  # by what was asked: who asks again was not content with the answer before
    for call, result in calls_with_results(history):
        if call.name != "open":
            continue
        asked, url = str(call.arguments.get("pattern", "")), str(call.arguments.get("url", ""))
        answer = answer_in(result, language)
        if not answer and wording(language).answer_label not in result:
            answer = extractive_summary(result, asked, 80, weigh).answer or ""  # the page itself stands in the history
        found[asked] = KeyFact(answer, url) if answer else None
    facts.update({(one.fact, one.source_url): one for one in found.values() if one})
    answered = [asked for asked, one in found.items() if one]
    steps = list(previous.open_questions) if previous is not EMPTY else steps_of(question)
    still_open = [step for step in steps if not any(asked.endswith(step) or asked in step for asked in answered)]
    return Record(tuple(facts.values()), tuple(still_open))


def compression_messages(question: str, history: str, previous: Record, language: str) -> tuple[dict[str, str], ...]:
    """What the Compressor is shown: the question, the record so far and what has happened since."""
    template = prompt("search.compressor", language)
    return template.messages(question=question, record=previous.json, history=history)


def compression_request(
    question: str, history: str, previous: Record, language: str, config: SearchConfig, model: str, document: str
) -> Request:
    template = prompt("search.compressor", language)
    messages = compression_messages(question, history, previous, language)
    parameters = {"temperature": config.temperature, "top_p": config.top_p, "max_tokens": config.max_tokens}
    return Request(model, messages, parameters, template.identity, 0, document, template.hash, SCHEMA)


def record_of(outcome: Outcome) -> Record | Refused:
    """What a model's answer comes to, before its facts are checked."""
    if isinstance(outcome, ContentError):
        return Refused("no_answer", str(outcome))
    if outcome.finish_reason != "stop":
        return Refused("finish", f"finish_reason `{outcome.finish_reason}`", outcome.content)
    facts = [KeyFact(one["fact"], one["source_url"]) for one in outcome.structured["key_facts"]]
    return Record(tuple(facts), tuple(outcome.structured["open_questions"]))


def grounded(
    record: Record, history: Sequence[Message], previous: Record
) -> tuple[Record, list[tuple[KeyFact, FactFault]]]:
    """The record with the facts that the tools gave, and those they did not give with the reason."""
    given: dict[str, list[str]] = {}
    asked: dict[str, list[str]] = {}
    for one in previous.key_facts:
        given.setdefault(one.source_url, []).append(one.fact)
    for call, result in calls_with_results(history):
        if call.name == "open":
            given.setdefault(str(call.arguments.get("url", "")), []).append(result)
            asked.setdefault(str(call.arguments.get("url", "")), []).append(str(call.arguments.get("pattern", "")))
        else:
            for entry in result.split("\n\n"):
                for url in listed_addresses(entry):
                    given.setdefault(url, []).append(entry)
    kept: list[KeyFact] = []
    faulty: list[tuple[KeyFact, FactFault]] = []
    for one in dict.fromkeys(record.key_facts):
        fault = _fault(one, given.get(one.source_url), asked.get(one.source_url, ()))
        if fault is None:
            kept.append(one)
        else:
            faulty.append((one, fault))
    return Record(tuple(kept), record.open_questions), faulty


def _fault(one: KeyFact, given: Sequence[str] | None, asked: Sequence[str]) -> FactFault | None:
    if given is None:
        return "source"
    shown = "\n".join(given)
    if any(number not in NUMBER.findall(shown) for number in NUMBER.findall(one.fact)):
        return "number"
    own, grounds, question = query_terms(one.fact), set(query_terms(shown)), set(query_terms("\n".join(asked)))
    # What the fact adds to the question has to come from the page; the question's own words may be said again.
    own = [term for term in own if term not in question] or own
    if sum(term in grounds for term in own) < GROUNDED_TERMS * len(own):
        return "terms"
    return None
