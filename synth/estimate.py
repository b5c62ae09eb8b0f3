"""What a set will cost before it is run: requests, tokens, money, and what the response store already holds.

Contract: prompt tokens are estimated from characters and the density of the language; completion tokens are the mean of
stored answers to the same prompt and model where there are `ENOUGH` of them, and at most `max_tokens` a request.
Nothing is asked. Cost: reading the chosen documents once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from synth.cache import Request
from synth.config import EndpointConfig, ReplayConfig
from synth.language import density
from synth.store import ResponseStore

ENOUGH = 20


@dataclass(frozen=True)
class Estimate:
    """Of one set."""

    requests: int
    stored: int  # answered already: cost nothing
    prompt_tokens: int  # of the others, estimated
    completion_tokens_at_most: int
    completion_tokens_expected: int | None  # None: too few stored answers to say
    money_at_most: float | None  # None: the endpoint has no price
    money_expected: float | None
    currency: str


def estimate(
    requests: Iterable[Request], store: ResponseStore | None, endpoint: EndpointConfig | ReplayConfig
) -> Estimate:
    """`store` is None for recorded responses."""
    asked = stored = prompt_tokens = at_most = answered = answer_tokens = 0
    seen: set[str] = set()
    for request in requests:
        if request.key in seen:
            continue
        seen.add(request.key)
        asked += 1
        found = store.get(request.key) if store is not None else None
        if found is not None:
            stored += 1
            tokens = (found.response.get("usage") or {}).get("completion_tokens")
            if isinstance(tokens, int):
                answered += 1
                answer_tokens += tokens
            continue
        prompt_tokens += sum(round(len(one["content"]) / density(one["content"])) for one in request.messages)
        at_most += int(request.parameters.get("max_tokens", 0))
    expected = round((asked - stored) * answer_tokens / answered) if answered >= ENOUGH else None
    price = endpoint.price if isinstance(endpoint, EndpointConfig) else None

    def money(completion_tokens: int | None) -> float | None:
        if price is None or completion_tokens is None:
            return None
        prompt = prompt_tokens * price.prompt_per_million_tokens
        return (prompt + completion_tokens * price.completion_per_million_tokens) / 1e6

    currency = price.currency if price else ""
    return Estimate(asked, stored, prompt_tokens, at_most, expected, money(at_most), money(expected), currency)
