"""What must happen to each sample document, as `samples/expected.json`.

Contract: one entry a document, by source and by URL (pages), own id (records) or place (what cannot be read).
`outcome` is `kept` or `dropped`; `reasons` are patterns of `block.rule`; of the documents of a `group` exactly one is
kept and the others are dropped for one of their reasons; a kept text has every string of `contains` and none of
`lacks`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

SNIPPET_CHARACTERS = 24
_MARKS = re.compile(r"[`$\n]")


@dataclass(frozen=True)
class Expectation:
    """The outcome of one document; `group` names documents of which one survives."""

    source: str
    key: str
    outcome: str
    reasons: tuple[str, ...]
    lang: str | None
    why: str
    contains: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    group: str | None = None


def snippets(body: str) -> tuple[str, ...]:
    """The first and the last characters of a text, between its marks of code, formula and line."""
    runs = [run.strip() for run in _MARKS.split(body)]
    long = [run.removeprefix("## ").removeprefix("- ") for run in runs if len(run) > SNIPPET_CHARACTERS]
    return long[0][:SNIPPET_CHARACTERS].strip(), long[-1][-SNIPPET_CHARACTERS:].strip()


def good(source: str, key: str, lang: str, body: str, *, lacks: Iterable[str] = ()) -> Expectation:
    """A good document: kept in its language, whole, without what surrounded it."""
    return Expectation(source, key, "kept", (), lang, "Good text.", snippets(body), tuple(lacks))


def expected_json(expectations: Iterable[Expectation], collected: str) -> str:
    """Raises `ValueError` when two documents of a source have the same key."""
    sources: dict[str, dict[str, Any]] = {}
    for one in expectations:
        entries = sources.setdefault(one.source, {})
        if one.key in entries:
            raise ValueError(f"two sample documents of `{one.source}` are called `{one.key}`")
        entry: dict[str, Any] = {"outcome": one.outcome, "why": one.why}
        for name, value in (("reasons", one.reasons), ("lang", one.lang), ("group", one.group)):
            entry |= {name: value} if value else {}
        for name, values in (("contains", one.contains), ("lacks", one.lacks)):
            entry |= {name: list(values)} if values else {}
        entries[one.key] = entry
    whole = {"collected": collected, "sources": sources}
    return json.dumps(whole, ensure_ascii=False, indent=1, sort_keys=True) + "\n"
