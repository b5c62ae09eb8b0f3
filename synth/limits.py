"""The adaptive limit on requests in flight: additive increase, multiplicative decrease.

Contract: an async context manager; at most `value` holders at a time, never more than `ceiling`. Successes raise the
value by one per full round of it, a failure multiplies it by `DECREASE`, at most once per `COOLDOWN_SECONDS`, so that
one burst of refusals counts as one signal. Waiters are served in order. Source: Chiu & Jain 1989.
"""

from __future__ import annotations

import asyncio
from collections import deque

DECREASE = 0.7
COOLDOWN_SECONDS = 1.0
START = 16


class AdaptiveLimit:
    """For one event loop at a time."""

    def __init__(self, ceiling: int) -> None:
        self.ceiling = ceiling
        self.value = float(min(START, ceiling))
        self.in_flight = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._last_decrease = float("-inf")

    async def __aenter__(self) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._leave()  # the slot was already given to us
            raise

    async def __aexit__(self, *_: object) -> None:
        self._leave()

    def _leave(self) -> None:
        self.in_flight -= 1
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self.in_flight < int(self.value):
            turn = self._waiting.popleft()
            if not turn.done():
                self.in_flight += 1
                turn.set_result(None)

    def succeeded(self) -> None:
        """One more answer without trouble."""
        self.value = min(float(self.ceiling), self.value + 1.0 / self.value)
        self._admit()

    def failed(self) -> None:
        """The server refused or broke."""
        now = asyncio.get_running_loop().time()
        if now - self._last_decrease >= COOLDOWN_SECONDS:
            self._last_decrease = now
            self.value = max(1.0, self.value * DECREASE)
