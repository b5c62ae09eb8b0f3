"""The document: a row of one fixed Arrow schema in zstd Parquet (contract 1, version 1).

`id` is given at reading and fixed for life: xxh3-128 of the source's name and the source's own record id (or file and
offset). `text_hash` is xxh3-128 of the current NFC text. A dropped document is a row of `DROPPED_SCHEMA`; its text is
kept for a bounded number per reason and shard so that `peek` can show it.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from pipeline.core.errors import InputError
from pipeline.core.files import PARTIAL, atomic_path

DOCUMENTS_VERSION = 1

TOOL_CALL = pa.struct([("name", pa.string()), ("arguments", pa.string())])
MESSAGE = pa.struct(
    [
        ("role", pa.string()),
        ("reasoning", pa.large_string()),
        ("content", pa.large_string()),
        ("tool_calls", pa.list_(TOOL_CALL)),
    ]
)

DOCUMENT_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("text_hash", pa.string(), nullable=False),
        pa.field("text", pa.large_string(), nullable=False),
        pa.field("messages", pa.list_(MESSAGE)),
        pa.field("source", pa.string(), nullable=False),
        pa.field("url", pa.string()),
        pa.field("title", pa.string()),
        pa.field("date", pa.string()),
        pa.field("lang", pa.string()),  # BCP-47; null until identified
        pa.field("lang_score", pa.float32()),
        pa.field("declared_lang", pa.string()),
        pa.field("domain", pa.string()),
        pa.field("license", pa.string()),  # SPDX
        pa.field("robots", pa.string()),
        pa.field("parallel_id", pa.string()),
        pa.field("parents", pa.list_(pa.string())),
        pa.field("maker", pa.string()),
        pa.field("duplicate_of", pa.string()),
        pa.field("cluster_size", pa.int32()),
        pa.field("extra", pa.string()),  # JSON object
    ],
    metadata={"seodang.documents": str(DOCUMENTS_VERSION)},
)

DROPPED_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("url", pa.string()),
        pa.field("lang", pa.string()),
        pa.field("reason", pa.string(), nullable=False),  # block.rule, for example rules.gopher_too_short
        pa.field("detail", pa.string()),  # the value that failed, the document kept instead, …
        pa.field("text", pa.large_string()),  # null beyond the kept samples
    ],
    metadata={"seodang.dropped": str(DOCUMENTS_VERSION)},
)

ROW_GROUP_ROWS = 4096


def document_id(source: str, record: str) -> str:
    """32 hex digits of xxh3-128 over the source's name and its own record id (or file and offset)."""
    return xxhash.xxh3_128_hexdigest(f"{source}\x1f{record}".encode())


def text_hash(text: str) -> str:
    """32 hex digits of xxh3-128 over UTF-8; the caller passes NFC text."""
    return xxhash.xxh3_128_hexdigest(text.encode("utf-8", errors="surrogatepass"))


def table_from_rows(rows: Sequence[Mapping[str, Any]], schema: pa.Schema = DOCUMENT_SCHEMA) -> pa.Table:
    """A table of `schema` from row mappings; absent keys become null."""
    unknown = {key for row in rows for key in row} - set(schema.names)
    assert not unknown, f"not in the document schema: {sorted(unknown)}"
    columns = [pa.array([row.get(f.name) for row in rows], type=f.type) for f in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def empty_documents() -> pa.Table:
    return DOCUMENT_SCHEMA.empty_table()


def write_table(path: Path, table: pa.Table) -> None:
    """Write zstd Parquet atomically, byte for byte the same for the same table and library version."""
    with atomic_path(path) as partial:
        pq.write_table(table, partial, compression="zstd", row_group_size=ROW_GROUP_ROWS, write_statistics=True)


def read_table(path: Path, schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a Parquet file of ours; another schema raises `InputError` naming the file and the first difference."""
    with _readable(path):
        table = pq.read_table(path, columns=list(columns) if columns is not None else None)
    wanted = schema if columns is None else pa.schema([schema.field(name) for name in columns])
    _check_columns(table.schema.names, wanted.names, path)
    return table.cast(wanted).combine_chunks()


def column_batches(path: Path, column: str, rows: int) -> Iterator[pa.Array]:
    """One column of a Parquet file of ours, `rows` values at once in memory; `InputError` as `read_table` has it."""
    with _readable(path), pq.ParquetFile(path) as file:
        _check_columns([name for name in file.schema_arrow.names if name == column], [column], path)
        for batch in file.iter_batches(rows, columns=[column]):
            yield batch.column(0)


@contextmanager
def _readable(path: Path) -> Generator[None]:
    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"not a readable Parquet file: {error}", where=str(path)) from None


def _check_columns(found: Sequence[str], wanted: Sequence[str], path: Path) -> None:
    if found != wanted:
        missing = sorted(set(wanted) - set(found))
        raise InputError(f"columns differ from the contract: missing {missing}", where=str(path))


def document_files(folder: Path) -> list[Path]:
    """The document shards of a step's output folder, in order."""
    return sorted(p for p in (folder / "documents").glob("*.parquet") if not p.name.startswith(PARTIAL))


def read_documents(folder: Path, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Each document shard of a step's output folder, one table at a time."""
    for path in document_files(folder):
        yield read_table(path, DOCUMENT_SCHEMA, columns)


def write_documents(folder: Path, shard: int, table: pa.Table) -> Path:
    """Write shard number `shard` of a step's documents; returns its path."""
    assert table.schema.names == DOCUMENT_SCHEMA.names, table.schema.names
    path = folder / "documents" / f"{shard:05d}.parquet"
    write_table(path, table.cast(DOCUMENT_SCHEMA))
    return path


def write_dropped(folder: Path, shard: int, table: pa.Table) -> Path:
    """Write shard number `shard` of what a step dropped; returns its path."""
    path = folder / "dropped" / f"{shard:05d}.parquet"
    write_table(path, table.cast(DROPPED_SCHEMA))
    return path


def read_dropped(folder: Path) -> Iterator[pa.Table]:
    for path in sorted(p for p in (folder / "dropped").glob("*.parquet") if not p.name.startswith(PARTIAL)):
        yield read_table(path, DROPPED_SCHEMA)
