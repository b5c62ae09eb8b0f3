"""The endpoint client: chat completions from any OpenAI-compatible server, many at a time.

Contract: `ask` returns one `Completion` or `ContentError` per request, in the order of the requests, and asks each
distinct key once. Concurrency follows the server (additive increase, multiplicative decrease, `synth/limits.py`);
a waiting request holds no slot. Refusals of the server fall into three kinds:

`RetryError`      429, 5xx, 408, 409, time-outs, broken connections, cut-off bodies: asked again after a jittered wait
                  (Retry-After is honoured); still failing at the deadline, the whole call ends in a `UserError` after
                  every other answer was stored, so that the next run asks only for the rest
`PermanentError`  401, 403, 404 …: nothing would change, the call ends at once in a `UserError`
`ContentError`    400, 413, 422 and answers that are no completion: this one document is given back as failed

Keys are read from the environment and removed from every message. Cost: below a millisecond of our time a request.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from random import Random
from typing import Any

import httpx

from pipeline.core.errors import UserError
from synth.cache import Replay, Request, ResponseStore
from synth.config import EndpointConfig
from synth.limits import AdaptiveLimit

FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 60.0
RETRIED_STATUS = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
CONTENT_STATUS = frozenset({400, 413, 422})
THINK = re.compile(r"^\s*<think>(?P<reasoning>.*?)(?P<end></think>|\Z)", re.S)
SECRET = re.compile(r"(?i)(bearer\s+|\b(?:sk|hf|gsk|nvapi)[-_])[\w.\-]{6,}")


class RetryError(Exception):
    """A failure that may pass."""

    def __init__(self, message: str, wait_seconds: float = 0.0) -> None:
        super().__init__(message)
        self.wait_seconds = wait_seconds  # what the server asked for


class PermanentError(Exception):
    """A failure that no further attempt changes."""


class ContentError(Exception):
    """The server answered, but not with a completion for this request."""


@dataclass(frozen=True)
class Completion:
    """One answer, reasoning apart from content."""

    key: str
    model: str  # what the server said
    reasoning: str
    content: str
    finish_reason: str
    usage: Mapping[str, int] = field(default_factory=dict)

    @property
    def thought(self) -> str:
        """The reasoning, or the content of a model that thinks in the open."""
        return self.reasoning or self.content


Outcome = Completion | ContentError


def parse_completion(key: str, body: Mapping[str, Any]) -> Completion:
    """Read a chat completion body; raises `ContentError` when it is none."""
    try:
        choice = body["choices"][0]
        message = choice["message"]
        content = message.get("content") or ""
        reasoning = message.get("reasoning_content") or message.get("reasoning") or ""
        finish_reason = choice.get("finish_reason") or ""
    except (KeyError, IndexError, TypeError, AttributeError):
        raise ContentError("the answer has no `choices[0].message`") from None
    if not isinstance(content, str) or not isinstance(reasoning, str):
        raise ContentError("the answer's content is not text")
    if not reasoning and (match := THINK.match(content)):
        reasoning = match["reasoning"]
        content = content[match.end() :]
    usage = body.get("usage") or {}
    counts = {name: count for name, count in sorted(usage.items()) if isinstance(count, int)}
    completion = Completion(key, str(body.get("model", "")), reasoning.strip(), content.strip(), finish_reason, counts)
    if not completion.thought:
        raise ContentError("the answer is empty")
    return completion


def ask(requests: Sequence[Request], backend: Replay | EndpointClient) -> list[Outcome]:
    """One outcome per request, in order. Raises `UserError` for missing recordings and servers that do not answer."""
    if isinstance(backend, Replay):
        return [_parsed(request, backend.body(request)) for request in requests]
    return asyncio.run(backend.complete(requests))


def _parsed(request: Request, body: Mapping[str, Any]) -> Outcome:
    try:
        return parse_completion(request.key, body)
    except ContentError as error:
        return error


class EndpointClient:
    """Requests to one endpoint, through a response store."""

    def __init__(self, config: EndpointConfig, store: ResponseStore, *, where: str) -> None:
        """`where` is the option that named the endpoint, for messages."""
        self.config = config
        self.store = store
        self.where = where
        self.limit = AdaptiveLimit(config.max_concurrency)

    async def complete(self, requests: Sequence[Request]) -> list[Outcome]:
        distinct = {request.key: request for request in requests}
        timeout = httpx.Timeout(
            self.config.attempt_timeout_seconds, connect=min(30.0, self.config.attempt_timeout_seconds)
        )
        limits = httpx.Limits(max_connections=self.config.max_concurrency)
        async with httpx.AsyncClient(timeout=timeout, limits=limits, headers=self._headers()) as http:
            tasks = {key: asyncio.create_task(self._one(http, request)) for key, request in distinct.items()}
            try:
                outcomes = await asyncio.gather(*tasks.values())
            except PermanentError as error:
                raise UserError(
                    str(error), where=self.where, fix="check the endpoint's url, model and key_env"
                ) from None
            finally:
                for task in tasks.values():
                    task.cancel()
                await asyncio.gather(*tasks.values(), return_exceptions=True)
        by_key = dict(zip(tasks, outcomes, strict=True))
        failed = [outcome for outcome in by_key.values() if isinstance(outcome, RetryError)]
        if failed:
            raise UserError(
                f"{len(failed)} of {len(by_key)} requests got no answer from {self.config.url}; the first: {failed[0]}",
                where=self.where,
                fix="run again when the server answers: the other answers are stored and not asked for again",
            )
        found = [by_key[request.key] for request in requests]
        return [outcome for outcome in found if not isinstance(outcome, RetryError)]

    async def _one(self, http: httpx.AsyncClient, request: Request) -> Outcome | RetryError:
        stored = self.store.get(request.key)
        if stored is not None:
            return _parsed(request, stored)
        jitter = Random(request.key)
        loop = asyncio.get_running_loop()
        deadline = float("inf")
        for attempt in range(1, self.config.max_attempts + 1):
            try:
                async with self.limit:
                    if attempt == 1:  # waiting for the first slot is our own queue, not the server
                        deadline = loop.time() + self.config.deadline_seconds
                    async with asyncio.timeout_at(deadline):
                        body = await self._post(http, request)
            except ContentError as error:
                return error
            except TimeoutError:
                return RetryError(f"no answer within {self.config.deadline_seconds:g} seconds")
            except RetryError as error:
                last = error
            else:
                self.limit.succeeded()
                self.store.put(request, body)
                return _parsed(request, body)
            self.limit.failed()
            backoff = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2 ** (attempt - 1))
            wait_seconds = last.wait_seconds + backoff * (0.5 + jitter.random() / 2)
            if attempt == self.config.max_attempts or loop.time() + wait_seconds > deadline:
                return RetryError(f"{last} (attempt {attempt} of {self.config.max_attempts})")
            await asyncio.sleep(wait_seconds)
        raise AssertionError("the loop returns on its last attempt")

    async def _post(self, http: httpx.AsyncClient, request: Request) -> Mapping[str, Any]:
        try:
            async with asyncio.timeout(self.config.attempt_timeout_seconds):
                answer = await http.post(f"{self.config.url.rstrip('/')}/chat/completions", json=request.body())
        except TimeoutError:
            raise RetryError(f"no answer within {self.config.attempt_timeout_seconds:g} seconds") from None
        except httpx.TransportError as error:
            raise RetryError(self._redacted(f"{type(error).__name__}: {error}")) from None
        if answer.status_code in RETRIED_STATUS:
            raise RetryError(f"HTTP {answer.status_code}", retry_after_seconds(answer.headers.get("retry-after", "")))
        if answer.status_code != 200:
            message = self._redacted(f"HTTP {answer.status_code} from {self.config.url}: {answer.text[:300]}")
            raise ContentError(message) if answer.status_code in CONTENT_STATUS else PermanentError(message)
        try:
            body = answer.json()
        except ValueError:
            raise RetryError("the body is not JSON (cut off?)") from None
        if not isinstance(body, dict):
            raise ContentError("the body is not a JSON object")
        return body

    def _headers(self) -> dict[str, str]:
        if not self.config.key_env:
            return {}
        if not os.environ.get(self.config.key_env):
            raise UserError(
                f"environment variable `{self.config.key_env}` is not set",
                where=self.where,
                fix="export it, or drop key_env",
            )
        return {"Authorization": f"Bearer {os.environ[self.config.key_env]}"}

    def _redacted(self, message: str) -> str:
        key = os.environ.get(self.config.key_env, "") if self.config.key_env else ""
        return SECRET.sub(r"\1[redacted]", message.replace(key, "[redacted]") if key else message)


def retry_after_seconds(header: str) -> float:
    """Seconds a `Retry-After` header asks for, as a number or an HTTP date, between 0 and 10 minutes."""
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(header).timestamp() - time.time()
        except ValueError:
            return 0.0
    return min(600.0, max(0.0, seconds))
