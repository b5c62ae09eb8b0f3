"""Cutting repeated pieces out of documents: what the last step of paragraph and substring deduplication shares.

Contract: pieces are byte ranges of the UTF-8 text, cut by position in the very text they were found in (a document
whose id or text is another one is refused by its shard's item count and the step's fingerprint); nothing is searched
and replaced. A document of which only white space is left is dropped, one with messages never is. Counted:
`pieces_removed`, `bytes_removed`, `documents_changed`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.core.documents import DOCUMENT_SCHEMA, read_table, text_hash, write_documents, write_dropped
from pipeline.core.record import ShardResult
from pipeline.core.steps import StepTask
from stages.dedup.sign import input_files
from stages.dedup.signatures import text_buffers
from stages.dedup.survivors import dropped_table, shard_result, write_signals

Ranges = tuple[np.ndarray, np.ndarray, np.ndarray]  # [pieces] row, start and end in bytes of the text; ascending


def write_without(task: StepTask, shard: int, reason: str, found: Callable[[pa.Table], Ranges]) -> ShardResult:
    """Write input shard `shard` without the pieces that `found` names in its table."""
    file = input_files(task)[shard]
    table = read_table(file, DOCUMENT_SCHEMA)
    changed, pieces, removed = cut(table, *found(table))
    return _write(task, shard, file, reason, changed, {"pieces_removed": pieces, "bytes_removed": removed}, table)


def cut(table: pa.Table, rows: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> tuple[pa.Table, int, int]:
    """(the table with the byte ranges cut out of its texts, pieces cut, bytes cut); ranges do not overlap."""
    if not rows.shape[0]:
        return table, 0, 0
    data, offsets = text_buffers(table["text"])
    texts = table["text"].to_pylist()
    hashes = table["text_hash"].to_pylist()
    for row in np.unique(rows).tolist():
        own = rows == row
        text = data[offsets[row] : offsets[row + 1]]
        keep = np.ones(text.shape[0], bool)
        for start, end in zip(starts[own].tolist(), ends[own].tolist(), strict=True):
            keep[start:end] = False
        texts[row] = text[keep].tobytes().decode("utf-8")
        hashes[row] = text_hash(texts[row])
    for name, values in (("text", texts), ("text_hash", hashes)):
        field = DOCUMENT_SCHEMA.field(name)
        table = table.set_column(DOCUMENT_SCHEMA.get_field_index(name), field, pa.array(values, field.type))
    return table, rows.shape[0], int((ends - starts).sum())


def _write(
    task: StepTask, shard: int, file: Path, reason: str, changed: pa.Table, counts: dict[str, int], before: pa.Table
) -> ShardResult:
    texts = zip(changed["text"].to_pylist(), before["text"].to_pylist(), changed["messages"].to_pylist(), strict=True)
    gone = np.array([not text.strip() and text != old and not messages for text, old, messages in texts], bool)
    kept = changed.filter(pa.array(~gone))
    rows = np.flatnonzero(gone)
    details = ["all of it is in better documents"] * len(rows)
    dropped = dropped_table(before, rows, [reason] * len(rows), details)
    write_documents(task.folder, shard, kept)
    write_dropped(task.folder, shard, dropped)
    write_signals(task.folder, shard, file, kept)
    old, new = before["text_hash"].to_pylist(), changed["text_hash"].to_pylist()
    counts["documents_changed"] = sum(a != b for a, b in zip(old, new, strict=True)) - len(rows)
    result = shard_result(before, kept, dropped)
    return replace(result, counts={**result.counts, **counts})
