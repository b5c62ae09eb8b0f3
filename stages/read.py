"""Reading: the files of a source become documents, and what cannot be read becomes dropped rows with a reason.

Contract: `read_files` yields `ReadBatch`es of at most `BATCH_DOCUMENTS` rows and about `BATCH_BYTES` of text. An id is
given once: `document_id(source, record)`, record being the source's own id, or file and place. HTML pages carry
their decoded HTML in `text` and their media type in `extra` until the `extract` block replaces it. Faults
(`read.truncated`, `read.bad_record`, `read.unknown_charset`, `read.too_large`, …) name file and place; the rest of the
file goes on. Memory: one batch, plus one record of at most `maximum_document_bytes`.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import IO, Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from pipeline.core.documents import document_id, table_from_rows, text_hash
from pipeline.core.errors import InputError
from pipeline.core.files import open_input, open_raw
from stages.charset import decode_page
from stages.config import ReadConfig
from stages.robots import declarations
from stages.sources import TOPICS, SourceFile
from stages.warc import WarcFault, WarcPage, warc_pages

BATCH_DOCUMENTS = 512
BATCH_BYTES = 16 << 20
HTML = "text/html"
CONTENT_TYPE = "content_type"  # key of `extra` that marks a page still to be extracted
_HTML_TYPES = frozenset({HTML, "application/xhtml+xml"})
_TEXT_TYPES = frozenset({"text/plain", "text/markdown"})
_CODE_ENDINGS = frozenset(
    [
        "py", "pyi", "c", "h", "cc", "cpp", "hpp", "rs", "go", "java", "kt", "swift", "js", "ts", "jsx", "tsx", "rb",
        "php", "sh", "sql", "lua", "jl", "r", "scala", "cs", "m", "html", "css", "toml", "yaml", "yml", "json", "cmake",
        "make",
    ]
)  # fmt: skip
_READ_ERRORS = (EOFError, OSError, zstandard.ZstdError)


@dataclass(frozen=True)
class Origin:
    """What every document of a source gets when it has nothing of its own."""

    source: str
    license: str | None
    domain: str | None
    lang: str | None


@dataclass(frozen=True)
class Fault:
    """A record that could not be read. `place` is file and line, row or offset; it identifies the dropped row."""

    rule: str
    place: str
    message: str
    url: str | None = None


@dataclass(frozen=True)
class ReadBatch:
    """Documents (`DOCUMENT_SCHEMA`) and the rows that were dropped at reading (keys of `DROPPED_SCHEMA`)."""

    documents: pa.Table
    dropped: list[dict[str, Any]] = field(default_factory=list)


Row = dict[str, Any]
Reader = Callable[[SourceFile, ReadConfig, Origin], Iterator[Row | Fault]]


def read_files(files: Sequence[SourceFile], read: ReadConfig, origin: Origin) -> Iterator[ReadBatch]:
    """The documents of some files of a source, in order.

    Raises:
        InputError: A file is missing, or is not of the kind the source says.
    """
    rows: list[Row] = []
    faults: list[dict[str, Any]] = []
    size_bytes = 0
    for file in files:
        for item in _file_records(file, read, origin):
            if isinstance(item, Fault):
                faults.append(_dropped(item, origin))
            else:
                size = len(item["text"].encode())
                if size > read.maximum_document_bytes:
                    message = f"{size} bytes, `maximum_document_bytes` is {read.maximum_document_bytes}"
                    faults.append(_dropped(Fault("too_large", item["id"], message, item.get("url")), origin))
                    continue
                rows.append(item)
                size_bytes += size
            if len(rows) + len(faults) >= BATCH_DOCUMENTS or size_bytes >= BATCH_BYTES:
                yield ReadBatch(table_from_rows(rows), faults)
                rows, faults, size_bytes = [], [], 0
    if rows or faults:
        yield ReadBatch(table_from_rows(rows), faults)


def is_html(documents: pa.Table) -> list[bool]:
    """Which rows are pages whose main text has not been extracted yet."""
    mark = f'"{CONTENT_TYPE}":"{HTML}"'
    return [extra is not None and mark in extra for extra in documents["extra"].to_pylist()]


def _file_records(file: SourceFile, read: ReadConfig, origin: Origin) -> Iterator[Row | Fault]:
    try:
        yield from _READERS[read.kind](file, read, origin)
    except FileNotFoundError:
        raise InputError(
            "no such file", where=file.url, fix="the source changed while it was read: run again"
        ) from None


def _dropped(fault: Fault, origin: Origin) -> dict[str, Any]:
    return {
        "id": document_id(origin.source, f"{fault.rule}\x1f{fault.place}"),
        "source": origin.source,
        "url": fault.url,
        "reason": f"read.{fault.rule}",
        "detail": f"{fault.place}: {fault.message}",
    }


def _row(origin: Origin, record: str, text: str, **columns: Any) -> Row:
    given = {key: value for key, value in columns.items() if value is not None}
    return {
        "id": document_id(origin.source, record),
        "text": text,
        "text_hash": text_hash(text),
        "source": origin.source,
        "license": origin.license,
        "domain": origin.domain,
        "lang": origin.lang,
        **given,
    }


def _extra(values: Mapping[str, Any]) -> str | None:
    if not values:
        return None
    return orjson.dumps(values, option=orjson.OPT_SORT_KEYS, default=str).decode()


def _warc(file: SourceFile, read: ReadConfig, origin: Origin) -> Iterator[Row | Fault]:
    with open_raw(file.url) as handle:
        for page in warc_pages(handle, read.maximum_document_bytes):
            if isinstance(page, WarcFault):
                yield Fault(page.rule, f"{file.name}@{page.offset}", page.message)
            else:
                yield _web_page(page, f"{file.name} {page.record}", read, origin)


def _web_page(page: WarcPage, place: str, read: ReadConfig, origin: Origin) -> Row | Fault:
    if page.status and page.status != "200":
        return Fault("http_status", place, page.status, page.url)
    if page.content_type not in _HTML_TYPES | _TEXT_TYPES:
        return Fault("not_text", place, page.content_type or "no content type", page.url)
    decoded = decode_page(page.payload, declared=page.charset, configured=read.charset)
    if decoded is None:
        return Fault("unknown_charset", place, f"declared: {page.charset or 'nothing'}", page.url)
    html = page.content_type in _HTML_TYPES
    return _row(
        origin,
        page.record,
        decoded.text,
        url=page.url,
        date=page.date[:10] if page.date else None,
        robots=declarations(decoded.text if html else "", page.headers),
        extra=_extra({CONTENT_TYPE: HTML, "charset": decoded.charset} if html else {"charset": decoded.charset}),
    )


def _html(file: SourceFile, read: ReadConfig, origin: Origin) -> Iterator[Row | Fault]:
    data = _whole(file, read)
    if isinstance(data, Fault):
        yield data
        return
    decoded = decode_page(data, configured=read.charset)
    if decoded is None:
        yield Fault("unknown_charset", file.name, f"{len(data)} bytes")
        return
    extra = _extra({CONTENT_TYPE: HTML, "charset": decoded.charset})
    yield _row(origin, file.name, decoded.text, robots=declarations(decoded.text, {}), extra=extra)


def _text(file: SourceFile, read: ReadConfig, origin: Origin) -> Iterator[Row | Fault]:
    data = _whole(file, read)
    if isinstance(data, Fault):
        yield data
        return
    decoded = decode_page(data, configured=read.charset)
    if decoded is None:
        yield Fault("unknown_charset", file.name, f"{len(data)} bytes")
        return
    yield _row(origin, file.name, decoded.text, title=PurePosixPath(file.name).name)


def _tree(file: SourceFile, read: ReadConfig, origin: Origin) -> Iterator[Row | Fault]:
    code = file.name.rsplit(".", 1)[-1].lower() in _CODE_ENDINGS
    for row in _text(file, read, origin):
        yield {**row, "domain": "code" if code else origin.domain, "title": file.name} if isinstance(row, dict) else row


def _stdlib(file: SourceFile, read: ReadConfig, origin: Origin) -> Iterator[Row | Fault]:
    """Modules are code; text files and the language reference's topics are English prose about it."""
    prose = Origin(origin.source, origin.license, "documentation", origin.lang)
    for row in _text(file, read, origin if file.name.endswith(".py") else prose):
        if isinstance(row, Fault):
            yield row
        elif file.name == TOPICS:
            for topic, text in sorted(_topics(row["text"]).items()):
                yield _row(prose, f"{file.name}#{topic}", text, title=topic)
        else:
            yield {**row, "domain": "code" if file.name.endswith(".py") else "documentation", "title": file.name}


def _topics(module: str) -> dict[str, str]:
    """The literal `topics = {...}` of the module, read without running it."""
    for node in ast.parse(module).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            return {str(key): str(text) for key, text in ast.literal_eval(node.value).items()}
    return {}


def _whole(file: SourceFile, read: ReadConfig) -> bytes | Fault:
    try:
        with open_input(file.url) as handle:
            data = handle.read(read.maximum_document_bytes + 1)
    except FileNotFoundError:
        raise
    except _READ_ERRORS as error:
        return Fault("truncated", file.name, f"{type(error).__name__}: {error}")
    if len(data) > read.maximum_document_bytes:
        return Fault("too_large", file.name, f"`maximum_document_bytes` is {read.maximum_document_bytes}")
    return data


def _jsonl(file: SourceFile, read: ReadConfig, origin: Origin) -> Iterator[Row | Fault]:
    number = 0
    try:
        with open_input(file.url) as handle:
            while line := handle.readline(read.maximum_document_bytes):
                number += 1
                if not line.endswith(b"\n") and len(line) == read.maximum_document_bytes:
                    yield _oversized_line(handle, f"{file.name}:{number}", read)
                elif line.strip():
                    yield _json_record(line, f"{file.name}:{number}", read, origin)
    except FileNotFoundError:
        raise
    except _READ_ERRORS as error:
        yield Fault("truncated", f"{file.name}:{number + 1}", f"{type(error).__name__}: {error}")


def _oversized_line(handle: IO[bytes], place: str, read: ReadConfig) -> Fault:
    size = read.maximum_document_bytes
    while (part := handle.readline(read.maximum_document_bytes)) and not part.endswith(b"\n"):
        size += len(part)
    return Fault("too_large", place, f"more than {size} bytes; `maximum_document_bytes` is the limit")


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
    keys = {
        "url": read.url_key, "title": read.title_key, "date": read.date_key, "lang": read.lang_key,
        "domain": read.domain_key, "license": read.license_key, "parallel_id": read.parallel_key,
    }  # fmt: skip
    columns = {name: _text_or_none(record.get(key)) for name, key in keys.items() if key}
    used = {read.text_key, read.id_key, *keys.values()}
    own = record.get(read.id_key)
    rest = {key: value for key, value in record.items() if key not in used and value is not None}
    rest = {key: value for key, value in rest.items() if not isinstance(value, bytes)}
    return _row(origin, place if own is None else str(own), text, extra=_extra(rest), **columns)


def _text_or_none(value: Any) -> str | None:
    return None if value is None or value == "" else str(value)


def _parquet(file: SourceFile, read: ReadConfig, origin: Origin) -> Iterator[Row | Fault]:
    number = 0
    try:
        with open_raw(file.url) as handle:
            for batch in pq.ParquetFile(handle).iter_batches(batch_size=BATCH_DOCUMENTS):
                for record in batch.to_pylist():
                    number += 1
                    yield _record(record, f"{file.name}:{number}", read, origin)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        yield Fault("truncated", f"{file.name}:{number + 1}", f"{type(error).__name__}: {error}")


_READERS: dict[str, Reader] = {
    "warc": _warc,
    "jsonl": _jsonl,
    "parquet": _parquet,
    "text": _text,
    "html": _html,
    "source-tree": _tree,
    "python-stdlib": _stdlib,
}
