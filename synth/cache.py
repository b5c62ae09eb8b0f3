"""Requests with content-addressed keys, and replay of recorded responses.

Contract: a request's key is the SHA-256 of the canonical JSON of everything that shapes the answer (model, messages,
parameters, sample number, prompt and its version, JSON schema where there is one) and of nothing else, so that the same
question is asked once, whatever document it came from. Recorded responses are a JSONL file of
`{"key", "prompt", "document", "response"}` rows.
"""

from __future__ import annotations

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
    prompt_hash: str = field(default="", compare=False)  # of the template's wording
    schema: Mapping[str, Any] | None = None  # JSON Schema of the answer; None: any text

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
                **({} if self.schema is None else {"schema": self.schema}),
            }
        )

    def body(self) -> dict[str, Any]:
        """The JSON body of the HTTP request. The seed tells samples of one question apart and follows from the key, so
        that servers that honour it answer the same again."""
        messages = [dict(message) for message in self.messages]
        body: dict[str, Any] = {"model": self.model, "messages": messages, **self.parameters}
        body["seed"] = int(self.key[:7], 16)
        if self.schema is not None:
            named = {"name": "answer", "schema": self.schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": named}
        return body

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
