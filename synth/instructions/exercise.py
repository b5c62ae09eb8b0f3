"""What an instruction sample is: drawn, made by a domain, written as a conversation, judged from the written row alone.

Contract: a domain is an entry of `synth.instructions.domains.DOMAINS`. `make` gives one exercise (or why there is none)
for each draw and is a pure function of it; `verify` judges conversations by what they say and by their facts (the
numbers a solver needs), never by how they were made, so that it judges an endpoint's answers and read rows as well.
Both take batches, because programs are run many a sandbox.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from random import Random
from typing import Any, Protocol

import orjson

from pipeline.core.verify.math import Verdict
from synth.families.base import Phrases
from synth.instructions.config import Form
from synth.language import read_package_yaml

TEMPLATES = "instructions/templates"
FREE_STEPS = {"steps": "free"}  # in the facts: the working is a model's own, not our solver's
TURN = "\n\n"  # between the turns of a conversation's plain rendering


@dataclass(frozen=True)
class Passage:
    """A document that a long input is made of."""

    id: str
    text: str
    title: str
    license: str


@dataclass(frozen=True)
class Draw:
    """What one exercise is drawn from."""

    index: int
    seed: int
    domain: str
    language: str
    level: int  # 1-5
    tokens: int  # of a long input
    form: Form
    has_system: bool
    passages: tuple[Passage, ...] = ()  # of a long input; none: it is made up

    def dice(self) -> Random:
        return Random(self.seed)


@dataclass(frozen=True)
class Exercise:
    """An instruction with the answer of our solver."""

    family: str
    question: str
    steps: str  # how the answer is found
    answer: str  # what is said after thinking
    plain: str  # what is said without: with its working where the question leaves room for it
    facts: Mapping[str, Any]  # JSON values that `verify` needs
    system: str = ""


@dataclass(frozen=True)
class Unmade:
    """Why a draw gave no exercise, and what there was of it."""

    reason: str
    detail: str
    text: str = ""


@dataclass(frozen=True)
class Conversation:
    """One question and its answer, as they are written."""

    domain: str
    family: str
    language: str
    form: Form
    question: str
    reasoning: str  # empty: answered without thinking
    content: str
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])
    system: str = ""

    def messages(self) -> list[dict[str, Any]]:
        """In the form of the document schema; the chat format writes no reasoning as an empty thinking block."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        answer = {"role": "assistant", "reasoning": self.reasoning or None, "content": self.content}
        return [*system, {"role": "user", "content": self.question}, answer]

    def text(self) -> str:
        """The plain rendering: what is said, turn by turn."""
        return TURN.join(part for part in (self.system, self.question, self.reasoning, self.content) if part)

    @property
    def has_free_steps(self) -> bool:
        return FREE_STEPS.items() <= self.facts.items()

    @property
    def final(self) -> str:
        """The content's last paragraph."""
        return self.content.rsplit("\n\n", 1)[-1]

    @property
    def working(self) -> str:
        """Where the way to the answer is told: the reasoning, or the content before its last paragraph."""
        return self.reasoning if self.form == "reasoning" else self.content.rpartition("\n\n")[0]


class Domain(Protocol):
    """A task domain's generator and filter."""

    families: Sequence[str]

    def make(self, draws: Sequence[Draw]) -> list[Exercise | Unmade]: ...

    def verify(self, conversations: Sequence[Conversation]) -> list[Verdict]: ...


def written(draw: Draw, exercise: Exercise) -> Conversation:
    """The exercise in its form."""
    thinks = draw.form == "reasoning"
    return Conversation(
        domain=draw.domain,
        family=exercise.family,
        language=draw.language,
        form=draw.form,
        question=exercise.question,
        reasoning=exercise.steps if thinks else "",
        content=exercise.answer if thinks else exercise.plain,
        facts=exercise.facts,
        system=exercise.system if draw.has_system else "",
    )


def conversation_of(row: Mapping[str, Any]) -> Conversation:
    """The conversation of a document row that this package wrote."""
    extra = orjson.loads(row["extra"])
    turns = {message["role"]: message for message in row["messages"]}
    return Conversation(
        domain=row["domain"],
        family=extra["family"],
        language=row["lang"],
        form=extra["form"],
        question=turns["user"]["content"],
        reasoning=turns["assistant"].get("reasoning") or "",
        content=turns["assistant"]["content"],
        facts=extra["facts"],
        system=turns.get("system", {}).get("content", ""),
    )


@cache
def say_in(name: str, language: str) -> Phrases:
    """The sentences of `templates/NAME.yaml` in one language."""
    whole = read_package_yaml(TEMPLATES, f"{name}.yaml")
    return Phrases(language, {}, whole[language])
