"""Evaluation sets as files: the items of JSONL and Parquet benchmarks, with the place of each.

Contract: one item for each text field of a record, in order of file name and record. A field is named, or `a.b` inside
a nested record; a list of texts (answer choices) is one item, its texts on lines of their own. A file none of whose
mapping fits gives an error that names the fields it has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from pipeline.core.config import Config
from pipeline.core.errors import InputError
from pipeline.core.files import open_input, open_raw
from pipeline.core.tokenizer import nfc

TEXT_FIELDS = ("question", "problem", "prompt", "instruction", "text", "passage", "context")
ID_FIELDS = ("id", "question_id", "task_id", "qid", "uid")
BATCH_ROWS = 1024


class BenchmarkFields(Config):
    """What the fields of some benchmark files mean."""

    fields: tuple[str, ...] = Field(default=TEXT_FIELDS, min_length=1)  # each that a record has is an item
    id: str = ""  # the record's own name; empty: the first of `ID_FIELDS` it has, or its place
    name: str = ""  # of the benchmark in reports; empty: the file's name without endings


@dataclass(frozen=True)
class Item:
    """One text of a benchmark and where it stands."""

    place: str  # file:line, or file:row of a Parquet file
    text: str
    benchmark: str = ""
    record: str = ""
    field: str = ""


def read_items(paths: Sequence[str], default: BenchmarkFields, mapping: Mapping[str, BenchmarkFields]) -> list[Item]:
    """The items of all files, in order of file name.

    Args:
        paths: JSONL files, plain or compressed, and Parquet files.
        default: For files that no pattern of `mapping` fits.
        mapping: Pattern over file names -> their fields; the first that fits counts.

    Raises `InputError` for a missing or empty file, a line that is no JSON object, or one with none of the fields.
    """
    items: list[Item] = []
    for path in sorted(paths, key=lambda one: (PurePosixPath(one).name, one)):
        name = PurePosixPath(path).name
        meaning = next((found for pattern, found in mapping.items() if fnmatchcase(name, pattern)), default)
        before = len(items)
        for number, record in _records(path):
            items += _items_of(record, meaning, name, f"{path}:{number}", number)
        if len(items) == before:
            raise InputError("the benchmark file is empty", where=path, fix="remove it from `decontaminate.against`")
    if not items:
        raise InputError("no benchmark files", where="decontaminate", fix="name JSONL or Parquet files in `against`")
    return items


def _items_of(record: Mapping[str, Any], meaning: BenchmarkFields, file: str, where: str, number: int) -> list[Item]:
    texts = [(field, _text(_value(record, field))) for field in meaning.fields]
    found = [(field, text) for field, text in texts if text.strip()]
    if not found:
        has = ", ".join(sorted(record))
        raise InputError(
            f"no text in any of the fields {', '.join(meaning.fields)}",
            where=where,
            fix=f"name the text fields in `decontaminate.fields` or in `mapping`; this record has {has}",
        )
    names = (_value(record, field) for field in ((meaning.id,) if meaning.id else ID_FIELDS))
    own = next((str(name) for name in names if isinstance(name, str | int)), str(number))
    benchmark = meaning.name or file.split(".")[0]
    return [Item(f"{file}:{number}", nfc(text), benchmark, own, field) for field, text in found]


def _value(record: Any, field: str) -> Any:
    """`a.b` is looked for as it is, then as `b` inside `a`."""
    if not isinstance(record, Mapping):
        return None
    if field in record:
        return record[field]
    outer, dot, inner = field.partition(".")
    return _value(record.get(outer), inner) if dot else None


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "\n".join(part for part in value if isinstance(part, str))
    return value if isinstance(value, str) else ""


def _records(path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        yield from _parquet(path) if PurePosixPath(path).suffix == ".parquet" else _jsonl(path)
    except FileNotFoundError:
        raise InputError("no such benchmark file", where=path, fix="check `decontaminate.against`") from None


def _jsonl(path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    with open_input(path) as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                item = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                raise InputError(f"not JSON: {error}", where=f"{path}:{number}") from None
            if not isinstance(item, dict):
                raise InputError("not a JSON object", where=f"{path}:{number}")
            yield number, item


def _parquet(path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    with open_raw(path) as handle:
        try:
            opened = pq.ParquetFile(handle)
            number = 0
            for batch in opened.iter_batches(BATCH_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
        except pa.ArrowInvalid as error:
            raise InputError(f"not a readable Parquet file: {error}", where=path) from None
