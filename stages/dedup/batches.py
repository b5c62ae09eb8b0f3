"""Document shards a batch at a time, so that memory does not grow with a shard.

Contract: the rows of a file in order; a batch holds about `BATCH_BYTES` of text at its row group's mean, and never more
than one row group, which the steps here and cleaning write at `clean_output.GROUP_BYTES` and one document at most. A
file without rows is one empty batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.core.documents import DOCUMENT_SCHEMA
from pipeline.core.errors import InputError

BATCH_BYTES = 16 << 20


def table_batches(file: Path, columns: Sequence[str] = tuple(DOCUMENT_SCHEMA.names)) -> Iterator[pa.Table]:
    """Some columns of a document file, a batch of rows at a time; each is one chunk.

    Raises:
        InputError: The file is not readable, or not of our schema.
    """
    wanted = pa.schema([DOCUMENT_SCHEMA.field(name) for name in columns])
    rows = 0
    try:
        with pq.ParquetFile(file, buffer_size=1 << 20) as opened:
            if missing := sorted(set(columns) - set(opened.schema_arrow.names)):
                raise InputError(f"columns differ from the contract: missing {missing}", where=str(file))
            for group in range(opened.num_row_groups):
                metadata = opened.metadata.row_group(group)
                mean = max(1, metadata.total_byte_size // max(1, metadata.num_rows))
                size = max(1, BATCH_BYTES // mean)
                for batch in opened.iter_batches(batch_size=size, row_groups=[group], columns=list(columns)):
                    rows += batch.num_rows
                    yield pa.Table.from_batches([batch]).select(list(columns)).cast(wanted)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"not a readable Parquet file: {error}", where=str(file)) from None
    if not rows:
        yield wanted.empty_table()
