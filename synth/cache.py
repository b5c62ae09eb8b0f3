"""Requests and responses: content-addressed keys, an append-only store, and replay of recorded responses.

Contract: a request's key is the SHA-256 of the canonical JSON of everything that shapes the answer (model, messages,
parameters, sample number, prompt and its version) and of nothing else, so that the same question is asked once,
whatever document it came from. A store is a JSONL file of `{"key", "prompt", "document", "response"}` rows; a row cut
off by a kill is ignored when reading and removed before the next append.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson

from pipeline.core.errors import InputError, UserError
from pipeline.core.files import open_input
from pipeline.core.fingerprint import fingerprint


@dataclass(frozen=True)
class Request:
    """One chat completion to ask for."""

    model: str
    messages: tuple[Mapping[str, str], ...]  # role and content
    parameters: Mapping[str, float | int]
    prompt: str  # id@version of the template
    sample: int = 0
    document: str = field(default="", compare=False)  # for messages to people; not part of the key

    @cached_property
    def key(self) -> str:
        """64 hex digits."""
        return fingerprint(
            {
                "model": self.model,
                "messages": [dict(message) for message in self.messages],
                "parameters": dict(self.parameters),
                "prompt": self.prompt,
                "sample": self.sample,
            }
        )

    def body(self) -> dict[str, Any]:
        """The JSON body of the HTTP request."""
        return {"model": self.model, "messages": [dict(message) for message in self.messages], **self.parameters}

    def row(self, response: Mapping[str, Any]) -> dict[str, Any]:
        """The stored form of this request's response."""
        return {"key": self.key, "prompt": self.prompt, "document": self.document, "response": response}


def read_responses(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(key, response) of each row of a recorded file; raises `InputError` naming the line that is not one."""
    with open_input(str(path)) as handle:
        for number, line in enumerate(handle, start=1):
            try:
                row = orjson.loads(line)
                yield row["key"], row["response"]
            except (orjson.JSONDecodeError, KeyError, TypeError):
                raise InputError(
                    "not a recorded response: a JSON object with `key` and `response` is needed",
                    where=f"{path}:{number}",
                    fix="record the file again or remove the line",
                ) from None


@dataclass(frozen=True)
class Replay:
    """Answers from recorded responses only."""

    responses: Mapping[str, Mapping[str, Any]]
    path: str
    step: str  # `synth.SET`
    endpoint: str  # name under `endpoints:`

    @classmethod
    def open(cls, path: str, *, step: str, endpoint: str) -> Replay:
        """Raises `InputError` when the file is missing or a row is not a response."""
        if not Path(path).is_file():
            raise InputError(
                f"no such file: `{path}`", where=f"endpoints.{endpoint}.responses", fix="name an existing file"
            )
        return cls(dict(read_responses(Path(path))), path, step, endpoint)

    def body(self, request: Request) -> Mapping[str, Any]:
        """The recorded response body; raises `UserError` naming document, key and the options to set."""
        found = self.responses.get(request.key)
        if found is None:
            raise UserError(
                f"no recorded response for document `{request.document}` with prompt `{request.prompt}` "
                f"and model `{request.model}` (key {request.key}) among {len(self.responses)} in `{self.path}`",
                where=f"{self.step}.endpoint",
                fix=f"set `{self.step}.endpoint` to a server under `endpoints:`, or "
                f"`endpoints.{self.endpoint}.responses` to a file that holds this key",
            )
        return found


class ResponseStore:
    """A folder of append-only JSONL files, one per writer, shared between runs."""

    def __init__(self, folder: Path, writer: str) -> None:
        """`writer` names this task's own file: no two processes append to one."""
        self.path = folder / f"{writer}.jsonl"
        self._found: dict[str, Mapping[str, Any]] = {}
        for path in sorted(folder.glob("*.jsonl")):
            self._found.update(_whole_rows(path))

    def get(self, key: str) -> Mapping[str, Any] | None:
        return self._found.get(key)

    def put(self, request: Request, response: Mapping[str, Any]) -> None:
        """Append one response; whatever a killed writer left half-written goes first."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps(request.row(response), ensure_ascii=False, sort_keys=True).encode("utf-8") + b"\n"
        with self.path.open("r+b" if self.path.exists() else "w+b") as handle:
            handle.seek(_end_of_whole_lines(handle))
            handle.truncate()
            handle.write(line)
        self._found[request.key] = response


def _whole_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for line in path.read_bytes().splitlines(keepends=True):
        if line.endswith(b"\n"):
            row = orjson.loads(line)
            yield row["key"], row["response"]


def _end_of_whole_lines(handle: Any) -> int:
    """Bytes up to and with the last newline; looks at the tail only."""
    end = handle.seek(0, 2)
    while end > 0:
        start = max(0, end - 65_536)
        handle.seek(start)
        position = handle.read(end - start).rfind(b"\n")
        if position >= 0:
            return start + position + 1
        end = start
    return 0
