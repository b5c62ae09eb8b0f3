"""Which documents a set is made from: by source pattern, language, domain and number, in an order of their own.

Contract: a pure function of the input documents and the set's config; when there are more documents than wanted, the
ones with the lowest seeded hash of their id are taken, so that raising `documents` only adds. Cost: reads five narrow
columns of every shard, then whole rows of the files that hold chosen documents only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pyarrow as pa
import xxhash

from pipeline.core.documents import DOCUMENT_SCHEMA, document_files, read_table
from pipeline.core.errors import InputError
from pipeline.core.rng import derive_seed
from pipeline.core.steps import StepTask
from synth.language import primary
from synth.sourced import SourcedConfig


@dataclass(frozen=True, order=True)
class Chosen:
    """Where a chosen document stands."""

    rank: int  # seeded hash of the id
    id: str
    file: int  # index into the sorted document shards
    row: int
    language: str
    parallel_id: str


def choose(task: StepTask) -> list[Chosen]:
    """All documents of the set's sources and languages, by rank.

    Raises `InputError` when no source matches a pattern or nothing is left, naming what there is.
    """
    config: SourcedConfig = task.config
    found: list[Chosen] = []
    sources: set[str] = set()
    for file, path in enumerate(document_files(task.inputs["documents"].folder)):
        table = read_table(path, DOCUMENT_SCHEMA, ["id", "source", "lang", "domain", "parallel_id"])
        for row, entry in enumerate(table.to_pylist()):
            sources.add(entry["source"])
            language = primary(entry["lang"])
            if language not in config.languages or (config.domains and entry["domain"] not in config.domains):
                continue
            if any(fnmatchcase(entry["source"], pattern) for pattern in config.from_):
                rank = xxhash.xxh3_64_intdigest(entry["id"].encode(), seed=config.seed)
                found.append(Chosen(rank, entry["id"], file, row, language, entry["parallel_id"] or ""))
    check_patterns(task.name, config.from_, sources)
    if not found:
        raise InputError(
            f"no document of {', '.join(config.from_)} in {', '.join(config.languages)}"
            + (f" on {', '.join(config.domains)}" if config.domains else "")
            + " came through cleaning",
            where=task.name,
            fix="name other languages or domains, or look at what was dropped with `seodang peek`",
        )
    return sorted(found)


def check_patterns(step: str, patterns: Sequence[str], sources: set[str]) -> None:
    """Raises `InputError` for a pattern that no source matches."""
    for pattern in patterns:
        if not any(fnmatchcase(source, pattern) for source in sources):
            raise InputError(
                f"no source matches `{pattern}`", where=f"{step}.from", fix=f"there are: {', '.join(sorted(sources))}"
            )


def other_languages(purpose: str, seed: int, identity: str, language: str, among: Sequence[str]) -> list[str]:
    """Those of `among` that are not a document's own, in a seeded order that is the document's."""
    others = [one for one in among if one != language]
    return sorted(others, key=lambda one: derive_seed(purpose, seed, identity, one))


def read_chosen(folder: Path, chosen: Sequence[Chosen]) -> list[Mapping[str, Any]]:
    """The rows of the chosen documents, in their order."""
    paths = document_files(folder)
    rows: dict[str, Mapping[str, Any]] = {}
    for file in sorted({item.file for item in chosen}):
        wanted = [item.row for item in chosen if item.file == file]
        table = read_table(paths[file], DOCUMENT_SCHEMA).take(pa.array(wanted, pa.int64()))
        rows.update((row["id"], row) for row in table.to_pylist())
    return [rows[item.id] for item in chosen]


def shards_of(items: int, per_shard: int) -> int:
    """How many shards of `per_shard` items there are; at least one, so that an empty set still has a folder."""
    return max(1, -(-items // per_shard))


def slice_of(items: Sequence[Any], shard: int, per_shard: int) -> Iterator[Any]:
    """The items of one shard."""
    return iter(items[shard * per_shard : (shard + 1) * per_shard])
