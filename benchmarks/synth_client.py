"""Chat completions from a local server at concurrency 256: our client against datatrove's runner and bare httpx.

Contract: the same requests to the same server, which answers at once and runs in a process apart; every side starts
its own connections. Figures are requests a CPU second of the client, its stores and writers included; ours keeps
every answer in its response store, datatrove's writes its output file, httpx keeps nothing. `equal`: every request was
answered with the same text.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.datatrove_peer import silence
from benchmarks.measure import interleaved
from benchmarks.peers import against
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
    """Against datatrove's InferenceRunner and bare httpx."""
    load = LOADS[settings.size]
    with _server() as url:
        yield from against(
            "datatrove InferenceRunner",
            ("datatrove", "aiofiles", "aiosqlite"),
            lambda: _compared(url, load, "datatrove InferenceRunner", partial(_datatrove, url, load.requests)),
        )
        yield _compared(url, load, "bare httpx", partial(_httpx, url, load.requests))


def _compared(url: str, load: Load, peer_name: str, theirs: Answers) -> Comparison:
    ours = partial(_ours, url, load.requests)
    equal = ours() == theirs() == load.requests
    seconds = interleaved([ours, theirs], load.rounds)
    return Comparison(
        NAME,
        f"concurrency {CONCURRENCY}",
        "requests/s",
        Spread.rate(load.requests, seconds[0]),
        Spread.rate(load.requests, seconds[1]),
        peer_name,
        f"generated: {load.requests} requests to a local server, answers of {len(ANSWER)} characters",
        equal=equal,
    )


def _prompt(number: int) -> str:
    return f"Question {number}: what waits below the lock?"


def _ours(url: str, count: int) -> int:
    requests = [
        Request(MODEL, ({"role": "user", "content": _prompt(number)},), {"temperature": 0.6}, "benchmark@1")
        for number in range(count)
    ]
    with tempfile.TemporaryDirectory() as folder:
        config = EndpointConfig(url=url, model=MODEL, max_concurrency=CONCURRENCY)
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


@contextmanager
def _server() -> Generator[str]:
    """A chat completions server in its own process; gives its URL, up to /v1."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}/v1"
    finally:
        process.terminate()
        process.join()


def _serve(port_to: Connection) -> None:
    message = {"role": "assistant", "content": ANSWER}
    usage = {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    body = json.dumps({"id": "0", "model": MODEL, "choices": [choice], "usage": usage}).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                headers = (await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
                lengths = [line for line in headers if line.startswith(b"content-length:")]
                if lengths:
                    await reader.readexactly(int(lengths[0].split(b":")[1]))
                writer.write(head + body)
                await writer.drain()
                if b"connection: close" in headers:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has what it wanted
        finally:
            writer.close()

    async def serve() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=CONCURRENCY)
        port_to.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(serve())
