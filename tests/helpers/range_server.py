"""An HTTP server of a folder that answers ranges, concurrently, and misbehaves on demand: a store across a network."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@dataclass
class RangeServer:
    """What it was asked, and how it is to answer."""

    root: Path
    port: int = 0
    asked: list[tuple[str, str]] = field(default_factory=list)  # (path, range)
    in_flight: int = 0
    most_in_flight: int = 0
    delay_seconds: float = 0.0
    cut: set[str] = field(default_factory=set)  # endings of paths: half the bytes, then the connection is closed
    cut_once: set[str] = field(default_factory=set)
    wrong: set[str] = field(default_factory=set)  # one bit of the answer differs
    whole: bool = False  # ranges are ignored
    lock: Any = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def is_cut(self, path: str) -> bool:
        for ending in self.cut_once:
            if path.endswith(ending):
                self.cut_once.remove(ending)
                return True
        return any(path.endswith(ending) for ending in self.cut)


@contextmanager
def serving(root: Path) -> Generator[RangeServer]:
    """The server on a free port of the loopback, in threads of this process."""
    state = RangeServer(root)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

        def do_HEAD(self) -> None:
            self._answer(head=True)

        def do_GET(self) -> None:
            self._answer(head=False)

        def _answer(self, head: bool) -> None:
            asked = self.headers.get("Range", "")
            with state.lock:
                state.asked.append((self.path, asked))
                state.in_flight += 1
                state.most_in_flight = max(state.most_in_flight, state.in_flight)
            try:
                time.sleep(state.delay_seconds)
                self._send(asked, head)
            finally:
                with state.lock:
                    state.in_flight -= 1

        def _send(self, asked: str, head: bool) -> None:
            path = state.root / self.path.lstrip("/")
            if not path.is_file():
                self.send_response(404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            data = path.read_bytes()
            found = re.fullmatch(r"bytes=(\d+)-(\d+)", asked)
            partial = found is not None and not state.whole
            if found is not None and partial:
                start, end = int(found[1]), min(int(found[2]) + 1, len(data))
                size, data = len(data), data[start:end]
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
            else:
                self.send_response(200)
            if any(self.path.endswith(ending) for ending in state.wrong):
                data = bytes([data[0] ^ 1]) + data[1:]
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if head:
                return
            if state.is_cut(self.path):
                self.wfile.write(data[: len(data) // 2])
                self.close_connection = True
                self.connection.shutdown(2)
                return
            self.wfile.write(data)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        state.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield state
        server.shutdown()
