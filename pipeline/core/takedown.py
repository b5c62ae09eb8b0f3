"""Takedowns: what was asked to be forgotten, kept in a list that every later run obeys.

Contract: a list is a JSONL file of `Takedown` entries, only ever appended to. An entry names a document id, an address
(with `*` for anything) or a domain, and the documents that were found for it when it was asked, with everything made
from them. A later run drops whatever an entry fits, with the reason `compliance.takedown`, before anything else looks
at it, keeps none of its text, and drops what was made from it. The list is part of the identity of the steps it
concerns only: a source whose files were searched and held nothing of an entry is not cleaned again for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Literal, Self

import orjson
from pydantic import Field, ValidationError, model_validator

from pipeline.core.addresses import Address, AddressList, address_of
from pipeline.core.config import Config
from pipeline.core.errors import InputError
from pipeline.core.files import write_bytes
from pipeline.core.fingerprint import fingerprint

REASON = "compliance.takedown"
ANYTHING = "*"
FILE_ENDING = ".takedowns.jsonl"  # after the store's name, where the curriculum names no file
ID = re.compile(r"[0-9a-f]{32}")
_STAR = "any-7c1f"  # stands for `*` while an address is brought to its normal form

Kind = Literal["id", "url", "domain"]


class Takedown(Config):
    """One request."""

    kind: Kind
    pattern: str = Field(min_length=1)
    reason: str = ""  # why, for people
    asked: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}$")
    documents: dict[str, tuple[str, ...]] = Field(default={})  # source or set -> ids found, with what was made of them
    clear: dict[str, str] = Field(default={})  # source -> fingerprint of its files, searched without finding anything

    @model_validator(mode="after")
    def _pattern_fits_the_kind(self) -> Self:
        if self.kind == "id" and not ID.fullmatch(self.pattern):
            message = "an id is 32 hexadecimal digits, as `seodang peek` shows them"
            raise ValueError(message)
        if self.kind == "domain" and (not self.address or self.address.path or ANYTHING in self.pattern):
            message = "a domain is a host name without path or `*`, for example example.org"
            raise ValueError(message)
        if self.kind == "url" and not self.address:
            message = "not an address; for example https://example.org/page or https://example.org/users/*"
            raise ValueError(message)
        return self

    @property
    def address(self) -> Address | None:
        """The pattern's normal form, a word in the place of each star."""
        return address_of(self.pattern.replace(ANYTHING, _STAR))

    def fits(self, address: Address) -> bool:
        """Whether the address is the one named, or lies in the domain named."""
        if self.kind == "domain":
            assert self.address is not None
            return address.host == self.address.host or address.host.endswith(f".{self.address.host}")
        return self.kind == "url" and _expression(self.pattern).fullmatch(address.text) is not None


@lru_cache(maxsize=4096)
def _expression(pattern: str) -> re.Pattern[str]:
    """What the text of an address that fits the pattern looks like."""
    found = address_of(pattern.replace(ANYTHING, _STAR))
    assert found is not None, pattern
    return re.compile(".*".join(re.escape(part) for part in found.text.split(_STAR)), re.DOTALL)


@dataclass(frozen=True)
class TakedownList:
    """All entries of a list, ready to be asked."""

    entries: tuple[Takedown, ...] = ()

    @cached_property
    def ids(self) -> frozenset[str]:
        """Every id taken down: asked for by name, found for an entry, or made from one."""
        named = {entry.pattern for entry in self.entries if entry.kind == "id"}
        return frozenset(named.union(*(ids for entry in self.entries for ids in entry.documents.values())))

    def entry_of(self, url: str) -> str | None:
        """The pattern that an address fits."""
        address = address_of(url) if self.entries else None
        if address is None:
            return None
        domain = self._domains.domain_of(address)
        if domain is not None:
            return domain
        if address.text in self._whole:
            return address.text
        return next((entry.pattern for entry in self._patterns if entry.fits(address)), None)

    def identity(self, source: str, content: str = "") -> str:
        """What of the list concerns a source or synthetic set, as a fingerprint; empty for nothing.

        `content` is the fingerprint of the source's files; a synthetic set has none, and no addresses.
        """
        ids = {identity for entry in self.entries for identity in entry.documents.get(source, ())}
        patterns = {
            (entry.kind, entry.pattern)
            for entry in self.entries
            if entry.kind != "id" and content and entry.clear.get(source) != content
        }
        return fingerprint(sorted(ids), sorted(patterns)) if ids or patterns else ""

    @cached_property
    def _domains(self) -> AddressList:
        return AddressList.of(entry.pattern for entry in self.entries if entry.kind == "domain")

    @cached_property
    def _whole(self) -> frozenset[str]:
        found = (e.address for e in self.entries if e.kind == "url" and ANYTHING not in e.pattern)
        return frozenset(address.text for address in found if address)

    @cached_property
    def _patterns(self) -> tuple[Takedown, ...]:
        return tuple(entry for entry in self.entries if entry.kind == "url" and ANYTHING in entry.pattern)


def read_takedowns(path: Path) -> TakedownList:
    """The list in a file; empty when there is none. Raises `InputError` naming file and line."""
    if not path.is_file():
        return TakedownList()
    lines = path.read_bytes().split(b"\n")  # not `splitlines`: a reason may hold any other line separator
    return TakedownList(tuple(_entry(line, f"{path}:{number}") for number, line in enumerate(lines, 1) if line.strip()))


def add_takedowns(path: Path, entries: Iterable[Takedown]) -> None:
    """Append entries; the file is replaced as a whole."""
    before = path.read_bytes() if path.is_file() else b""
    if before and not before.endswith(b"\n"):
        before += b"\n"
    added = [orjson.dumps(entry.model_dump(), option=orjson.OPT_SORT_KEYS) + b"\n" for entry in entries]
    write_bytes(path, before + b"".join(added))


def _entry(line: bytes, where: str) -> Takedown:
    fix = "entries are written by `seodang takedown`"
    try:
        stored = orjson.loads(line)
        found = {source: tuple(ids) for source, ids in stored.pop("documents", {}).items()}
        return Takedown.model_validate({**stored, "documents": found})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        what = f"{'.'.join(map(str, first['loc']))} {first['msg']}".strip()
    except (orjson.JSONDecodeError, AttributeError, TypeError) as error:
        what = str(error)
    raise InputError(f"not a takedown: {what}", where=where, fix=fix)


def ids_by_source(rows: Iterable[Mapping[str, str]]) -> dict[str, tuple[str, ...]]:
    """`Takedown.documents` of rows with `id` and `source`."""
    found: dict[str, set[str]] = {}
    for row in rows:
        found.setdefault(row["source"], set()).add(row["id"])
    return {source: tuple(sorted(ids)) for source, ids in sorted(found.items())}
