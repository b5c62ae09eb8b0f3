"""Parquet sources, column by column: no Python object a text.

Contract: the rows of the row groups whose first byte lies in a byte range. Columns are mapped by name as in
`stages.read`; a row without text, with text that is not UTF-8 or over the limit is a fault, and the rows beside it go
on; with `too_large: cut` a larger text becomes documents of its paragraphs. A damaged row group costs its own rows.
Memory: one batch, and the page that the library decodes, which holds a large text whole; a row group of one text beyond
`UNREAD_TIMES` the limit is not read.
Cost: decompression and one pass of xxh3 over the text; a Python object for each id, and for each row with columns that
no key names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
import xxhash

from pipeline.core.documents import DOCUMENT_SCHEMA, empty_documents, table_from_rows
from pipeline.core.files import open_raw
from stages.block import text_hashes
from stages.config import ReadConfig
from stages.long_texts import views
from stages.sources import Part
from stages.text_pieces import cut_row

pc: Any = pyarrow.compute  # its functions are made at import and have no types
UNREAD_TIMES = 4
Quarantine = Callable[[str, str, str], None]  # (rule, place, message)


def column_keys(read: ReadConfig) -> dict[str, str]:
    """Document columns and the fields of the source they are taken from, apart from text and id."""
    keys = {
        "url": read.url_key, "title": read.title_key, "date": read.date_key, "lang": read.lang_key,
        "domain": read.domain_key, "license": read.license_key, "parallel_id": read.parallel_key,
    }  # fmt: skip
    return {column: key for column, key in keys.items() if key}


def row_batches(file: pq.ParquetFile, group: int, rows: int, size_bytes: int) -> Iterator[pa.RecordBatch]:
    """A row group in batches of at most `rows` rows and, at its mean row size, of about `size_bytes`."""
    metadata = file.metadata.row_group(group)
    mean = max(1, metadata.total_byte_size // max(1, metadata.num_rows))
    yield from file.iter_batches(batch_size=max(1, min(rows, size_bytes // mean)), row_groups=[group])


def parquet_documents(
    part: Part, read: ReadConfig, source: str, defaults: dict[str, str | None], limits: tuple[int, int],
    quarantine: Quarantine,
) -> Iterator[pa.Table]:  # fmt: skip
    """Tables of `DOCUMENT_SCHEMA`.

    Args:
        part: A byte range of a file.
        read: Field names and the document limit.
        source: Its name.
        defaults: Columns of documents that have nothing of their own.
        limits: Rows and bytes of a batch.
        quarantine: Told of every row that is no document.
    """
    name = part.file.name
    with open_raw(part.file.url) as handle:
        try:
            file = pq.ParquetFile(handle, buffer_size=1 << 20)
        except (pa.ArrowException, OSError) as error:
            if part.start == 0:
                quarantine("truncated", f"{name}:1", f"{type(error).__name__}: {error}")
            return
        first = 1
        for group in range(file.num_row_groups):
            metadata = file.metadata.row_group(group)
            if _starts_in(metadata, part):
                row = first
                if size := _unread_bytes(metadata, read):
                    quarantine("too_large", f"{name}:{row}", _unread(size, read))
                    first += metadata.num_rows
                    continue
                try:
                    for batch in row_batches(file, group, *limits):
                        given = (f"{name}:", row, read, source, defaults, quarantine)
                        yield from _cut(batch, *given) if read.too_large == "cut" else [_documents(batch, *given)]
                        row += batch.num_rows
                except (pa.ArrowException, OSError) as error:
                    quarantine("truncated", f"{name}:{row}", f"{type(error).__name__}: {error}")
            first += metadata.num_rows


def _unread_bytes(group: pq.RowGroupMetaData, read: ReadConfig) -> int:
    """Bytes of a row group's only text when it is far too large, else 0."""
    columns = [group.column(number) for number in range(group.num_columns)] if group.num_rows == 1 else []
    size = next((one.total_uncompressed_size for one in columns if one.path_in_schema == read.text_key), 0)
    return size if size > UNREAD_TIMES * read.maximum_document_bytes else 0


def _unread(size: int, read: ReadConfig) -> str:
    return (
        f"{size} bytes, `maximum_document_bytes` is {read.maximum_document_bytes}: a text of more than {UNREAD_TIMES} "
        f"times that is not read; {-(-size // UNREAD_TIMES)} would read it"
    )


def _too_large(size: int, read: ReadConfig) -> str:
    hint = "" if read.too_large == "cut" else "; `too_large: cut` makes documents of its paragraphs"
    return f"{size} bytes, `maximum_document_bytes` is {read.maximum_document_bytes}{hint}"


def _cut(
    batch: pa.RecordBatch, place: str, first_row: int, read: ReadConfig, source: str,
    defaults: dict[str, str | None], quarantine: Quarantine,
) -> Iterator[pa.Table]:  # fmt: skip
    """The rows of a batch in order, those that are too large in pieces."""
    large = [row for row, (rule, _) in sorted(_bad_rows(batch, read).items()) if rule == "too_large"]
    whole_ones = read.replaced(maximum_document_bytes=batch.nbytes + 1)
    start = 0
    for row in [*large, batch.num_rows]:
        if row > start:
            yield _documents(
                batch.slice(start, row - start), place, first_row + start, read, source, defaults, quarantine
            )
        if row < batch.num_rows:
            one = _documents(batch.slice(row, 1), place, first_row + row, whole_ones, source, defaults, quarantine)
            for view in views(one["text"]):
                columns = one.drop_columns(["text"]).to_pylist()[0]
                for piece in cut_row(columns, bytes(view), read.maximum_document_bytes):
                    yield table_from_rows([piece])
        start = row + 1


def _starts_in(group: pq.RowGroupMetaData, part: Part) -> bool:
    if not group.num_columns:
        return part.start == 0
    column = group.column(0)
    starts = [column.data_page_offset, column.dictionary_page_offset or column.data_page_offset]
    return part.start <= min(starts) and (part.end is None or min(starts) < part.end)


def _documents(
    batch: pa.RecordBatch, place: str, first_row: int, read: ReadConfig, source: str,
    defaults: dict[str, str | None], quarantine: Quarantine,
) -> pa.Table:  # fmt: skip
    names = batch.schema.names
    bad = _bad_rows(batch, read)
    for row, (rule, message) in sorted(bad.items()):
        quarantine(rule, f"{place}{first_row + row}", message)
    if len(bad) == batch.num_rows:
        return empty_documents()
    rows = np.setdiff1d(np.arange(batch.num_rows), np.fromiter(bad, np.int64, len(bad)))
    good: Any = batch.take(pa.array(rows)) if bad else batch
    text = _plain(good.column(read.text_key)).cast(pa.large_string())
    columns: dict[str, Any] = {
        "id": _ids(good, read, source, [f"{place}{first_row + int(row)}" for row in rows]),
        "text": text,
        "text_hash": text_hashes(text),
        "source": pa.repeat(source, good.num_rows),
    }
    columns |= {column: pa.repeat(value, good.num_rows) for column, value in defaults.items() if value is not None}
    keys = column_keys(read)
    for column, key in keys.items():
        if key in names:
            own = _strings(good.column(key))
            columns[column] = pc.coalesce(own, columns[column]) if column in columns else own
    used = {read.text_key, read.id_key, *keys.values()}
    columns["extra"] = _extra(good, [name for name in names if name not in used])
    arrays = [(field, columns.get(field.name)) for field in DOCUMENT_SCHEMA]
    return pa.Table.from_arrays(
        [pa.nulls(good.num_rows, field.type) if one is None else one.cast(field.type) for field, one in arrays],
        schema=DOCUMENT_SCHEMA,
    )


def _bad_rows(batch: pa.RecordBatch, read: ReadConfig) -> dict[int, tuple[str, str]]:
    """Row -> (rule, message) of those that are no documents."""
    names = batch.schema.names
    known = ", ".join(sorted(names)[:8])
    texts = _plain(batch.column(read.text_key)) if read.text_key in names else None
    if texts is None or not (pa.types.is_string(texts.type) or pa.types.is_large_string(texts.type)):
        given = "no" if texts is None else f"a {texts.type} as"
        return dict.fromkeys(
            range(batch.num_rows), ("bad_record", f"{given} text field `{read.text_key}`; fields: {known}")
        )
    bad: dict[int, tuple[str, str]] = {}
    for row in np.flatnonzero(texts.is_null().to_numpy(zero_copy_only=False)):
        bad[int(row)] = ("bad_record", f"no text field `{read.text_key}`; fields: {known}")
    sizes = pc.fill_null(pc.binary_length(texts), 0).to_numpy(zero_copy_only=False)
    for row in np.flatnonzero(sizes > read.maximum_document_bytes):
        bad[int(row)] = ("too_large", _too_large(int(sizes[row]), read))
    for name in names:
        for row in _not_utf8(_plain(batch.column(name))):
            bad.setdefault(row, ("bad_record", f"field `{name}` is not UTF-8"))
    return bad


def _not_utf8(array: pa.Array) -> list[int]:
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        return [row for row in range(len(array)) if not _is_valid(array.slice(row, 1))]
    return []


def _is_valid(array: pa.Array) -> bool:
    try:
        pa.concat_arrays([array]).validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _plain(array: pa.Array) -> pa.Array:
    """Without a dictionary."""
    return array.dictionary_decode() if isinstance(array, pa.DictionaryArray) else array


def _ids(batch: Any, read: ReadConfig, source: str, places: Sequence[str]) -> pa.Array:
    own = batch.column(read.id_key).to_pylist() if read.id_key in batch.schema.names else [None] * len(places)
    digest = xxhash.xxh3_128_hexdigest
    records = [place if value is None or value == "" else value for value, place in zip(own, places, strict=True)]
    return pa.array([digest(f"{source}\x1f{record}".encode()) for record in records], pa.string())


def _strings(array: pa.Array) -> pa.Array:
    """As text; empty becomes null."""
    plain = _plain(array)
    if not (pa.types.is_string(plain.type) or pa.types.is_large_string(plain.type)):
        plain = pa.array([None if value is None else str(value) for value in plain.to_pylist()], pa.string())
    plain = plain.cast(pa.string())
    return pc.if_else(pc.equal(plain, ""), pa.scalar(None, pa.string()), plain)


def _extra(batch: Any, names: Sequence[str]) -> pa.Array | None:
    if not names:
        return None
    rows = batch.select(list(names)).to_pylist()
    kept = [{k: v for k, v in row.items() if v is not None and not isinstance(v, bytes)} for row in rows]
    return pa.array([extra_json(row) for row in kept], pa.string())


def extra_json(values: dict[str, Any]) -> str | None:
    """The document's `extra`: a JSON object with sorted keys, or None."""
    return orjson.dumps(values, option=orjson.OPT_SORT_KEYS, default=str).decode() if values else None
