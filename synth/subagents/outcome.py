"""What becomes of a question: its samples, its measures, and whether its answer is right.

Contract: `Measure` counts the tokens the agent reads: of each turn its whole context, as it was and as it would have
been with whole pages and no compression, along the same way; and what the sub-agents read and wrote for that.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

from synth.cache import Request
from synth.client import Outcome
from synth.completion import Completion
from synth.endpoint_set import Refused
from synth.subagents.config import Part
from synth.subagents.environment import Message
from synth.subagents.index import Page
from synth.subagents.questions import Question

BESIDE = 6  # characters of an answer for each value: commas, brackets, numbers of a list; ours
GROUPING = re.compile(r"(?<=\d)[,.\u00a0\u202f ](?=\d{3}(?!\d))")
MAKERS: Mapping[str, str] = {
    "oracle": "seodang.search.oracle@1", "extractive": "seodang.search.extractive@1", "rules": "seodang.search.rules@1",
}  # fmt: skip


@dataclass
class Measure:
    """Sums over a question, or over many."""

    questions: int = 0
    right: int = 0
    turns: int = 0
    steps: int = 0
    compressions: int = 0
    facts: int = 0  # that the questions need
    facts_kept: int = 0  # that the agent's last context gives
    dropped_source: int = 0  # facts of records that no tool result has the address of (`compressor.grounded`)
    dropped_number: int = 0
    dropped_terms: int = 0
    peak_tokens: int = 0  # longest context of a question; summed over questions
    peak_tokens_plain: int = 0  # plain: whole pages, no compression
    read_tokens: int = 0  # contexts of all turns
    read_tokens_plain: int = 0
    subagent_tokens: int = 0  # read and written by the sub-agents

    def add(self, other: Measure) -> None:
        for one in fields(self):
            setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))


@dataclass(frozen=True)
class Sample:
    """A conversation of one part, ready to be learnt from, or refused."""

    part: Part
    messages: Sequence[Message]
    pages: Sequence[Page]  # whose text is in it
    maker: str
    requests: Sequence[tuple[Request, Outcome]] = ()
    refusal: Refused | None = None
    prompt: str = ""
    prompt_hash: str = ""


@dataclass
class Trajectory:
    """What became of a question."""

    question: Question
    samples: list[Sample] = field(default_factory=list[Sample])
    failure: Refused | None = None
    measure: Measure = field(default_factory=Measure)
    answer: str = ""


def is_right(answer: str, values: Sequence[str]) -> bool:
    """Whether an answer is these values in this order and nothing to speak of beside them."""
    if all(value.isdigit() for value in values):
        return re.findall(r"\d+", GROUPING.sub("", answer)) == list(values)
    position, lowered = 0, answer.casefold()
    for value in values:
        found = lowered.find(value.casefold(), position)
        if found < 0:
            return False
        position = found + len(value)
    return len(answer) - sum(map(len, values)) <= BESIDE * len(values)


def spoken(message: Message) -> str:
    """All the text of a message."""
    calls = message.get("tool_calls") or ()
    parts = [message.get("reasoning"), message.get("content"), *(f"{one['name']} {one['arguments']}" for one in calls)]
    return "\n".join(part for part in parts if part)


def maker_of(played_by: str, requests: Sequence[tuple[Request, Outcome]]) -> str:
    models = [outcome.model for _, outcome in requests if isinstance(outcome, Completion)]
    return MAKERS.get(played_by) or (models[0] if models else "unknown")


def thoughts_of(requests: Sequence[tuple[Request, Outcome]]) -> str:
    found = [outcome.reasoning for _, outcome in requests if isinstance(outcome, Completion)]
    return found[0] if found else ""
