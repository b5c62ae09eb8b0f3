"""What answers cost: tokens counted over all tasks of a step, money from prices, and a budget that ends a run cleanly.

Contract: each task keeps its own count in a 16-byte file, so that tasks on other machines see it without locks; the
budget is spent when the counts of all tasks together reach it (looked up every second: what is in flight then, and up
to a second of the other tasks, is still paid and kept). Counts hold over re-runs of the same step. Answers found in the
store cost nothing.
"""

from __future__ import annotations

import os
import struct
import time
from dataclasses import dataclass
from pathlib import Path

from synth.config import EndpointConfig, PriceConfig

FOLDER = "spent"
COUNTS = struct.Struct("<QQ")  # prompt tokens, completion tokens
LOOK_SECONDS = 1.0
MILLION = 1_000_000


@dataclass(frozen=True)
class Spent:
    """Tokens, prompt and completion apart."""

    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.prompt_tokens + other.prompt_tokens, self.completion_tokens + other.completion_tokens)

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def money(self, price: PriceConfig) -> float:
        return (
            self.prompt_tokens * price.prompt_per_million_tokens
            + self.completion_tokens * price.completion_per_million_tokens
        ) / MILLION


class Spending:
    """One task's count beside those of the step's other tasks."""

    def __init__(self, folder: Path, writer: str, endpoint: EndpointConfig) -> None:
        """`folder` is the store's; tasks of one step have writers that differ after the last `-` only."""
        self.path = folder / FOLDER / writer
        self.endpoint = endpoint
        self.own = read_spent(self.path)
        self._others = Spent()
        self._looked = float("-inf")

    def add(self, spent: Spent) -> None:
        self.own += spent
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            os.pwrite(descriptor, COUNTS.pack(self.own.prompt_tokens, self.own.completion_tokens), 0)
        finally:
            os.close(descriptor)

    def total(self) -> Spent:
        now = time.monotonic()
        if now - self._looked >= LOOK_SECONDS:
            self._looked = now
            run = self.path.name.rpartition("-")[0]
            self._others = spent_by_tasks(self.path.parent.parent, run, besides=self.path) if run else Spent()
        return self.own + self._others

    def exhausted(self) -> str:
        """What of the budget is spent, in words; empty while there is some left."""
        budget, total = self.endpoint.budget, self.total()
        if budget.tokens is not None and total.tokens >= budget.tokens:
            return f"{total.tokens:,} of {budget.tokens:,} tokens are spent"
        if budget.money is not None and self.endpoint.price is not None:
            money = total.money(self.endpoint.price)
            if money >= budget.money:
                return f"{money:.2f} of {budget.money:.2f} {self.endpoint.price.currency} are spent"
        return ""


def spent_by_tasks(folder: Path, run: str, besides: Path | None = None) -> Spent:
    """What the tasks of a step have spent so far, all but the one that counts in `besides`.

    `folder` is the store's; `run` is what the writers' names share before the last `-`.
    """
    paths = sorted((folder / FOLDER).glob(f"{run}-*"))
    return sum((read_spent(path) for path in paths if path != besides), Spent())


def read_spent(path: Path) -> Spent:
    try:
        return Spent(*COUNTS.unpack(path.read_bytes()))
    except (FileNotFoundError, struct.error):
        return Spent()
