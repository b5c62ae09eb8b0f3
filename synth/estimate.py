"""What a set will cost before it is run: requests, tokens, money, and what the response store already holds.

Contract: of each part of a set (its answers, its judge, the parts of a search) the requests that are known and the
bounds of those that follow from answers (`synth/forecast.py`), each request once. Prompt tokens are estimated from
characters and the density of the language. Completion tokens are at most `max_tokens` a request; expected is the mean
of the part's stored answers where there are `ENOUGH` of them, or what the forecast itself finds likely, else unknown.
Nothing is asked. Cost: what choosing documents costs for each shard of the set, and reading the chosen ones once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

from synth.cache import Request
from synth.client import Outcome, parsed
from synth.config import EndpointConfig, PriceConfig, ReplayConfig
from synth.forecast import Answered, AtMost, Forecast, completion_tokens, prompt_tokens
from synth.spending import Spent
from synth.store import ResponseStore, Stored

ENOUGH = 20
Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class Cost:
    """Of one part of a set, of a set, or of many."""

    requests_at_most: int = 0
    stored: int = 0  # of them answered already: cost nothing
    prompt_tokens_at_most: int = 0  # of the others, estimated
    completion_tokens_at_most: int = 0
    prompt_tokens_expected: int = 0
    completion_tokens_expected: int | None = 0  # None: too few stored answers to say
    money_at_most: float | None = 0.0  # None: the endpoint has no price
    money_expected: float | None = 0.0

    def __add__(self, other: Cost) -> Cost:
        """What is unknown of one is unknown of both."""
        return Cost(
            self.requests_at_most + other.requests_at_most,
            self.stored + other.stored,
            self.prompt_tokens_at_most + other.prompt_tokens_at_most,
            self.completion_tokens_at_most + other.completion_tokens_at_most,
            self.prompt_tokens_expected + other.prompt_tokens_expected,
            _sum(self.completion_tokens_expected, other.completion_tokens_expected),
            _sum(self.money_at_most, other.money_at_most),
            _sum(self.money_expected, other.money_expected),
        )


def _sum(one: Number | None, other: Number | None) -> Number | None:
    return None if one is None or other is None else one + other


def answers_of(store: ResponseStore | None) -> Answered:
    """How a forecast looks answers up; no store: there are none."""

    def answered(request: Request) -> Outcome | None:
        found = store.get(request.key) if store is not None else None
        return None if found is None else parsed(request, found)

    return answered


def estimate(
    forecast: Forecast, store: ResponseStore | None, endpoint: EndpointConfig | ReplayConfig
) -> dict[str, Cost]:
    """The cost of each part. `store` is None for recorded responses."""
    parts: dict[str, _Part] = {}
    seen: set[str] = set()
    for name, asked in forecast:
        part = parts.setdefault(name, _Part())
        if isinstance(asked, AtMost):
            part.bound(asked)
        elif asked.key not in seen:
            seen.add(asked.key)
            part.request(asked, store.get(asked.key) if store is not None else None)
    price = endpoint.price if isinstance(endpoint, EndpointConfig) else None
    return {name: part.cost(price) for name, part in parts.items()}


@dataclass
class _Part:
    """What is counted of a part."""

    requests: int = 0
    stored: int = 0
    answered: int = 0  # stored answers whose tokens the server counted
    answer_tokens: int = 0
    most: Spent = field(default_factory=Spent)
    likely: Spent = field(default_factory=Spent)
    usual: int = 0  # requests whose answers are likely as long as those stored

    def request(self, asked: Request, found: Stored | None) -> None:
        self.requests += 1
        if found is not None:
            self.stored += 1
            tokens = (found.response.get("usage") or {}).get("completion_tokens")
            if isinstance(tokens, int):
                self.answered += 1
                self.answer_tokens += tokens
            return
        prompt = prompt_tokens(asked.messages)
        self.most += Spent(prompt, completion_tokens(asked))
        self.likely += Spent(prompt)
        self.usual += 1

    def bound(self, asked: AtMost) -> None:
        self.requests += asked.most.requests
        self.most += Spent(asked.most.prompt_tokens, asked.most.completion_tokens)
        if asked.likely is None:
            self.likely += Spent(asked.most.prompt_tokens)
            self.usual += asked.most.requests
        else:
            self.likely += Spent(asked.likely.prompt_tokens, asked.likely.completion_tokens)

    def cost(self, price: PriceConfig | None) -> Cost:
        likely: Spent | None = self.likely
        if self.usual:
            usual = Spent(0, round(self.usual * self.answer_tokens / max(1, self.answered)))
            likely = self.likely + usual if self.answered >= ENOUGH else None
        return Cost(
            self.requests,
            self.stored,
            self.most.prompt_tokens,
            self.most.completion_tokens,
            self.likely.prompt_tokens,
            likely.completion_tokens if likely else None,
            self.most.money(price) if price else None,
            likely.money(price) if price and likely else None,
        )
