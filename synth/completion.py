"""An answer, read and validated: reasoning apart from content, structured output against its schema.

Contract: `parse_completion` gives a `Completion` or raises `ContentError`. Output that should fit a JSON Schema is
always validated here, whatever the server promised: a JSON object or array in the content (in a code fence or among
words) must fit, or the answer is refused. Cost: 20 microseconds; validation by the size of the object.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from json import JSONDecodeError, JSONDecoder, dumps
from typing import Any

from synth.cache import Request

THINK = re.compile(r"^\s*<think>(?P<reasoning>.*?)(?P<end></think>|\Z)", re.S)
JSON_START = re.compile(r"[{\[]")
DECODER = JSONDecoder(strict=False)  # models write line breaks into strings as they are


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
    structured: Any = None  # what fits the request's schema
    attempts: int = 1
    latency_ms: int = 0

    @property
    def thought(self) -> str:
        """The reasoning, or the content of a model that thinks in the open."""
        return self.reasoning or self.content


def parse_completion(request: Request, body: Mapping[str, Any], attempts: int = 1, latency_ms: int = 0) -> Completion:
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
    reasoning, content = reasoning.strip(), content.strip()
    if not (reasoning or content):
        raise ContentError("the answer is empty")
    structured = None if request.schema is None else structured_output(content, request.schema)
    model = str(body.get("model", ""))
    return Completion(request.key, model, reasoning, content, finish_reason, counts, structured, attempts, latency_ms)


def structured_output(content: str, schema: Mapping[str, Any]) -> Any:
    """The first JSON value in `content` that fits; raises `ContentError` saying why none does."""
    from jsonschema import Draft202012Validator

    validator = Draft202012Validator(schema)
    trouble = "the answer holds no JSON object"
    position = 0
    while match := JSON_START.search(content, position):
        try:
            value, end = DECODER.raw_decode(content, match.start())
        except JSONDecodeError as error:
            trouble, position = f"the answer's JSON is broken: {error.msg}", match.end()
            continue
        except RecursionError:  # a model that opens brackets without end
            raise ContentError("the answer's JSON is nested too deeply") from None
        errors = sorted(validator.iter_errors(value), key=lambda error: list(map(str, error.absolute_path)))
        if not errors and _can_be_written(value):
            return value
        if not errors:
            trouble, position = "the answer's JSON has half of a surrogate pair", end
            continue
        place = "/".join(map(str, errors[0].absolute_path)) or "the whole"
        trouble, position = f"the answer does not fit its schema at {place}: {errors[0].message[:200]}", end
    raise ContentError(trouble)


def _can_be_written(value: Any) -> bool:
    """Whether its texts are UTF-8: escapes in JSON can give half of a surrogate pair."""
    try:
        dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True
