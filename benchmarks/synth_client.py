"""Chat completions from a local server at concurrency 256: our client against datatrove's runner and bare clients.

Contract: the same requests to the same server, which answers at once and runs in a process apart; every side starts
its own connections. Rates are told a CPU second of the client, its stores and writers included, and by the clock,
which two processes on busy cores disturb; `notes` of the latter have the server's own CPU milliseconds a request, below
which no client can get. Ours keeps every answer in its response store, datatrove's writes its output file, httpx keeps
nothing, and the bare sockets do not even read what they are sent. `equal`: every request was answered with the same
text.
"""

from __future__ import annotations

import asyncio
import gc
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.datatrove_peer import silence
from benchmarks.measure import interleaved
from benchmarks.peers import against, missing
from benchmarks.result import Comparison, Found, Spread
from benchmarks.settings import Settings, SizeName
from synth.cache import Request
from synth.client import EndpointClient
from synth.completion import Completion
from synth.config import EndpointConfig
from synth.store import ResponseStore

NAME = "synth-client"
CONCURRENCY = 256
MODEL = "benchmark"
ANSWER = "Nineteen boats wait below the lock. " * 20
Answers = Callable[[], int]  # how many answers were the expected one


@dataclass(frozen=True)
class Load:
    requests: int
    rounds: int


LOADS: dict[SizeName, Load] = {"full": Load(1500, 2), "quick": Load(60, 1)}


def run(settings: Settings) -> Iterator[Found]:
    """Against datatrove's InferenceRunner, bare httpx and bare sockets."""
    load = LOADS[settings.size]
    with _server() as (url, server):
        ours = partial(_ours, url, load.requests)
        peers = {
            "datatrove InferenceRunner": partial(_datatrove, url, load.requests),
            "bare httpx": partial(_httpx, url, load.requests),
            "bare sockets": partial(_sockets, url, load.requests),
        }
        needed = {"datatrove InferenceRunner": ("datatrove", "aiofiles", "aiosqlite")}
        for name, theirs in peers.items():
            modules = needed.get(name, ())
            yield from against(name, modules, partial(_by_cpu, load, name, ours, theirs))
            if not missing(*modules):
                yield from against(name, modules, partial(_by_clock, load, name, ours, theirs, server))


def _by_cpu(load: Load, peer_name: str, ours: Answers, theirs: Answers) -> Comparison:
    equal = ours() == theirs() == load.requests
    seconds = interleaved([ours, theirs], load.rounds)
    return _comparison(load, "a CPU second", peer_name, seconds, equal, {})


def _by_clock(load: Load, peer_name: str, ours: Answers, theirs: Answers, server: Server) -> Comparison:
    equal = ours() == theirs() == load.requests
    seconds, served = _clocked([ours, theirs], load.rounds, server)
    notes = {"server_ms_a_request": [round(1000 * one / load.requests, 4) for one in served]}  # with ours, with theirs
    return _comparison(load, "by the clock", peer_name, seconds, equal, notes)


def _comparison(
    load: Load, what: str, peer_name: str, seconds: list[list[float]], equal: bool, notes: dict[str, Any]
) -> Comparison:
    ours, theirs = (Spread.rate(load.requests, one) for one in seconds)
    told = f"generated: {load.requests} requests to a local server, answers of {len(ANSWER)} characters"
    return Comparison(
        NAME,
        f"concurrency {CONCURRENCY}, {what}",
        "requests/s",
        ours,
        theirs,
        peer_name,
        told,
        equal=equal,
        notes=notes,
    )


def _clocked(sides: Sequence[Answers], rounds: int, server: Server) -> tuple[list[list[float]], list[float]]:
    """Seconds by the clock of each side in each round, in turn, and the server's CPU seconds in each side's last."""
    seconds: list[list[float]] = [[] for _ in sides]
    served = [0.0 for _ in sides]
    for _ in range(rounds):
        for number, side in enumerate(sides):
            gc.collect()
            before, began = server.cpu_seconds(), time.perf_counter()
            side()
            seconds[number].append(time.perf_counter() - began)
            served[number] = server.cpu_seconds() - before
    return seconds, served


def _prompt(number: int) -> str:
    return f"Question {number}: what waits below the lock?"


def _ours(url: str, count: int) -> int:
    requests = [
        Request(MODEL, ({"role": "user", "content": _prompt(number)},), {"temperature": 0.6}, "benchmark@1")
        for number in range(count)
    ]
    with tempfile.TemporaryDirectory() as folder:
        config = EndpointConfig.model_validate({"url": url, "model": MODEL, "max_concurrency": CONCURRENCY})
        client = EndpointClient(config, ResponseStore(Path(folder), "0"), where="benchmark")
        outcomes = asyncio.run(client.session(requests))
    return sum(isinstance(one, Completion) and one.content == ANSWER.strip() for one in outcomes)


def _httpx(url: str, count: int) -> int:
    import httpx

    async def ask_all() -> list[str]:
        slots = asyncio.Semaphore(CONCURRENCY)
        async with httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=CONCURRENCY)) as http:

            async def ask(number: int) -> str:
                body = {"model": MODEL, "messages": [{"role": "user", "content": _prompt(number)}]}
                async with slots:
                    answer = await http.post(f"{url}/chat/completions", json=body)
                return answer.json()["choices"][0]["message"]["content"]

            return await asyncio.gather(*(ask(number) for number in range(count)))

    return asyncio.run(ask_all()).count(ANSWER)


def _sockets(url: str, count: int) -> int:
    """What sending and receiving costs alone: no JSON, no HTTP parser, answers told apart by their length."""
    host, port = url.removeprefix("http://").removesuffix("/v1").split(":")
    bodies = [
        json.dumps({"model": MODEL, "messages": [{"role": "user", "content": _prompt(number)}]}).encode()
        for number in range(count)
    ]
    waiting = [
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        for body in bodies
    ]
    expected = len(_answer())
    answered = 0

    async def ask_all() -> None:
        loop = asyncio.get_running_loop()
        done = loop.create_future()

        class Line(asyncio.Protocol):
            received = 0
            transport: asyncio.Transport

            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                assert isinstance(transport, asyncio.Transport)
                self.transport = transport
                self.following()

            def following(self) -> None:
                if waiting:
                    self.transport.write(waiting.pop())

            def data_received(self, data: bytes) -> None:
                nonlocal answered
                self.received += len(data)
                if self.received >= expected:
                    self.received -= expected
                    answered += 1
                    if answered == count and not done.done():
                        done.set_result(None)
                    self.following()

        lines = [await loop.create_connection(Line, host, int(port)) for _ in range(min(CONCURRENCY, count))]
        await done
        for transport, _ in lines:
            transport.close()

    asyncio.run(ask_all())
    return answered


def _datatrove(url: str, count: int) -> int:
    from datatrove.data import Document
    from datatrove.pipeline.inference.run_inference import InferenceConfig, InferenceRunner
    from datatrove.pipeline.writers import JsonlWriter

    silence()
    answers: list[str] = []

    async def rollout(document: Document, generate: Any, **_: Any) -> str:
        result = await generate({"messages": [{"role": "user", "content": document.text}]})
        answers.append(result.text)
        return result.text

    config = InferenceConfig(
        "endpoint",
        MODEL,
        endpoint_url=url.removesuffix("/v1"),
        max_concurrent_generations=CONCURRENCY,
        server_ready_delay_sec=0.05,
    )
    given = [Document(text=_prompt(number), id=str(number)) for number in range(count)]
    with tempfile.TemporaryDirectory() as folder:
        InferenceRunner(rollout, config, JsonlWriter(folder, compression=None)).run(given)
    return answers.count(ANSWER)


@dataclass(frozen=True)
class Server:
    """The server's process."""

    pid: int

    def cpu_seconds(self) -> float:
        """So far; 0 where the system does not tell (only Linux does)."""
        path = Path(f"/proc/{self.pid}/stat")
        if not path.is_file():
            return 0.0
        fields = path.read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def _server() -> Generator[tuple[str, Server]]:
    """A chat completions server in its own process; gives its URL, up to /v1."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,), daemon=True)
    process.start()
    try:
        port = ours.recv()
        assert process.pid is not None
        yield f"http://127.0.0.1:{port}/v1", Server(process.pid)
    finally:
        process.terminate()
        process.join()


def _answer() -> bytes:
    """What the server says to every request, with its headers."""
    message = {"role": "assistant", "content": ANSWER}
    usage = {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    body = json.dumps({"id": "0", "model": MODEL, "choices": [choice], "usage": usage}).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


class _Answering(asyncio.Protocol):
    """One connection of the server: as little work a request as Python can do, so that clients are what is measured."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._unread = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._unread += data
        while (head := self._unread.find(b"\r\n\r\n")) >= 0:
            headers = self._unread[:head].lower()
            at = headers.find(b"content-length:")
            length = int(headers[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self._unread) < head + 4 + length:
                return
            self._unread = self._unread[head + 4 + length :]
            self._transport.write(self._answer)
            if b"connection: close" in headers:
                self._transport.close()


def _serve(port_to: Connection) -> None:
    answer = _answer()

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Answering(answer), "127.0.0.1", 0, backlog=CONCURRENCY)
        port_to.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(serve())
