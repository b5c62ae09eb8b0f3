"""What hosts say in files of their own about being used: robots.txt, ai.txt and tdmrep.json, given as collected files.

Contract: one host's file is `HOST.txt` or `HOST.json`; many hosts' are JSONL lines `{"host": …, "text": …}` (for
tdmrep `"rules"` in place of text) or WARC captures of the files themselves. A host counts as it is named, without its
port; where several captures of one host differ, each of them may forbid. Nothing is fetched.
Sources: robots.txt is RFC 9309, parsed by protego; ai.txt (Spawning, 2023) has the same grammar with file endings as
patterns, so that a page without an ending is also asked about as `.html`; tdmrep.json is the W3C community's TDM
Reservation Protocol, of whose matching locations the longest decides, and of equal ones the reserving (ours).
Cost: a parsed robots.txt is kept for the last 4,096 hosts; about 10 microseconds a page and user agent.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import orjson
from protego import Protego

from pipeline.core.addresses import address_of
from pipeline.core.errors import InputError
from pipeline.core.files import open_input, open_raw
from stages.warc import WarcFault, warc_pages

RECORD_BYTES = 4 << 20  # RFC 9309 asks parsers for 500 KiB at least
FOUND = "200"
# Names under which crawlers that gather text for training ask robots.txt, as their operators publish them. Ours.
TRAINING_AGENTS = (
    "CCBot", "GPTBot", "ClaudeBot", "anthropic-ai", "Google-Extended", "Applebot-Extended", "Amazonbot", "Bytespider",
    "cohere-ai", "meta-externalagent",
)  # fmt: skip

Declared = Mapping[str, tuple[Any, ...]]  # host -> what its captures say


@dataclass(frozen=True)
class OptOuts:
    """The files of all hosts. `robots` and `ai` hold texts, `tdm` lists of rules."""

    robots: Declared
    ai: Declared
    tdm: Declared
    agents: tuple[str, ...]

    def rule(self, url: str) -> tuple[str, str] | None:
        """(rule, who forbids it) for an address that its host's files keep out, or None."""
        address = address_of(url)
        if address is None:
            return None
        whole = url if "://" in url else f"https://{url}"
        for text in self.robots.get(address.host, ()):
            agent = _forbidden(text, whole, self.agents)
            if agent:
                return "robots_txt", f"{address.host}: {agent}"
        for text in self.ai.get(address.host, ()):
            agent = next(filter(None, (_forbidden(text, one, self.agents) for one in _as_text_page(whole))), "")
            if agent:
                return "ai_txt", f"{address.host}: {agent}"
        for rules in self.tdm.get(address.host, ()):
            location = _reserved(rules, _path(whole))
            if location:
                return "tdm_reservation", f"{address.host}: {location}"
        return None

    def knows(self, url: str) -> bool:
        """Whether the host's robots.txt is among the files."""
        address = address_of(url)
        return address is not None and address.host in self.robots


def _forbidden(text: str, url: str, agents: Sequence[str]) -> str:
    parsed = _parsed(text)
    return next((agent for agent in agents if not parsed.can_fetch(url, agent)), "")


@lru_cache(maxsize=4096)
def _parsed(text: str) -> Protego:
    return Protego.parse(text)


def _as_text_page(url: str) -> list[str]:
    parts = urlsplit(url)
    if PurePosixPath(parts.path).suffix:
        return [url]
    return [url, parts._replace(path=f"{parts.path.rstrip('/') or '/index'}.html").geturl()]


def _path(url: str) -> str:
    parts = urlsplit(url)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _reserved(rules: Sequence[Mapping[str, Any]], path: str) -> str:
    """The location that reserves `path`, or an empty text."""
    found = [
        (len(str(rule["location"])), int(rule["tdm-reservation"]), str(rule["location"]))
        for rule in rules
        if _location(str(rule["location"])).match(path)
    ]
    _, reserved, location = max(found, default=(0, 0, ""))
    return location if reserved == 1 else ""


@lru_cache(maxsize=4096)
def _location(pattern: str) -> re.Pattern[str]:
    """A location as robots.txt patterns are read: a beginning, `*` for anything, a final `$` for the end."""
    whole = pattern.endswith("$")
    parts = pattern.removesuffix("$").split("*")
    return re.compile(".*".join(map(re.escape, parts)) + ("$" if whole else ""), re.DOTALL)


def read_texts(paths: Sequence[str], name: str) -> dict[str, tuple[str, ...]]:
    """Host -> its robots.txt or ai.txt. `name` is the file's name on its host. Raises `InputError`."""
    return _gathered(paths, f"/{name}", "text", lambda body, _: body)


def read_tdm(paths: Sequence[str]) -> dict[str, tuple[list[Mapping[str, Any]], ...]]:
    """Host -> its tdmrep.json. Raises `InputError`."""
    return _gathered(paths, "/.well-known/tdmrep.json", "rules", _rules)


def _rules(body: Any, where: str) -> list[Mapping[str, Any]]:
    fix = 'a list of {"location": "/…", "tdm-reservation": 0 or 1}'
    try:
        rules = orjson.loads(body) if isinstance(body, str) else body
        assert isinstance(rules, list)
        for rule in rules:
            assert isinstance(rule["location"], str)
            assert rule["tdm-reservation"] in (0, 1)
    except (orjson.JSONDecodeError, AssertionError, KeyError, TypeError):
        raise InputError("not the rules of a tdmrep.json", where=where, fix=fix) from None
    return rules


def _gathered(paths: Sequence[str], on_host: str, key: str, check: Callable[[Any, str], Any]) -> dict[str, Any]:
    found: dict[str, list[Any]] = {}
    for path in sorted(paths):
        for host, body, where in _bodies(path, on_host, key):
            address = address_of(host)
            if address is None:
                raise InputError(f"`{host}` is no host name", where=where, fix="for example news.example.org")
            found.setdefault(address.host, []).append(check(body, where))
    return {host: tuple(bodies) for host, bodies in found.items()}


def _bodies(path: str, on_host: str, key: str) -> Iterator[tuple[str, Any, str]]:
    """(host, what its file says, where it was read)."""
    name = PurePosixPath(path).name
    if ".warc" in name:
        yield from _captured(path, on_host)
        return
    with open_input(path) as stream:
        if ".jsonl" not in name:
            yield name[: name.rfind(".", 0, len(name))], stream.read().decode("utf-8", "replace"), path
            return
        for number, line in enumerate(stream, start=1):
            where = f"{path}:{number}"
            try:
                row = orjson.loads(line)
                yield row["host"], row[key], where
            except (orjson.JSONDecodeError, KeyError, TypeError):
                shape = f'{{"host": "…", "{key}": …}}'
                raise InputError("not a host and its file", where=where, fix=f"a line is {shape}") from None


def _captured(path: str, on_host: str) -> Iterator[tuple[str, str, str]]:
    with open_raw(path) as handle:
        for page in warc_pages(handle, RECORD_BYTES):
            if isinstance(page, WarcFault):
                where = f"{path} at byte {page.offset}"
                raise InputError(f"a capture cannot be read: {page.message}", where=where, fix="fetch the file again")
            if page.url and urlsplit(page.url).path == on_host and page.status in (FOUND, ""):
                yield page.url, page.payload.decode("utf-8", "replace"), f"{path} {page.url}"
