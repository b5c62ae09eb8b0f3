"""Which long documents a set is made of: the groups of parts, found without keeping a text.

Contract: `groups_of` is a pure function of the input documents and the set's config. Parts are documents of the set's
sources and domains; a group's language is the one of most of its characters, and groups in other languages than the
set's are not looked at, as in every set. Groups come in a seeded order of their names, so that raising `documents` only
adds; `in_shards` gathers them up to `documents_per_shard` and `shard_bytes`. With `longer: folders`, a group that is
too long becomes a group for each of its folders, deeper where that is still too long; the files beside the folders are
a group as well.
Cost: streams the texts of a file once for their lengths; memory: about 1 KB a part, and a batch of texts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson
import pyarrow.compute as pc
import xxhash

from pipeline.core.documents import DOCUMENT_SCHEMA, column_batches, document_files, document_id, read_table
from pipeline.core.errors import InputError
from pipeline.core.languages import LANGUAGES
from pipeline.core.steps import StepTask
from synth.language import facts as language_facts
from synth.language import primary
from synth.long.config import LongConfig
from synth.long.naming import UNIT, Facts, alone, group_of, name_of, number_of
from synth.selection import check_patterns

COLUMNS = ("id", "source", "lang", "domain", "url", "title", "date", "parents", "license", "extra")
TEXT_BATCH_ROWS = 256
PARENT_KEYS = ("parent_id", "parent", "in_reply_to", "reply_to", "replied_to")
OWN_KEYS = ("message_id", "post_id", "comment_id")


@dataclass(frozen=True, slots=True)
class Part:
    """A document as a part of a group: where it stands and what is needed to place it."""

    file: int  # index into the sorted document shards
    row: int
    id: str
    source: str
    language: str
    domain: str
    licence: str
    name: str
    title: str
    date: str
    number: tuple[int, ...] | None
    own: str  # of a message: the name that answers to it use
    parent: str  # of a message: the name of what it answers
    characters: int
    size_bytes: int

    @property
    def names(self) -> tuple[str, ...]:
        """What a message that answers this one may call it."""
        return (self.own, self.id) if self.own else (self.id,)

    @property
    def answers(self) -> tuple[str, ...]:
        """What the message that this one answers may be called: its own name, or the id made of its record id."""
        return (self.parent, document_id(self.source, self.parent)) if self.parent else ()


@dataclass(frozen=True, slots=True)
class Group:
    """Parts that make one long document, in the order of the input."""

    name: str
    parts: tuple[Part, ...]

    @property
    def language(self) -> str:
        return _most(self.parts, "language")

    @property
    def domain(self) -> str:
        return _most(self.parts, "domain")

    @property
    def tokens(self) -> int:
        return sum(map(tokens_of, self.parts))

    @property
    def size_bytes(self) -> int:
        return sum(part.size_bytes for part in self.parts)


def tokens_of(part: Part) -> int:
    """An estimate from the characters; languages we do not know count as English."""
    language = part.language if part.language in LANGUAGES else "en"
    return round(part.characters / language_facts(language).characters_per_token)


def groups_of(task: StepTask) -> tuple[Group, ...]:
    """The set's groups in their order. Raises `InputError` when no source matches or nothing is left."""
    files = document_files(task.inputs["documents"].folder)
    stamps = tuple((str(path), path.stat().st_mtime_ns) for path in files)
    return _groups(task.name, stamps, task.config)


def in_shards(groups: Sequence[Group], config: LongConfig) -> list[tuple[Group, ...]]:
    """The groups of each output shard; at least one shard."""
    shards: list[list[Group]] = [[]]
    filled = 0
    for group in groups:
        full = len(shards[-1]) >= config.documents_per_shard or filled + group.size_bytes > config.shard_bytes
        if shards[-1] and full:
            shards.append([])
            filled = 0
        shards[-1].append(group)
        filled += group.size_bytes
    return [tuple(shard) for shard in shards]


@lru_cache(maxsize=1)  # every shard of a step asks for the same
def _groups(step: str, files: tuple[tuple[str, int], ...], config: LongConfig) -> tuple[Group, ...]:
    named: dict[str, list[Part]] = {}
    sources: set[str] = set()
    keys: set[str] = set()
    for number, (path, _) in enumerate(files):
        for name, part in _parts(number, Path(path), config, sources, keys):
            named.setdefault(name, []).append(part)
    check_patterns(step, config.from_, sources)
    if named:
        _check_keys(step, config, keys)
    if config.form == "threads":
        named = _connected(named)
    whole = [Group(name, tuple(parts)) for name, parts in named.items()]
    found = [group for group in whole if group.language in config.languages]
    if not found:
        raise InputError(
            f"no document of {', '.join(config.from_)} in {', '.join(config.languages)} came through cleaning",
            where=step,
            fix="name other languages or domains, or look at what was dropped with `seodang peek`",
        )
    found = [one for group in found for one in _divided(group, config)]
    found.sort(key=lambda group: (xxhash.xxh3_64_intdigest(group.name.encode(), seed=config.seed), group.name))
    return tuple(found[: config.documents])


def _check_keys(step: str, config: LongConfig, known: set[str]) -> None:
    """Raises `InputError` for a key that no chosen document has: grouping would silently go by something else."""
    for option in ("group_keys", "order_keys"):
        for key in getattr(config, option):
            if key not in known:
                raise InputError(
                    f"no document of {', '.join(config.from_)} has `{key}`",
                    where=f"{step}.{option}",
                    fix="name a key that documents have (`seodang peek` shows their `extra`), or leave the option out",
                )


def _parts(
    number: int, path: Path, config: LongConfig, sources: set[str], keys: set[str]
) -> Iterator[tuple[str, Part]]:
    """(group, part) of each chosen document of a file; `sources` takes in the names of all, `keys` those of the
    config's keys that a chosen one has."""
    table = read_table(path, DOCUMENT_SCHEMA, COLUMNS)
    characters, sizes = text_lengths(path)
    for row, entry in enumerate(table.to_pylist()):
        sources.add(entry["source"])
        wanted = any(fnmatchcase(entry["source"], pattern) for pattern in config.from_)
        if wanted and (not config.domains or entry["domain"] in config.domains):
            facts = _facts(entry)
            keys.update(key for key in (*config.group_keys, *config.order_keys) if facts.value(key) not in (None, ""))
            name = group_of(facts, config)
            # A document that belongs to nothing is no part, whatever numbers its record has.
            place = None if name == alone(facts) else number_of(facts, config)
            yield name, _part(number, row, entry, facts, config, place, characters[row], sizes[row])


def text_lengths(path: Path) -> tuple[list[int], list[int]]:
    """(characters, bytes) of each text of a document file, which has no column of them; `TEXT_BATCH_ROWS` texts are
    in memory at once, and none becomes a string of Python's."""
    characters: list[int] = []
    sizes: list[int] = []
    for texts in column_batches(path, "text", TEXT_BATCH_ROWS):
        characters += pc.call_function("utf8_length", [texts]).to_pylist()
        sizes += pc.call_function("binary_length", [texts]).to_pylist()
    return characters, sizes


def _facts(entry: Mapping[str, Any]) -> Facts:
    extra = orjson.loads(entry["extra"]) if entry["extra"] else {}
    texts = {name: entry[name] or "" for name in ("url", "title", "date")}
    parents = tuple(entry["parents"] or ())
    return Facts(entry["id"], entry["source"], primary(entry["lang"]), **texts, parents=parents, extra=extra)


def _part(
    file: int,
    row: int,
    entry: Mapping[str, Any],
    facts: Facts,
    config: LongConfig,
    place: tuple[int, ...] | None,
    characters: int,
    size: int,
) -> Part:
    def first(keys: Sequence[str]) -> str:
        return next((str(facts.extra[key]) for key in keys if facts.extra.get(key) not in (None, "")), "")

    return Part(
        file, row, facts.id, facts.source, facts.language, entry["domain"] or "", entry["license"] or "",
        name_of(facts, config), facts.title, facts.date, place, first(OWN_KEYS),
        first(PARENT_KEYS), characters, size,
    )  # fmt: skip


def _connected(named: Mapping[str, Sequence[Part]]) -> dict[str, list[Part]]:
    """Groups joined where a message of one answers a message of another."""
    home: dict[tuple[str, str], str] = {}
    for group, parts in named.items():
        home.update(((part.source, name), group) for part in parts for name in part.names)
    root = {group: group for group in named}

    def top(group: str) -> str:
        while root[group] != group:
            root[group] = root[root[group]]
            group = root[group]
        return group

    for group, parts in named.items():
        for part in parts:
            for name in part.answers:
                if (part.source, name) in home:
                    low, high = sorted((top(group), top(home[part.source, name])))
                    root[high] = low
    joined: dict[str, list[Part]] = {}
    for group, parts in named.items():
        joined.setdefault(top(group), []).extend(parts)
    return joined


def _divided(group: Group, config: LongConfig) -> Iterator[Group]:
    """The group, or with `longer: folders` its folders, as deep as it takes."""
    if config.longer != "folders" or config.maximum_tokens is None or group.tokens <= config.maximum_tokens:
        yield group
        return
    waiting = [(group, 0)]
    while waiting:
        one, depth = waiting.pop()
        if one.tokens <= config.maximum_tokens:
            yield one
            continue
        below: dict[str, list[Part]] = {}
        for part in one.parts:
            folders = part.name.split("/")[:-1]
            below.setdefault(folders[depth] + "/" if len(folders) > depth else "", []).append(part)
        beside = below.pop("", [])
        if not below:  # no folder is left: too long as it is
            yield one
            continue
        if beside:
            yield Group(f"{one.name}{UNIT}", tuple(beside))
        waiting += [(Group(f"{one.name}{UNIT}{name}", tuple(parts)), depth + 1) for name, parts in below.items()]


def _most(parts: Sequence[Part], attribute: str) -> str:
    """The value with most characters; of equals the first by name."""
    characters: Counter[str] = Counter()
    for part in parts:
        characters[getattr(part, attribute)] += part.characters
    return min(characters, key=lambda value: (-characters[value], value))
