"""A chat completions server that misbehaves on demand: in a thread of a test, or as a process of its own.

The user's last words say how to fail first: `429 cut ok` fails twice, then answers. `python fault_server.py` serves
until it is ended, prints its port, and counts the answers to each question in the file it is given.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

SECRET = "sk-very-secret-key-123456"


FAULTS = ("429", "500", "503", "later", "cut", "reset", "json", "hang", "422")


@dataclass
class FaultServer:
    """Answers chat completions. The user's words say how to fail first: `429 cut ok` fails twice, then answers."""

    port: int = 0
    attempts: Counter[str] = field(default_factory=Counter)
    in_flight: int = 0
    most_in_flight: int = 0
    times: list[float] = field(default_factory=list)
    authorizations: set[str] = field(default_factory=set)
    bodies: list[dict[str, object]] = field(default_factory=list)
    refuses_schemas: bool = False
    tally: Path | None = None  # file that gets a line an answer

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                await self._one(head.decode(), reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _one(self, head: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in head.split("\r\n"))}
        body = json.loads(await reader.readexactly(int(headers["content-length"])))
        self.authorizations.add(headers.get("authorization", ""))
        self.bodies.append(body)
        words = body["messages"][-1]["content"].split("\n\n")[-1].strip()
        fault = [*words.split(), "ok"][min(self.attempts[words], len(words.split()) - 1)]
        self.attempts[words] += 1
        self.times.append(asyncio.get_running_loop().time())
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        await asyncio.sleep(0.005)
        self.in_flight -= 1
        if self.refuses_schemas and "response_format" in body:
            writer.write(b"HTTP/1.1 400 Bad\r\nContent-Length: 29\r\n\r\nresponse_format is not known.")
            return
        await self._answer(fault, words, writer)
        if self.tally is not None and fault not in FAULTS:
            with self.tally.open("a") as handle:
                handle.write(f"{words}\n")

    async def _answer(self, fault: str, words: str, writer: asyncio.StreamWriter) -> None:
        message = {"role": "assistant", "content": f"answer to {words}", "reasoning_content": f"thought on {words}"}
        if words.startswith("object"):
            message = {"role": "assistant", "content": words.removeprefix("object")}
        full = {
            "model": "served-model",
            "choices": [{"message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 6, "completion_tokens": 7, "total_tokens": 13},
        }
        payload, status, extra = json.dumps(full).encode(), "200 OK", ""
        if fault == "hang":
            await asyncio.sleep(30)
        if fault == "reset":
            writer.transport.abort()
            return
        if fault.isdigit():
            status, payload = f"{fault} Trouble", f'{{"error": "key {SECRET} refused"}}'.encode()
        if fault == "later":
            status, extra = "429 Slow down", "Retry-After: 0.3\r\n"
        if fault == "empty":
            payload = b'{"choices": []}'
        if fault == "json":
            payload = payload[:-20]
        cut = payload[: len(payload) // 2] if fault == "cut" else payload
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(payload)}\r\n{extra}\r\n".encode() + cut)
        await writer.drain()
        if fault == "cut":
            writer.transport.abort()


@contextmanager
def running() -> Generator[FaultServer]:
    """A server in a thread."""
    faults = FaultServer()
    loop = asyncio.new_event_loop()
    started = threading.Event()

    def run() -> None:
        asyncio.set_event_loop(loop)
        listening = loop.run_until_complete(asyncio.start_server(faults.serve, "127.0.0.1", 0))
        faults.port = listening.sockets[0].getsockname()[1]
        started.set()
        loop.run_forever()
        listening.close()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0.01))
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    started.wait(5)
    yield faults
    loop.call_soon_threadsafe(loop.stop)
    thread.join(5)


async def _serve_alone(tally: Path) -> None:
    faults = FaultServer(tally=tally)
    listening = await asyncio.start_server(faults.serve, "127.0.0.1", 0, backlog=1000)
    print(listening.sockets[0].getsockname()[1], flush=True)
    await listening.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve_alone(Path(sys.argv[1])))
