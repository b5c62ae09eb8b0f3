"""Which documents belong together, what each is called among them, and which number it has.

Contract: pure functions of a document's narrow columns and `extra`. A group's name is a string that is equal for the
parts of one book, manual, repository or thread of one source; a part's `name` is its path or title; `number` is its
place where the source numbers its parts. What a source says itself (`group_keys`, `order_keys`, the usual keys of
`extra` below) comes before what is read off titles and addresses; keys that a document lacks are passed over.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from pipeline.core.languages import LANGUAGES
from synth.long.config import LongConfig
from synth.long.numerals import number_in, number_of_digits

GROUP_KEYS: Mapping[str, Sequence[str]] = {
    "books": ("book", "book_id", "work", "work_id", "isbn", "series"),
    "manuals": ("manual", "docset", "project", "site"),
    "repositories": ("repository", "repo", "repo_name", "repository_name", "max_stars_repo_name"),
    "threads": ("thread", "thread_id", "topic_id", "conversation_id", "discussion_id"),
}
ORDER_KEYS: Mapping[str, Sequence[str]] = {
    "books": ("volume", "part", "chapter", "section", "number", "order", "position", "index", "piece"),
    "manuals": ("order", "nav_order", "sidebar_position", "weight", "position"),
    "repositories": (),
    "threads": (),
}
PATH_KEYS = ("path", "file_path", "max_stars_repo_path", "filename")
FORGES = frozenset({"github.com", "gitlab.com", "codeberg.org", "bitbucket.org", "raw.githubusercontent.com"})
PIECE = "piece"  # `extra` of the pieces that reading makes of a large text; their only parent stands for the whole
UNIT = "\x1f"
# A mark of a part in a title or address: a word for it and a number, in the six languages.
MARK = re.compile(
    r"\b(?:chapter|chap\.?|part|volume|vol\.?|book|section|episode|kapitel|teil|band|buch|abschnitt"
    r"|cap[ií]tulo|parte|tomo|libro|secci[oó]n|chương|phần|tập|quyển|hồi)[\s_-]*(?P<latin>\d+|[ivxlc]+)\b"
    r"|제?\s*(?P<korean>\d+)\s*(?:장|부|권|편|화|회)(?![가-힣])"
    r"|第\s*(?P<japanese>[\d〇一二三四五六七八九十百]+)\s*(?:章|部|巻|編|話|回)",
    re.I,
)
_TAG = rf"({'|'.join(LANGUAGES)})(?:[-_][a-z]{{2}})?"
LANGUAGE_PART = re.compile(rf"(?:^|/){_TAG}/|\.{_TAG}(?:[/.]|$)", re.I)  # a folder, or an ending before the last
EDGES = " \t-–—:：,、|/_.·()（）[]「」『』"


@dataclass(frozen=True)
class Facts:
    """The narrow columns of a document, `extra` parsed."""

    id: str
    source: str
    language: str
    url: str
    title: str
    date: str
    parents: Sequence[str]
    extra: Mapping[str, Any]

    def value(self, key: str) -> Any:
        """A column's (`KEY_COLUMNS`) or, with `extra.NAME`, an extra's value."""
        if key.startswith("extra."):
            return self.extra.get(key.removeprefix("extra."))
        return self.language if key == "lang" else getattr(self, key)


def group_of(facts: Facts, config: LongConfig) -> str:
    """The name of the group a document belongs to; its own id where it stands alone."""
    given = _values(facts, config.group_keys) or _first(facts, GROUP_KEYS[config.form])
    if given:
        return UNIT.join((facts.source, *map(str, given)))
    inferred = {"books": _book, "manuals": _site, "repositories": _repository, "threads": _alone}[config.form](facts)
    return UNIT.join((facts.source, inferred))


def name_of(facts: Facts, config: LongConfig) -> str:
    """A part's path within its group, or its title."""
    path = _first(facts, PATH_KEYS)
    if path:
        return str(path[0])
    if config.form in ("manuals", "repositories"):
        return _path(facts.url) or facts.title or facts.id
    return facts.title or _path(facts.url) or facts.id


def number_of(facts: Facts, config: LongConfig) -> tuple[int, ...] | None:
    """A part's place where the source gives one."""
    given = _values(facts, config.order_keys) or _values(facts, [f"extra.{key}" for key in ORDER_KEYS[config.form]])
    numbers = [number_in(value) for value in given]
    whole = tuple(number for number in numbers if number is not None)
    if whole and len(whole) == len(numbers):
        return whole
    if config.form == "books":
        marks = tuple(number for _, number in _marks(facts.title)) or tuple(number for _, number in _marks(facts.url))
        return marks or None
    return None


def natural(text: str) -> tuple[tuple[int, int, str], ...]:
    """A key by which `ch2` comes before `ch10`; digits too many to be a number count as text."""
    found = [(part, number_of_digits(part) if part.isdecimal() else None) for part in re.findall(r"\d+|\D+", text)]
    return tuple((1, 0, part.casefold()) if number is None else (0, number, "") for part, number in found)


def _values(facts: Facts, keys: Sequence[str]) -> list[Any]:
    return [value for key in keys if (value := facts.value(key)) not in (None, "")]


def _first(facts: Facts, names: Sequence[str]) -> list[Any]:
    return _values(facts, [f"extra.{name}" for name in names])[:1]


def alone(facts: Facts) -> str:
    """The name of the group of a document that belongs to no other."""
    return UNIT.join((facts.source, facts.id))


def _alone(facts: Facts) -> str:
    return facts.id


def _book(facts: Facts) -> str:
    """The whole that a piece was cut from; the title before its mark of a part; the folder of a page with one."""
    if PIECE in facts.extra and len(facts.parents) == 1:
        return facts.parents[0]
    folder = _folder(facts.url)
    marks = _marks(facts.title)
    if marks:
        stem = facts.title[: marks[0][0]].strip(EDGES).casefold()
        if stem or folder:
            return UNIT.join((folder, stem))
    at = [place for place, _ in _marks(PurePosixPath(_path(facts.url)).name)]
    return UNIT.join((folder, PurePosixPath(_path(facts.url)).name[: at[0]].strip(EDGES))) if at else facts.id


def _site(facts: Facts) -> str:
    """The host (a source without addresses is one manual), a manual for each language that its paths name, or that its
    pages have."""
    named = LANGUAGE_PART.search(_path(facts.url) or facts.title)
    return UNIT.join((urlsplit(facts.url).netloc, (named[1] or named[2]).lower() if named else facts.language))


def _repository(facts: Facts) -> str:
    """Owner and name on a forge; elsewhere the source is one repository."""
    parts = urlsplit(facts.url)
    segments = [part for part in parts.path.split("/") if part]
    return "/".join((parts.netloc, *segments[:2])) if parts.netloc in FORGES and len(segments) > 1 else ""


def _path(url: str) -> str:
    """The path of an address; on a forge below the repository's root."""
    parts = urlsplit(url)
    segments = [part for part in unquote(parts.path).split("/") if part]
    if parts.netloc in FORGES:
        segments = segments[2:]
        segments = segments[1:] if segments[:1] == ["-"] else segments  # GitLab
        if parts.netloc == "raw.githubusercontent.com":
            segments = segments[1:]
        elif segments and segments[0] in ("blob", "tree", "raw", "src"):
            segments = segments[2:]  # and the branch behind it
    return "/".join(segments)


def _folder(url: str) -> str:
    parts = urlsplit(url)
    return parts.netloc + parts.path.rpartition("/")[0]


def _marks(text: str) -> list[tuple[int, int]]:
    """(place, number) of each mark of a part."""
    found = ((match.start(), number_in(match[match.lastgroup or 0])) for match in MARK.finditer(text))
    return [(place, number) for place, number in found if number is not None]
