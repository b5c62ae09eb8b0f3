"""`seodang pii`: precision and recall of the personal-data rules on labelled text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson
import polars as pl
from pydantic import ValidationError
from rich.markup import escape

from pipeline.commands.plan import print_json
from pipeline.commands.terminal import console, table
from pipeline.core.errors import InputError
from pipeline.core.files import open_input
from stages.pii_accuracy import Accuracy, Labelled, accuracy
from stages.plugin import Plugin, load_plugin

FORM = '{"text": "…", "lang": "ko", "spans": [{"start": 0, "end": 13, "kind": "phone"}]}'


def show_accuracy(files: Sequence[Path], names: str, *, as_json: bool) -> None:
    """Print a row for each language and kind, and what was missed or found for nothing."""
    finder = load_plugin(Plugin(function=names, version="")) if names else None
    rows = accuracy((one for file in files for one in labelled(file)), finder)
    if as_json:
        print_json([{**asdict(row), "precision": row.precision, "recall": row.recall} for row in rows])
        return
    columns = ("language", "kind", "labelled", "found", "precision", "recall", "missed", "false")
    cells = [
        (row.lang, row.kind, row.labelled, row.found, _share(row.precision), _share(row.recall), _some(row.missed),
         _some(row.false))
        for row in rows
    ]  # fmt: skip
    console.print(table("Personal data on labelled text", columns, cells))
    console.print(_whole(rows))


def labelled(file: Path) -> Iterator[Labelled]:
    """The texts of a JSONL (also compressed) or Parquet file. Raises `InputError` naming the row."""
    if not file.is_file():
        raise InputError("no such file", where=str(file), fix=f"a JSONL or Parquet file; a line is {FORM}")
    for number, row in enumerate(_rows(file), start=1):
        try:
            yield Labelled.model_validate({name: row.get(name) for name in Labelled.model_fields})
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(map(str, first["loc"]))
            raise InputError(f"{place}: {first['msg']}", where=f"{file}:{number}", fix=f"a row is {FORM}") from None


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    if file.suffix == ".parquet":
        yield from _tuples(pl.read_parquet(file).iter_rows(named=True))
        return
    with open_input(str(file)) as stream:
        for number, line in enumerate(stream, start=1):
            try:
                row = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                raise InputError(f"not JSON: {error}", where=f"{file}:{number}", fix=f"a line is {FORM}") from None
            if not isinstance(row, dict):
                raise InputError("not a JSON object", where=f"{file}:{number}", fix=f"a line is {FORM}")
            yield from _tuples([row])


def _tuples(rows: Any) -> Iterator[dict[str, Any]]:
    """Rows with their spans as the strict configuration classes take them."""
    for row in rows:
        spans = row.get("spans")
        yield {**row, "spans": tuple(spans) if isinstance(spans, list) else spans if spans is not None else ()}


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _some(texts: Sequence[str]) -> str:
    return escape(", ".join(texts))


def _whole(rows: Sequence[Accuracy]) -> str:
    found, right = sum(row.found for row in rows), sum(row.right for row in rows)
    known, hit = sum(row.labelled for row in rows), sum(row.hit for row in rows)
    return f"in all: {right} of {found} finds are right, {hit} of {known} labels are found"
