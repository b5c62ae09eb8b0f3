"""The record of a finished step, written last into its folder (contract 6, version 1).

`record.json` holds deterministic fields only; `run.json` the rest (seconds, host, executor, library versions).
A folder without `record.json` is not finished and nothing reads it. Each finished shard of a step leaves
`shards/00000.json` (a `ShardResult`) so that a killed step re-runs only what is missing.
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pipeline.core.errors import InputError
from pipeline.core.files import hash_file, list_files, read_json, write_json
from pipeline.core.runlog import TRAIN_LOG

RECORD_VERSION = 1
RECORD = "record.json"
RUN = "run.json"
SHARDS = "shards"
LOGS = "logs"
IDENTITY = "step.json"
RECORDED_LIBRARIES = (
    "datatrove", "numba", "numpy", "polars", "pyarrow", "tokenizers", "torch", "trafilatura", "transformers",
)  # fmt: skip


@dataclass(frozen=True)
class ShardResult:
    """What one output shard of a step came to. `counts` are summed over shards into the record."""

    counts: Mapping[str, int] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)  # by reason
    licenses: Mapping[str, int] = field(default_factory=dict)  # documents by SPDX expression
    facts: Mapping[str, Any] = field(default_factory=dict)  # anything else, deterministic


@dataclass(frozen=True)
class Record:
    """The deterministic record of a step."""

    step: str
    kind: str
    kind_version: int
    fingerprint: str
    config: Mapping[str, Any]
    inputs: Mapping[str, str]  # role -> fingerprint
    counts: Mapping[str, int]
    dropped: Mapping[str, int]
    licenses: Mapping[str, int]
    facts: Mapping[str, Any]
    files: Mapping[str, str]  # relative name -> xxh3-128
    version: int = RECORD_VERSION


def write_shard_result(folder: Path, shard: int, result: ShardResult) -> None:
    write_json(folder / SHARDS / f"{shard:05d}.json", asdict(result))


def read_shard_result(folder: Path, shard: int) -> ShardResult:
    return ShardResult(**read_json(folder / SHARDS / f"{shard:05d}.json"))


def shard_done(folder: Path, shard: int) -> bool:
    return (folder / SHARDS / f"{shard:05d}.json").is_file()


def summed(results: Sequence[ShardResult]) -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
    """(counts, dropped, licenses) added over shards, keys sorted."""
    totals: tuple[Counter[str], Counter[str], Counter[str]] = (Counter(), Counter(), Counter())
    for result in results:
        for total, part in zip(totals, (result.counts, result.dropped, result.licenses), strict=True):
            total.update(part)
    counts, dropped, licenses = (dict(sorted(total.items())) for total in totals)
    return counts, dropped, licenses


def output_hashes(folder: Path) -> dict[str, str]:
    """xxh3-128 of every output file (not the record, the run facts, logs with their timings or shard results)."""
    return {
        path.relative_to(folder).as_posix(): hash_file(path)
        for path in list_files(folder)
        if path.relative_to(folder).parts[0] not in (RECORD, RUN, SHARDS, LOGS, IDENTITY, TRAIN_LOG)
    }


def write_record(folder: Path, record: Record, run: Mapping[str, Any]) -> None:
    """Commit a step: the run facts first, the record last."""
    facts = {**run, "host": platform.node(), "python": platform.python_version(), "libraries": library_versions()}
    write_json(folder / RUN, facts)
    write_json(folder / RECORD, asdict(record))


def read_record(folder: Path) -> Record:
    """Raises `InputError` when the step is not finished or was recorded by another version of the contract."""
    path = folder / RECORD
    if not path.is_file():
        raise InputError("step is not finished: no record.json", where=str(folder), fix="run it first")
    again = f"remove {folder} and run the same command again"
    try:
        stored = read_json(path)
    except ValueError as error:  # of its encoding too
        raise InputError(f"unreadable record: {error}", where=str(path), fix=again) from error
    if not isinstance(stored, dict):
        raise InputError(f"no record but a JSON {type(stored).__name__}", where=str(path), fix=again)
    fields: dict[str, Any] = stored
    if fields.get("version") != RECORD_VERSION:
        found = fields.get("version")
        raise InputError(f"record version {found}, this program reads {RECORD_VERSION}", where=str(path))
    try:
        return Record(**fields)
    except TypeError as error:  # fields are missing or unknown
        raise InputError(f"incomplete record: {error}", where=str(path), fix=again) from error


def finished(folder: Path) -> bool:
    return (folder / RECORD).is_file()


def library_versions() -> dict[str, str]:
    found = {}
    for name in RECORDED_LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
