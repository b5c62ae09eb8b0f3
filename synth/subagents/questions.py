"""Questions whose facts and answers are known: which one number `n` of a set is, and what makes a fact told.

Contract: kind, language and number of facts of question `n` are a pure function of (config, n, languages of the index).
A question is a text with numbered steps; each step needs one fact, which stands on some page of the index.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from pipeline.core.rng import derive_seed
from synth.subagents.config import QuestionKind, SearchCorpusConfig
from synth.subagents.terms import query_terms, sentences

GAP = "___"
# Characters an answer may have beside the value and still be nothing but the value: fewer than the shortest sentence of
# ours about the same name; ours.
SHORT = 12
SAME_SENTENCE = 0.8  # of a gap's terms in a sentence that has its value; ours
LOOSE_SHARE = 0.4  # of a written question's terms, or its evidence's, in an answer in other words; ours
STEP_LINE = re.compile(r"^(\d+)\. (.+)$", re.M)


@dataclass(frozen=True)
class Fact:
    """One thing to find out."""

    subject: str  # the name it is about; empty for the number in a gap
    value: str
    sentence: str  # that states it, as it stands on its page
    step: str  # how the question asks for it
    ask: str  # what a page is asked
    query: str
    exact_query: str  # for a second try
    about: tuple[str, ...] = ()  # wordings one of which an answer shares terms with, in place of the sentence's own

    def told(self, text: str) -> bool:
        """Whether one sentence of `text`, or the whole of a short answer, gives the value for this very step."""
        rest = text.replace(self.value, "", 1)
        if len(text) <= len(self.value) + SHORT and not any(map(str.isdigit, rest)):
            return self._has_value(text)
        return any(self._has_value(one) and self._is_about(one) for one in sentences(text))

    def _has_value(self, text: str) -> bool:
        if self.value.isdigit():
            return re.search(rf"(?<!\d){self.value}(?!\d)", text) is not None
        return self.value in text

    def _is_about(self, sentence: str) -> bool:
        if self.subject:
            return self.subject in sentence
        own = set(query_terms(sentence))
        share = LOOSE_SHARE if self.about else SAME_SENTENCE
        for known in self.about or (self.sentence.replace(self.value, " "),):
            wanted = query_terms(known)
            if sum(term in own for term in wanted) >= share * len(wanted):
                return True
        return False


@dataclass(frozen=True)
class Question:
    """One question with what it takes to answer it."""

    number: int
    kind: QuestionKind
    language: str
    text: str
    facts: Sequence[Fact]
    values: Sequence[str]  # of the answer, in order

    @property
    def answer(self) -> str:
        return ", ".join(self.values)

    @property
    def key(self) -> str:
        """Names it in the ids of its samples."""
        return f"question/{self.number}"


@dataclass(frozen=True)
class Draw:
    """Which kind of question a number stands for."""

    number: int
    kind: QuestionKind
    language: str
    hops: int


def draw(config: SearchCorpusConfig, number: int, languages: Sequence[str]) -> Draw:
    """`languages` are those with pages, sorted."""
    dice = Random(derive_seed("search", config.seed, number))
    kind = config.question_kinds[dice.randrange(len(config.question_kinds))]
    language = languages[dice.randrange(len(languages))]
    return Draw(number, kind, language, dice.randint(config.minimum_hops, config.maximum_hops))


def numbered(steps: Sequence[str]) -> str:
    return "\n".join(f"{number}. {step}" for number, step in enumerate(steps, start=1))


def steps_of(question: str) -> list[str]:
    """The numbered lines of a question."""
    return [match[2] for match in STEP_LINE.finditer(question)]
