"""Reading: the files of a source become documents, and what cannot be read becomes dropped rows with a reason.

Contract: `read_parts` yields `ReadBatch`es of at most `BATCH_DOCUMENTS` rows and about `BATCH_BYTES` of text. An id is
given once: `document_id(source, record)`, record being the source's own id, or file and place. HTML pages carry
their decoded HTML in `text` and their media type in `extra` until the `extract` block replaces it. Faults
(`read.truncated`, `read.bad_record`, `read.unknown_charset`, `read.too_large`, …) name file and place; the rest of the
file goes on. Records are read from parts of files (`stages.sources.Part`); their ids do not depend on how files are
cut. Memory: one batch, plus one record of at most `maximum_document_bytes`; what is larger is passed over unread. A
reader that waits holds no text, but a piece of one that it cuts: no variable of its own names a record once it has been
given (`map`, `pop`). With `too_large: cut` plain text is read piece by piece, lines of JSON are parsed up to a larger
bound (`stages.records`), and texts of Parquet are cut where they lie.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.core.documents import DOCUMENT_SCHEMA, document_id, empty_documents, table_from_rows
from pipeline.core.errors import InputError
from pipeline.core.files import open_input, open_raw
from stages.charset import Decoded, decode_page
from stages.config import CUTTABLE, ReadConfig
from stages.parquet_source import extra_json, parquet_documents, row_batches
from stages.records import csv_rows, jsonl_rows
from stages.robots import declarations
from stages.rows import READ_ERRORS, Fault, Origin, Row, document_row
from stages.sources import TOPICS, Part, SourceFile
from stages.text_pieces import PIECE, is_wide, pieces
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


@dataclass(frozen=True)
class ReadBatch:
    """Documents (`DOCUMENT_SCHEMA`) and the rows that were dropped at reading (keys of `DROPPED_SCHEMA`)."""

    documents: pa.Table
    dropped: list[dict[str, Any]] = field(default_factory=list)


Reader = Callable[[Part, ReadConfig, Origin], Iterator[Row | Fault]]


def read_parts(parts: Sequence[Part], read: ReadConfig, origin: Origin) -> Iterator[ReadBatch]:
    """The documents of some parts of a source's files, in order.

    Raises:
        InputError: A file is missing, or is not of the kind the source says.
    """
    batches = _column_batches if read.kind == "parquet" else _row_batches
    part = Part(SourceFile("", "", 0))
    try:
        for part in parts:
            yield from batches(part, read, origin)
    except FileNotFoundError:
        raise InputError(
            "no such file", where=part.file.url, fix="the source changed while it was read: run again"
        ) from None


def _row_batches(part: Part, read: ReadConfig, origin: Origin) -> Iterator[ReadBatch]:
    rows: list[Row] = []
    faults: list[dict[str, Any]] = []
    size_bytes = 0
    for item in _READERS[read.kind](part, read, origin):
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
        del item  # a large text, which is not to be held while its batch is worked on
        if len(rows) + len(faults) >= BATCH_DOCUMENTS or size_bytes >= BATCH_BYTES:
            yield _taken(rows, faults)
            size_bytes = 0
    if rows or faults:
        yield _taken(rows, faults)


def _taken(rows: list[Row], faults: list[dict[str, Any]]) -> ReadBatch:
    """A batch of the rows and faults gathered; the lists are empty after it, so that nothing is held twice."""
    batch = ReadBatch(table_from_rows(rows), list(faults))
    rows.clear()
    faults.clear()
    return batch


def _column_batches(part: Part, read: ReadConfig, origin: Origin) -> Iterator[ReadBatch]:
    faults: list[dict[str, Any]] = []

    def quarantine(rule: str, place: str, message: str) -> None:
        faults.append(_dropped(Fault(rule, place, message), origin))

    defaults = {"license": origin.license, "domain": origin.domain, "lang": origin.lang}
    limits = (BATCH_DOCUMENTS, BATCH_BYTES)

    def with_faults(table: pa.Table) -> ReadBatch:
        batch = ReadBatch(table, list(faults))
        faults.clear()
        return batch

    # Not a loop: its variable would hold a batch while it is worked on.
    yield from map(with_faults, parquet_documents(part, read, origin.source, defaults, limits, quarantine))
    if faults:
        yield ReadBatch(empty_documents(), faults)


def document_batches(path: Path) -> Iterator[pa.Table]:
    """The rows of one of our document files, a batch at a time.

    Raises:
        InputError: The file is not readable, or not of our schema.
    """
    try:
        file = pq.ParquetFile(path, buffer_size=1 << 20)
        if file.schema_arrow.names != DOCUMENT_SCHEMA.names:
            missing = sorted(set(DOCUMENT_SCHEMA.names) - set(file.schema_arrow.names))
            raise InputError(f"columns differ from the contract: missing {missing}", where=str(path))
        for group in range(file.num_row_groups):
            for batch in row_batches(file, group, BATCH_DOCUMENTS, BATCH_BYTES):
                yield pa.Table.from_batches([batch]).cast(DOCUMENT_SCHEMA)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"not a readable Parquet file: {error}", where=str(path)) from None


def is_html(documents: pa.Table) -> list[bool]:
    """Which rows are pages whose main text has not been extracted yet."""
    mark = f'"{CONTENT_TYPE}":"{HTML}"'
    return [extra is not None and mark in extra for extra in documents["extra"].to_pylist()]


def _dropped(fault: Fault, origin: Origin) -> dict[str, Any]:
    return {
        "id": document_id(origin.source, f"{fault.rule}\x1f{fault.place}"),
        "source": origin.source,
        "url": fault.url,
        "reason": f"read.{fault.rule}",
        "detail": f"{fault.place}: {fault.message}",
    }


def _warc(part: Part, read: ReadConfig, origin: Origin) -> Iterator[Row | Fault]:
    def row(page: WarcPage | WarcFault) -> Row | Fault:
        if isinstance(page, WarcFault):
            return Fault(page.rule, f"{part.file.name}@{page.offset}", page.message, page.url)
        return _web_page(page, f"{part.file.name} {page.record}", read, origin)

    with open_raw(part.file.url) as handle:
        yield from map(row, warc_pages(handle, read.maximum_document_bytes, part.start, part.end))


def _web_page(page: WarcPage, place: str, read: ReadConfig, origin: Origin) -> Row | Fault:
    if page.status and page.status != "200":
        return Fault("http_status", place, page.status, page.url)
    if page.content_type not in _HTML_TYPES | _TEXT_TYPES:
        return Fault("not_text", place, page.content_type or "no content type", page.url)
    decoded = decode_page(page.payload, declared=page.charset, configured=read.charset)
    if decoded is None:
        return Fault("unknown_charset", place, f"declared: {page.charset or 'nothing'}", page.url)
    html = page.content_type in _HTML_TYPES
    return document_row(
        origin,
        page.record,
        decoded.text,
        url=page.url,
        date=page.date[:10] if page.date else None,
        robots=declarations(decoded.text if html else "", page.headers),
        extra=extra_json({CONTENT_TYPE: HTML, "charset": decoded.charset} if html else {"charset": decoded.charset}),
    )


def _html(part: Part, read: ReadConfig, origin: Origin) -> Iterator[Row | Fault]:
    yield _html_row(part.file, read, origin)


def _html_row(file: SourceFile, read: ReadConfig, origin: Origin) -> Row | Fault:
    decoded = _decoded(file, read)
    if isinstance(decoded, Fault):
        return decoded
    extra = extra_json({CONTENT_TYPE: HTML, "charset": decoded.charset})
    return document_row(origin, file.name, decoded.text, robots=declarations(decoded.text, {}), extra=extra)


def _text(part: Part, read: ReadConfig, origin: Origin) -> Iterator[Row | Fault]:
    found = [_text_row(part.file, read, origin)]
    if isinstance(found[0], Fault) and found[0].rule == "too_large" and read.too_large == "cut":
        yield from _pieces(part.file, read, origin)
    else:
        yield found.pop()


def _text_row(file: SourceFile, read: ReadConfig, origin: Origin) -> Row | Fault:
    decoded = _decoded(file, read)
    if isinstance(decoded, Fault):
        return decoded
    return document_row(origin, file.name, decoded.text, title=PurePosixPath(file.name).name)


def _pieces(file: SourceFile, read: ReadConfig, origin: Origin) -> Iterator[Row | Fault]:
    """A large text as documents of whole paragraphs, made from one that is never held whole."""
    charset = read.charset
    whole, title = document_id(origin.source, file.name), PurePosixPath(file.name).name
    reached = 0
    try:
        with open_input(file.url) as handle:
            for number, (reached, data) in enumerate(pieces(handle, read.maximum_document_bytes)):
                place = f"{file.name}@{reached}"
                if number == 0 and is_wide(data):
                    yield Fault("too_large", place, "UTF-16 and UTF-32 are not cut: raise `maximum_document_bytes`")
                    return
                decoded = decode_page(data, configured=charset)
                if decoded is None:
                    yield Fault("unknown_charset", place, f"{len(data)} bytes")
                    continue
                charset = charset or decoded.charset.removesuffix("-sig")  # of the first piece: a file has one
                yield document_row(
                    origin, place, decoded.text, title=title, parents=[whole], extra=extra_json({PIECE: number})
                )
    except FileNotFoundError:
        raise
    except READ_ERRORS as error:
        yield Fault("truncated", f"{file.name}@{reached}", f"after this place: {type(error).__name__}: {error}")


def _tree(part: Part, read: ReadConfig, origin: Origin) -> Iterator[Row | Fault]:
    name = part.file.name
    is_code = name.rsplit(".", 1)[-1].lower() in _CODE_ENDINGS

    def titled(row: Row | Fault) -> Row | Fault:
        if isinstance(row, Fault):
            return row
        return {**row, "domain": "code" if is_code else origin.domain, "title": name}

    yield from map(titled, _text(part, read, origin))


def _stdlib(part: Part, read: ReadConfig, origin: Origin) -> Iterator[Row | Fault]:
    """Modules are code; text files and the language reference's topics are English prose about it."""
    file = part.file
    prose = Origin(origin.source, origin.license, "documentation", origin.lang)
    for row in _text(part, read, origin if file.name.endswith(".py") else prose):
        if isinstance(row, Fault):
            yield row
        elif file.name == TOPICS:
            for topic, text in sorted(_topics(row["text"]).items()):
                yield document_row(prose, f"{file.name}#{topic}", text, title=topic)
        else:
            yield {**row, "domain": "code" if file.name.endswith(".py") else "documentation", "title": file.name}


def _topics(module: str) -> dict[str, str]:
    """The literal `topics = {...}` of the module, read without running it."""
    for node in ast.parse(module).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            return {str(key): str(text) for key, text in ast.literal_eval(node.value).items()}
    return {}


def _decoded(file: SourceFile, read: ReadConfig) -> Decoded | Fault:
    data = _whole(file, read)
    if isinstance(data, Fault):
        return data
    decoded = decode_page(data, configured=read.charset)
    return Fault("unknown_charset", file.name, f"{len(data)} bytes") if decoded is None else decoded


def _whole(file: SourceFile, read: ReadConfig) -> bytes | Fault:
    try:
        with open_input(file.url) as handle:
            data = handle.read(read.maximum_document_bytes + 1)
    except FileNotFoundError:
        raise
    except READ_ERRORS as error:
        return Fault("truncated", file.name, f"{type(error).__name__}: {error}")
    if len(data) > read.maximum_document_bytes:
        hint = "" if read.kind not in CUTTABLE else "; `too_large: cut` makes documents of its paragraphs"
        return Fault("too_large", file.name, f"`maximum_document_bytes` is {read.maximum_document_bytes}{hint}")
    return data


_READERS: dict[str, Reader] = {
    "warc": _warc,
    "jsonl": jsonl_rows,
    "csv": csv_rows,
    "text": _text,
    "html": _html,
    "source-tree": _tree,
    "python-stdlib": _stdlib,
}
