"""Which server a request goes to and how many are in flight there: a slot is taken at the least busy server.

Contract: `take` waits its turn and gives a server; `give_back` frees the slot; at most `value` requests are in flight
at a server, never more than its ceiling. The value doubles a round until the first sign of overload (slow start), then
rises by one a full round; overload multiplies it by `DECREASE`, at most once per `COOLDOWN_SECONDS`, so that a burst
of refusals counts as one signal (Chiu & Jain 1989; Jacobson 1988). A server that does not take connections rests for a
growing time while others work; once none has taken any for `patience` tries in a row, `take` raises `Unreachable`.
Waiters are served in order. Cost: a few microseconds a request.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

DECREASE = 0.7
COOLDOWN_SECONDS = 1.0
START = 16
FIRST_REST_SECONDS = 0.5
LONGEST_REST_SECONDS = 60.0


class Unreachable(Exception):
    """No server takes connections."""


class Server:
    """One server and what is known of it. For one event loop at a time."""

    def __init__(self, url: str, ceiling: int) -> None:
        self.url = url
        self.ceiling = ceiling
        self.value = float(min(START, ceiling))
        self.in_flight = 0
        self.refused_connections = 0  # in a row
        self.rests_until = float("-inf")
        self._overloaded_at = float("-inf")
        self._slow_start = True

    @property
    def busy_share(self) -> float:
        return self.in_flight / self.value

    @property
    def has_room(self) -> bool:
        return self.in_flight < int(self.value)

    def succeeded(self) -> None:
        """One more answer without trouble."""
        self.refused_connections = 0
        self.value = min(float(self.ceiling), self.value + (1.0 if self._slow_start else 1.0 / self.value))

    def overloaded(self, now: float) -> None:
        """The server asked for less, or took too long."""
        self._slow_start = False
        if now - self._overloaded_at >= COOLDOWN_SECONDS:
            self._overloaded_at = now
            self.value = max(1.0, self.value * DECREASE)

    def refused_connection(self, now: float) -> None:
        """It did not take a connection. What was sent before its rest began says nothing new."""
        if now < self.rests_until:
            return
        rest_seconds = min(LONGEST_REST_SECONDS, FIRST_REST_SECONDS * 2**self.refused_connections)
        self.rests_until = now + rest_seconds
        self.refused_connections += 1


class Slots:
    """The slots of all servers of an endpoint. For one event loop at a time."""

    def __init__(self, servers: Sequence[Server], patience: int) -> None:
        self.servers = tuple(servers)
        self.patience = patience
        self._waiting: deque[asyncio.Future[Server]] = deque()
        self._wake: asyncio.TimerHandle | None = None

    async def take(self) -> Server:
        """A server with room, in the order of asking. Raises `Unreachable`."""
        if all(server.refused_connections >= self.patience for server in self.servers):
            raise Unreachable
        if not self._waiting and (server := self._best()) is not None:
            server.in_flight += 1
            return server
        turn: asyncio.Future[Server] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self.admit()
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.give_back(turn.result())  # the slot was already ours
            raise

    def give_back(self, server: Server) -> None:
        server.in_flight -= 1
        self.admit()

    def admit(self) -> None:
        """Give free slots to waiters; called whenever one may have become free."""
        if all(server.refused_connections >= self.patience for server in self.servers):
            while self._waiting:
                turn = self._waiting.popleft()
                if not turn.done():
                    turn.set_exception(Unreachable())
            return
        while self._waiting and (server := self._best()) is not None:
            turn = self._waiting.popleft()
            if not turn.done():
                server.in_flight += 1
                turn.set_result(server)

    def _best(self) -> Server | None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        with_room = [server for server in self.servers if server.has_room]
        awake = [server for server in with_room if server.rests_until <= now]
        if awake:
            return min(awake, key=lambda server: server.busy_share)
        if with_room and (self._wake is None or self._wake.when() <= now):
            self._wake = loop.call_at(min(server.rests_until for server in with_room), self.admit)
        return None
