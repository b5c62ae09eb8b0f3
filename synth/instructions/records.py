"""The records of an ingested file as its own columns, read from the documents they were read into.

Contract: reading gives some columns a place of their own (text, title, url, …) and keeps the rest in `extra`; which is
which stands in the record of the reading step. `check_columns` raises `InputError` for a mapped column that no record
of the first files has, naming the nearest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from pipeline.core.documents import DOCUMENT_SCHEMA, document_files, read_table
from pipeline.core.errors import InputError, nearest
from pipeline.core.steps import StepOutput

# Document column -> the read option that names the file's column.
OWN_PLACES: Mapping[str, str] = {
    "text": "text_key", "title": "title_key", "url": "url_key", "date": "date_key", "lang": "lang_key",
    "domain": "domain_key", "license": "license_key", "parallel_id": "parallel_key",
}  # fmt: skip


@dataclass(frozen=True)
class FileRecord:
    """One record of the file."""

    id: str
    columns: Mapping[str, Any]
    language: str | None
    license: str | None

    def text(self, column: str) -> str:
        """A column's value as text; empty when there is none."""
        value = self.columns.get(column)
        return "" if value is None else str(value).strip()


def records(output: StepOutput, path: Path) -> list[FileRecord]:
    """The records of one document file, in their order."""
    read: Mapping[str, Any] = output.record.config["read"]
    places = {column: read[option] for column, option in OWN_PLACES.items() if read.get(option)}
    return [_record(row, places) for row in read_table(path, DOCUMENT_SCHEMA).to_pylist()]


def _record(row: Mapping[str, Any], places: Mapping[str, str]) -> FileRecord:
    own = {name: row[column] for column, name in places.items() if row[column] is not None}
    extra = orjson.loads(row["extra"]) if row["extra"] else {}
    return FileRecord(row["id"], {**own, **extra}, row["lang"], row["license"])


def check_columns(output: StepOutput, wanted: Mapping[str, str], where: str) -> None:
    """Raises `InputError` for the first wanted column (by option) that no record has."""
    missing = dict(wanted)
    known: set[str] = set()
    for path in document_files(output.folder):
        for record in records(output, path):
            known.update(record.columns)
        missing = {option: column for option, column in missing.items() if column not in known}
        if not missing:
            return
    for option, column in missing.items():
        close = nearest(column, known)
        raise InputError(
            f"no record has a column `{column}`",
            where=f"{where}.{option}",
            fix=(f"did you mean `{close}`? " if close else "")
            + f"there are: {', '.join(sorted(known)) or 'no records'}",
        )


def batches(rows: list[FileRecord], size: int, group_by: str) -> Iterator[list[FileRecord]]:
    """Runs of `size` records, or of those with the same value in a column."""
    groups: dict[str, list[FileRecord]] = {}
    for row in rows:
        groups.setdefault(row.text(group_by) if group_by else "", []).append(row)
    for group in groups.values():
        for start in range(0, len(group), size):
            yield group[start : start + size]
