"""The endpoint client: chat completions from any OpenAI-compatible servers, many at a time.

Contract: `complete` gives one `Completion` or `ContentError` per request, in the order of the requests, and asks each
distinct key once, also when several calls run at the same time. Concurrency follows each server (`synth/limits.py`); a
waiting request holds no slot. Refusals of the server fall into three kinds:

`RetryError`      429, 5xx, 408, 409, time-outs, broken connections, cut-off bodies: asked again after a jittered wait
                  (Retry-After is honoured); still failing at the deadline, the whole call ends in a `UserError` after
                  every other answer was stored, so that the next run asks only for the rest
`PermanentError`  401, 403, 404, another model than asked for …: nothing would change, the call ends in a `UserError`
`ContentError`    400, 413, 422 and answers that are no completion: this one document is given back as failed

When the budget is spent, what is in flight is still taken in and the call ends in a `UserError`. Keys are read from
the environment and removed from every message. Cost: below a millisecond of our time a request.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from fnmatch import fnmatchcase
from random import Random
from typing import Any

import orjson

from pipeline.core.errors import UserError
from synth.cache import Replay, Request
from synth.completion import Completion, ContentError, parse_completion
from synth.config import BudgetConfig, EndpointConfig
from synth.limits import Server, Slots, Unreachable
from synth.spending import Spending, Spent
from synth.store import ResponseStore, Stored
from synth.transport import Answer, Broken, ConnectFailed, Connections, connections_to

FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 60.0
LONGEST_RETRY_AFTER_SECONDS = 600.0
RETRIED_STATUS = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
OVERLOAD_STATUS = frozenset({408, 429, 503, 504, 529})
CHARACTERS_PER_TOKEN = 3  # where a server does not count; between English (4) and Korean (2)
CONTENT_STATUS = frozenset({400, 413, 422})
SCHEMA_REFUSED = re.compile(r"response_format|json_schema|guided|structured", re.I)
SECRET = re.compile(r"(?i)(bearer\s+|\b(?:sk|hf|gsk|nvapi)[-_])[\w.\-]{6,}|(?<=://)[^/@\s]+@")

Outcome = Completion | ContentError


class RetryError(Exception):
    """A failure that may pass."""

    def __init__(self, message: str, wait_seconds: float = 0.0, *, overload: bool = False) -> None:
        super().__init__(message)
        self.wait_seconds = wait_seconds  # what the server asked for
        self.overload = overload  # whether fewer requests at once would help


class ConnectionRefused(RetryError):
    """The server does not take connections."""


class PermanentError(Exception):
    """A failure that no further attempt changes."""


class BudgetSpent(Exception):
    """Nothing more may be asked."""


def ask(requests: Sequence[Request], backend: Replay | EndpointClient) -> list[Outcome]:
    """One outcome per request, in order. Raises `UserError` for missing recordings and servers that do not answer."""
    if isinstance(backend, Replay):
        return [parsed(request, Stored(backend.body(request))) for request in requests]
    return asyncio.run(backend.session(requests))


def parsed(request: Request, stored: Stored) -> Outcome:
    """What a stored answer comes to."""
    try:
        return parse_completion(request, stored.response, stored.attempts, stored.latency_ms)
    except ContentError as error:
        return error


class EndpointClient:
    """Requests to the servers of one endpoint, through a response store. Inside one event loop at a time."""

    def __init__(self, config: EndpointConfig, store: ResponseStore, *, where: str) -> None:
        """`where` is the option that named the endpoint, for messages."""
        self.config = config
        self.store = store
        self.where = where
        self.spending = Spending(store.folder, store.path.stem, config)
        self.slots = Slots([], config.max_attempts)
        self._connections: dict[str, Connections] = {}
        self._flights: dict[str, asyncio.Task[Outcome | RetryError | BudgetSpent]] = {}
        self._schemas_refused = False
        self._budgeted = config.budget != BudgetConfig()

    async def session(self, requests: Sequence[Request]) -> list[Outcome]:
        """`complete` with connections of its own."""
        async with self:
            return await self.complete(requests)

    async def __aenter__(self) -> EndpointClient:
        headers = self._authorization()
        self.slots = Slots(
            [Server(url, self.config.max_concurrency) for url in self.config.urls], self.config.max_attempts
        )
        self._connections = {
            url: connections_to(f"{url.rstrip('/')}/chat/completions", headers) for url in self.config.urls
        }
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._flights.values():
            task.cancel()
        await asyncio.gather(*self._flights.values(), return_exceptions=True)
        self._flights.clear()
        for connections in self._connections.values():
            await connections.close()
        self.store.close()

    async def complete(self, requests: Sequence[Request]) -> list[Outcome]:
        """One outcome per request, in order. Raises `UserError`."""
        distinct = {request.key: request for request in requests}
        found: dict[str, Outcome | RetryError | BudgetSpent] = {}
        for key, request in distinct.items():
            stored = self.store.get(key)
            if stored is not None:
                found[key] = parsed(request, stored)
        flights = {key: self._flight(request) for key, request in distinct.items() if key not in found}
        try:
            found.update(zip(flights, await asyncio.gather(*flights.values()), strict=True))
        except PermanentError as error:
            fix = "check the endpoint's url, model and key_env"
            raise UserError(str(error), where=self.where, fix=fix) from None
        except Unreachable:
            urls = ", ".join(map(self._redacted, self.config.urls))
            raise UserError(
                f"{urls} took no connection in {self.config.max_attempts} tries",
                where=self.where,
                fix="start the server, or correct the endpoint's url",
            ) from None
        self._raise_unanswered(list(found.values()))
        outcomes = [found[request.key] for request in requests]
        return [outcome for outcome in outcomes if isinstance(outcome, Completion | ContentError)]

    def _raise_unanswered(self, outcomes: Sequence[Outcome | RetryError | BudgetSpent]) -> None:
        unanswered = [outcome for outcome in outcomes if isinstance(outcome, RetryError)]
        unpaid = [outcome for outcome in outcomes if isinstance(outcome, BudgetSpent)]
        if unpaid:
            raise UserError(
                f"the budget is spent: {unpaid[0]}; {len(unpaid)} of {len(outcomes)} requests were not asked",
                where=self.where,
                fix="raise the endpoint's budget and run again: the answers so far are stored and not asked for again",
            )
        if unanswered:
            raise UserError(
                f"{len(unanswered)} of {len(outcomes)} requests got no answer from "
                f"{', '.join(map(self._redacted, self.config.urls))}; the first: {unanswered[0]}",
                where=self.where,
                fix="run again when the server answers: the other answers are stored and not asked for again",
            )

    def _flight(self, request: Request) -> asyncio.Task[Outcome | RetryError | BudgetSpent]:
        """The one task that asks for this key."""
        task = self._flights.get(request.key)
        if task is None:
            task = self._flights[request.key] = asyncio.create_task(self._one(request))
            task.add_done_callback(lambda _: self._flights.pop(request.key, None))
        return task

    async def _one(self, request: Request) -> Outcome | RetryError | BudgetSpent:
        loop = asyncio.get_running_loop()
        jitter: Random | None = None
        deadline = float("inf")  # waiting for the first slot is our own queue, not the server
        for attempt in range(1, self.config.max_attempts + 1):
            try:
                if attempt == 1:
                    server = await self.slots.take()
                else:
                    async with asyncio.timeout_at(deadline):
                        server = await self.slots.take()
            except TimeoutError:
                return RetryError(f"no answer within {self.config.deadline_seconds:g} seconds")
            began = loop.time()
            if attempt == 1:
                deadline = began + self.config.deadline_seconds
            try:
                if self._budgeted and (spent := self.spending.exhausted()):
                    return BudgetSpent(spent)
                body = await self._attempt(server, request, min(deadline, began + self.config.attempt_timeout_seconds))
            except ContentError as error:
                return error
            except RetryError as error:
                last = error
                self._count_failure(server, error)
            else:
                server.succeeded()
                return self._taken_in(request, Stored(body, attempt, round(1000 * (loop.time() - began))))
            finally:
                self.slots.give_back(server)
            jitter = jitter or Random(request.key)
            backoff = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2 ** (attempt - 1))
            wait_seconds = last.wait_seconds + backoff * (0.5 + jitter.random() / 2)
            if attempt == self.config.max_attempts or loop.time() + wait_seconds > deadline:
                return RetryError(f"{last} (attempt {attempt} of {self.config.max_attempts})")
            await asyncio.sleep(wait_seconds)
        raise AssertionError("the loop returns on its last attempt")

    def _count_failure(self, server: Server, error: RetryError) -> None:
        now = asyncio.get_running_loop().time()
        if isinstance(error, ConnectionRefused):
            server.refused_connection(now)
        if error.overload:
            server.overloaded(now)

    def _taken_in(self, request: Request, stored: Stored) -> Outcome:
        """Keep an answer and what it cost."""
        self.store.put(request, stored)
        outcome = parsed(request, stored)
        if self._budgeted:
            self.spending.add(_cost(request, stored.response))
        return outcome

    async def _attempt(self, server: Server, request: Request, until: float) -> Mapping[str, Any]:
        body = request.body()
        if self._schemas_refused:
            body.pop("response_format", None)
        answer = await self._post(server, orjson.dumps(body), until)
        if answer.status == 400 and "response_format" in body and SCHEMA_REFUSED.search(answer.text):
            # A server without structured output: asked for in words, validated here as always.
            self._schemas_refused = True
            del body["response_format"]
            answer = await self._post(server, orjson.dumps(body), until)
        return self._body(server, answer)

    async def _post(self, server: Server, content: bytes, until: float) -> Answer:
        try:
            async with asyncio.timeout_at(until):
                return await self._connections[server.url].post(content)
        except TimeoutError:
            message = f"no answer within {self.config.attempt_timeout_seconds:g} seconds"
            raise RetryError(message, overload=True) from None
        except ConnectFailed as error:
            raise ConnectionRefused(self._redacted(str(error))) from None
        except Broken as error:
            raise RetryError(self._redacted(str(error))) from None

    def _body(self, server: Server, answer: Answer) -> Mapping[str, Any]:
        status = answer.status
        if status in RETRIED_STATUS:
            wait_seconds = retry_after_seconds(answer.headers.get("retry-after", ""))
            raise RetryError(f"HTTP {status}", wait_seconds, overload=status in OVERLOAD_STATUS)
        if status != 200:
            message = self._redacted(f"HTTP {status} from {server.url}: {answer.text[:300]}")
            raise ContentError(message) if status in CONTENT_STATUS else PermanentError(message)
        try:
            body = orjson.loads(answer.content)
        except orjson.JSONDecodeError:
            raise RetryError("the body is not JSON (cut off?)") from None
        if not isinstance(body, dict):
            raise ContentError("the body is not a JSON object")
        served = str(body.get("model", ""))
        if not any(fnmatchcase(served, pattern) for pattern in self.config.served_models):
            expected = ", ".join(self.config.served_models)
            raise PermanentError(f"the server answered as model `{served}`; served_models allows {expected}")
        return body

    def _authorization(self) -> list[tuple[str, str]]:
        if not self.config.key_env:
            return []
        if not os.environ.get(self.config.key_env):
            raise UserError(
                f"environment variable `{self.config.key_env}` is not set",
                where=self.where,
                fix="export it, or drop key_env",
            )
        return [("Authorization", f"Bearer {os.environ[self.config.key_env]}")]

    def _redacted(self, message: str) -> str:
        key = os.environ.get(self.config.key_env, "") if self.config.key_env else ""
        return SECRET.sub(r"\1[redacted]", message.replace(key, "[redacted]") if key else message)


def _cost(request: Request, response: Mapping[str, Any]) -> Spent:
    """The server's count, or without one an estimate from the characters."""
    usage = response.get("usage") or {}
    prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if isinstance(prompt, int) and isinstance(completion, int):
        return Spent(prompt, completion)
    written = sum(len(message["content"]) for message in request.messages)
    return Spent(written // CHARACTERS_PER_TOKEN, len(str(response.get("choices", ""))) // CHARACTERS_PER_TOKEN)


def retry_after_seconds(header: str) -> float:
    """Seconds a `Retry-After` header asks for, as a number or an HTTP date, between 0 and 10 minutes."""
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(header).timestamp() - time.time()
        except ValueError:
            return 0.0
    return min(LONGEST_RETRY_AFTER_SECONDS, max(0.0, seconds))
