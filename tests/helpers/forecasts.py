"""What tests ask of forecasts: their requests and bounds by part, and whether a bound holds what was asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from synth.cache import Request
from synth.client import Outcome, parsed
from synth.config import ReplayConfig, endpoint_binding
from synth.forecast import NOTHING, AtMost, Bound, completion_tokens, prompt_tokens
from synth.store import Stored


def requests_of(found: Iterable[tuple[str, Request | AtMost]], part: str) -> list[Request]:
    return [one for name, one in found if name == part and isinstance(one, Request)]


def most_of(found: Iterable[tuple[str, Request | AtMost]], part: str) -> Bound:
    return sum((one.most for name, one in found if name == part and isinstance(one, AtMost)), NOTHING)


def size(requests: Iterable[Request]) -> Bound:
    return sum((Bound(1, prompt_tokens(one.messages), completion_tokens(one)) for one in requests), NOTHING)


def holds(bound: Bound, asked: Bound) -> bool:
    return (
        bound.requests >= asked.requests
        and bound.prompt_tokens >= asked.prompt_tokens
        and bound.completion_tokens >= asked.completion_tokens
    )


def nothing_stored(_: Request) -> Outcome | None:
    return None


def stored(recorded: Mapping[str, Any]) -> Callable[[Request], Outcome | None]:
    return lambda one: parsed(one, Stored(recorded[one.key])) if one.key in recorded else None


def binding(settings: Any, folder: Path) -> Mapping[str, tuple[str, ...]]:
    (folder / "none.jsonl").write_text("")
    return endpoint_binding("s", settings, {"replay": ReplayConfig(responses=str(folder / "none.jsonl"))})[0]
