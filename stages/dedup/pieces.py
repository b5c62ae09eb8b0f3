"""Cutting repeated pieces out of documents: what the last step of paragraph and substring deduplication shares.

Contract: pieces are byte ranges of the UTF-8 text, cut by position in the very text they were found in (a document
whose id or text is another one is refused by its shard's item count and the step's fingerprint); nothing is searched
and replaced. A document of which only white space is left is dropped, one with messages never is. Counted:
`pieces_removed`, `bytes_removed`, `documents_changed`. Memory: a batch of documents, twice, and one row group.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pyarrow as pa
from numba import njit

from pipeline.core.record import ShardResult
from pipeline.core.steps import StepTask
from stages.block import pc, text_hashes, with_columns
from stages.dedup.batches import table_batches
from stages.dedup.sign import input_files
from stages.dedup.signatures import text_buffers
from stages.dedup.survivors import filtered


def write_without(task: StepTask, shard: int, reason: str, found: Callable[[pa.Table, int], np.ndarray]) -> ShardResult:
    """Write input shard `shard` without pieces.

    Args:
        task: The step's.
        shard: Number of the input shard.
        reason: Of a document of which nothing is left.
        found: (batch of documents, number of its first row) -> [N, 3] int64 row of the batch, start and end in bytes of
            the text, ascending; they do not overlap.
    """
    file = input_files(task)[shard]
    counts = Counter[str](dict.fromkeys(("pieces_removed", "bytes_removed", "documents_changed"), 0))
    first = 0
    with filtered(task.folder, shard, file) as output:
        for table in table_batches(file):
            pieces = found(table, first)
            changed, rows = cut(table, pieces)
            gone = rows[[_is_empty(changed, int(row)) for row in rows]] if rows.shape[0] else rows
            counts["pieces_removed"] += pieces.shape[0]
            counts["bytes_removed"] += int((pieces[:, 2] - pieces[:, 1]).sum())
            counts["documents_changed"] += rows.shape[0] - gone.shape[0]
            details = ["all of it is in better documents"] * gone.shape[0]
            output.add(table, changed, gone, [reason] * gone.shape[0], details)
            first += table.num_rows
        result = output.result()
    return replace(result, counts={**result.counts, **counts})


def _is_empty(table: pa.Table, row: int) -> bool:
    return not table["text"][row].as_py().strip() and not table["messages"][row].as_py()


def cut(table: pa.Table, pieces: np.ndarray) -> tuple[pa.Table, np.ndarray]:
    """(the table with the pieces [N, 3] cut out of its texts, [changed] int64 its rows that had any)."""
    rows = np.unique(pieces[:, 0])
    if not rows.shape[0]:
        return table, rows
    data, offsets = text_buffers(table["text"])
    removed = int((pieces[:, 2] - pieces[:, 1]).sum())
    kept, ends = np.empty(int(offsets[-1] - offsets[0]) - removed, np.uint8), np.empty(offsets.shape[0], np.int64)
    _copy_without(data, offsets, pieces, kept, ends)
    texts = pa.Array.from_buffers(pa.large_string(), table.num_rows, [None, pa.py_buffer(ends), pa.py_buffer(kept)])
    mask = np.zeros(table.num_rows, bool)
    mask[rows] = True
    fresh = text_hashes(texts.take(pa.array(rows)))
    hashes = pc.replace_with_mask(table["text_hash"], pa.array(mask), fresh)
    return with_columns(table, {"text": texts, "text_hash": hashes}), rows


@njit(cache=True)
def _copy_without(
    data: np.ndarray, offsets: np.ndarray, pieces: np.ndarray, kept: np.ndarray, ends: np.ndarray
) -> None:
    """Fill `kept` with the bytes outside of pieces and `ends` [rows + 1] with the new offsets."""
    piece = 0
    size = 0
    ends[0] = 0
    for row in range(offsets.shape[0] - 1):
        at = offsets[row]
        while piece < pieces.shape[0] and pieces[piece, 0] == row:
            first = offsets[row] + pieces[piece, 1]
            kept[size : size + first - at] = data[at:first]
            size += first - at
            at = offsets[row] + pieces[piece, 2]
            piece += 1
        last = offsets[row + 1]
        kept[size : size + last - at] = data[at:last]
        size += last - at
        ends[row + 1] = size
