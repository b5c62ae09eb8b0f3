"""A helper process that can be killed: one request at a time, with a time limit.

Contract: `Worker.ask` returns the answer of `function(config, request)`, or None when it took longer than the limit or
the process died (out of memory, a crash in native code); the next request starts a new process. Messages are JSON with
a four-byte big-endian length. A subprocess is used, not `multiprocessing`: executors run us in daemonic processes,
which may not have children of that kind.
"""

from __future__ import annotations

import os
import select
import struct
import subprocess
import sys
import time
import weakref
from collections.abc import Mapping
from importlib import import_module
from typing import IO, Any

import orjson

_LENGTH = struct.Struct(">I")
START_SECONDS = 120.0  # for importing the function's libraries on a busy machine; not part of a request's limit


class Worker:
    """Owner of the process. `function` is an import path, `module:name`."""

    def __init__(self, function: str, config: Mapping[str, Any]) -> None:
        self._command = [sys.executable, "-m", "stages.extract_worker", function, orjson.dumps(config).decode()]
        self._process: subprocess.Popen[bytes] | None = None
        self._finalizer: weakref.finalize | None = None

    def ask(self, request: Mapping[str, Any], seconds: float) -> Any | None:
        """The answer, or None when there is none within `seconds`."""
        process = self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            _send(process.stdin, request)
            reply = _receive_within(process.stdout.fileno(), seconds)
        except (BrokenPipeError, EOFError):
            reply = None
        if reply is None:
            self.close()
        return reply

    def close(self) -> None:
        """Kill the process, if there is one."""
        if self._finalizer is not None:
            self._finalizer()
        self._process = self._finalizer = None

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            self._process, self._finalizer = process, weakref.finalize(self, _end, process)
            assert process.stdout is not None
            if _receive_within(process.stdout.fileno(), START_SECONDS) != "ready":
                message = f"the helper process did not start: {' '.join(self._command[:4])}"
                raise RuntimeError(message)
        return self._process


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def _send(pipe: IO[bytes], value: Any) -> None:
    data = orjson.dumps(value)
    pipe.write(_LENGTH.pack(len(data)) + data)
    pipe.flush()


def _receive_within(descriptor: int, seconds: float) -> Any | None:
    """The next message, None after `seconds`; raises `EOFError` when the other end is gone."""
    end = time.monotonic() + seconds
    data = b""
    wanted = _LENGTH.size
    while len(data) < wanted:
        ready, _, _ = select.select([descriptor], [], [], max(0.0, end - time.monotonic()))
        if not ready:
            return None
        part = os.read(descriptor, 1 << 16)
        if not part:
            raise EOFError
        data += part
        if wanted == _LENGTH.size and len(data) >= _LENGTH.size:
            wanted += _LENGTH.unpack(data[: _LENGTH.size])[0]
    return orjson.loads(data[_LENGTH.size :])


def main() -> None:
    """Answer requests from standard input until it closes."""
    module, _, name = sys.argv[1].partition(":")
    config = orjson.loads(sys.argv[2])
    function = getattr(import_module(module), name)
    output = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints must not mix with answers
    function(config, {"html": "<html><body></body></html>", "url": None})  # imports before the first limit runs
    _send(output, "ready")
    while header := sys.stdin.buffer.read(_LENGTH.size):
        request = orjson.loads(sys.stdin.buffer.read(_LENGTH.unpack(header)[0]))
        _send(output, function(config, request))


if __name__ == "__main__":
    main()
