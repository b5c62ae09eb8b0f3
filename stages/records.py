"""Records of JSON lines and CSV files: fields become columns by the names that the source's options give.

Contract: a record without text, or that is none, is a fault naming file and place, and the rest of the file goes on.
Memory: a line of at most `maximum_document_bytes`; with `too_large: cut`, of JSON, of at most `CUT_LINE_BYTES`.
Python's CSV parser keeps four to eight bytes for each character of the longest field so far.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from io import TextIOWrapper
from itertools import chain
from typing import Any

import orjson

from pipeline.core.errors import InputError
from pipeline.core.files import open_input
from stages.charset import codec_name
from stages.config import ReadConfig
from stages.line_ranges import lines
from stages.parquet_source import column_keys, extra_json
from stages.rows import READ_ERRORS, Fault, Origin, Row, document_row
from stages.sources import Part
from stages.text_pieces import cut_row

CUT_LINE_BYTES = 128 << 20  # of a JSON line that is parsed to be cut: what a worker of 1 GiB can hold
DELIMITERS = (",", ";", "\t", "|")  # of CSV files


def jsonl_rows(part: Part, read: ReadConfig, origin: Origin) -> Iterator[Row | Fault]:
    """The objects of a range of lines."""
    file = part.file
    reached = str(part.start)
    is_cut = read.too_large == "cut"
    limit = max(read.maximum_document_bytes, CUT_LINE_BYTES if is_cut else 0)
    try:
        for line in lines(file.url, part.start, part.end, limit):
            reached = line.place
            place = f"{file.name}@{line.place}"
            if line.data is None:
                yield Fault("too_large", place, _long_line(line.size, read))
            elif line.data and not line.data.isspace():
                held = [line.data]
                del line  # nothing holds a large line while its document is worked on
                record = [_json_record(held.pop(), place, read, origin)]
                yield from _cut_if_large(record, read) if is_cut else _taken(record)
    except FileNotFoundError:
        raise
    except READ_ERRORS as error:
        yield Fault("truncated", f"{file.name}@{reached}", f"after this place: {type(error).__name__}: {error}")


def _long_line(size: int, read: ReadConfig) -> str:
    stated = f"a line of {size} bytes, `maximum_document_bytes` is {read.maximum_document_bytes}"
    if read.too_large == "cut":
        return f"{stated} and lines of more than {CUT_LINE_BYTES} bytes are not cut: make it a text file"
    return f"{stated}; `too_large: cut` makes documents of its paragraphs"


def _taken(record: list[Row | Fault]) -> Iterator[Row | Fault]:
    """The record, taken from the list, which would hold its text while it is worked on."""
    yield record.pop()


def _cut_if_large(record: list[Row | Fault], read: ReadConfig) -> Iterator[Row | Fault]:
    """The record, taken from the list, or the pieces of it."""
    if isinstance(record[0], Fault) or len(record[0]["text"].encode()) <= read.maximum_document_bytes:
        return _taken(record)
    row: Row = record[0]
    record.clear()
    return cut_row(row, row.pop("text").encode(), read.maximum_document_bytes)


def _json_record(line: bytes, place: str, read: ReadConfig, origin: Origin) -> Row | Fault:
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return Fault("bad_record", place, f"not JSON: {error}")
    if not isinstance(record, dict):
        return Fault("bad_record", place, f"a JSON {type(record).__name__}, not an object")
    return _record(record, place, read, origin)


def _record(record: Mapping[str, Any], place: str, read: ReadConfig, origin: Origin) -> Row | Fault:
    text = record.get(read.text_key)
    if not isinstance(text, str):
        given = "no" if text is None else f"a {type(text).__name__} as"
        known = ", ".join(sorted(map(str, record))[:8])
        return Fault("bad_record", place, f"{given} text field `{read.text_key}`; fields: {known}")
    keys = column_keys(read)
    columns = {name: _text_or_none(record.get(key)) for name, key in keys.items()}
    used = {read.text_key, read.id_key, *keys.values()}
    own = _text_or_none(record.get(read.id_key))
    rest = {key: value for key, value in record.items() if key not in used and value is not None}
    return document_row(origin, place if own is None else own, text, extra=extra_json(rest), **columns)


def csv_rows(part: Part, read: ReadConfig, origin: Origin) -> Iterator[Row | Fault]:
    """The rows of a file whose first line names its columns."""
    file, line = part.file, 1
    charset = (read.charset and codec_name(read.charset)) or "utf-8-sig"
    csv.field_size_limit(read.maximum_document_bytes)
    try:
        with open_input(file.url) as handle, TextIOWrapper(handle, charset, newline="") as text:
            head = text.readline()
            if not head.strip():
                return
            rows = csv.reader(chain([head], text), delimiter=max(DELIMITERS, key=head.count))
            names = next(rows)
            _refuse_doubled(names, file.name)
            for row in rows:
                line = rows.line_num
                if row:
                    found = [_csv_record(names, row, f"{file.name}:{line}", read, origin)]
                    row.clear()  # its text is not to be held while it is worked on
                    yield found.pop()
    except FileNotFoundError:
        raise
    except UnicodeDecodeError as error:
        message = f"not {error.encoding}: set `read.charset` (for example cp949 or latin-1)"
        yield Fault("unknown_charset", f"{file.name}:{line}", message)
    except (*READ_ERRORS, csv.Error) as error:
        yield Fault("truncated", f"{file.name}:{line}", f"after this line: {type(error).__name__}: {error}")


def _refuse_doubled(names: Sequence[str], file: str) -> None:
    """Raises `InputError` for a column named twice, of which one would be lost; columns without a name may be many."""
    twice = next((name for name in names if name and names.count(name) > 1), None)
    if twice is not None:
        what = f"the header names the column `{twice}` twice"
        raise InputError(what, where=f"{file}:1", fix="rename or remove one of the two columns")


def _csv_record(
    names: Sequence[str], row: Sequence[str], place: str, read: ReadConfig, origin: Origin
) -> Row | Fault:  # fmt: skip
    if len(row) != len(names):
        return Fault("bad_record", place, f"{len(row)} fields, the header names {len(names)}")
    return _record(dict(zip(names, row, strict=True)), place, read, origin)


def _text_or_none(value: Any) -> str | None:
    return None if value is None or value == "" else str(value)
