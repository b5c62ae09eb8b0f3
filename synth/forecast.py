"""What a set is going to ask, told before anything is asked: the requests that are known, and bounds of the others.

Contract: a work's `forecast` gives pairs of a part (who is asked, or what for) and either a request that is certain or,
where what is asked follows from answers, an `AtMost`. `answered` looks an answer up in the store: what follows from
stored answers is known too. Prompt tokens are estimated from characters; a bound holds for answers of `max_tokens`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from pipeline.core.steps import StepTask
from synth.cache import Request
from synth.client import Outcome
from synth.language import density

ANSWERS = "answers"  # the part of what a set asks for its samples
WAY_BACK = "way back"  # of translations
JUDGE = "judge"


@dataclass(frozen=True)
class Bound:
    """So many requests with so many tokens, all together."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __add__(self, other: Bound) -> Bound:
        return Bound(
            self.requests + other.requests,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
        )

    def less(self, other: Bound) -> Bound:
        """What is left, never below nothing."""
        return Bound(
            max(0, self.requests - other.requests),
            max(0, self.prompt_tokens - other.prompt_tokens),
            max(0, self.completion_tokens - other.completion_tokens),
        )

    def within(self, other: Bound) -> Bound:
        """The smaller of each."""
        return self.less(self.less(other))

    def scaled(self, factor: float) -> Bound:
        parts = (self.requests, self.prompt_tokens, self.completion_tokens)
        return Bound(*(round(factor * one) for one in parts))


NOTHING = Bound()


@dataclass(frozen=True)
class AtMost:
    """What follows from answers: never more than `most`."""

    most: Bound
    likely: Bound | None = None  # None: all of it, with answers of a usual length


Forecast = Iterator[tuple[str, Request | AtMost]]
Answered = Callable[[Request], Outcome | None]


class Asks(Protocol):
    """A work whose set asks a model."""

    def forecast(self, task: StepTask, answered: Answered) -> Forecast: ...


def prompt_tokens(messages: Sequence[Mapping[str, str]]) -> int:
    """Tokens of a request's messages, estimated."""
    return sum(round(len(one["content"]) / density(one["content"])) for one in messages)


def completion_tokens(request: Request) -> int:
    """The longest answer that a request allows."""
    return int(request.parameters.get("max_tokens", 0))


def follow_up(template: Request, requests: Sequence[Request], *, is_likely: bool) -> AtMost:
    """One request about the answers to others, `template` having all but those: each is in it once."""
    prompt = prompt_tokens(template.messages) + sum(map(completion_tokens, requests))
    return AtMost(Bound(1, prompt, completion_tokens(template)), None if is_likely else NOTHING)
