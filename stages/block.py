"""The per-document block: what every cleaning block gives back, whoever runs it.

Contract: `apply` takes a table of `DOCUMENT_SCHEMA` and returns an `Outcome`. It is a pure function of the block's
config, of the files it was made with and of the documents: no state is carried from one batch to the next, so that
batch sizes, shards and workers change nothing. Rows keep their order. Every input row is either in `kept` or named in
`dropped_at`; only a block that splits documents may give more rows, and says how many in `counts["documents_split"]`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute
import xxhash

from pipeline.core.documents import DOCUMENT_SCHEMA
from stages.long_texts import Utf8, text_array
from stages.memory import LARGE_BYTES

pc: Any = pyarrow.compute  # its functions are made at import and have no types
SPLIT = "documents_split"


@dataclass(frozen=True)
class Dropped:
    """One dropped row: its number in the input batch, `block.rule`, and the value that failed."""

    row: int
    reason: str
    detail: str = ""


@dataclass(frozen=True)
class Outcome:
    """What a block made of a batch.

    Attributes:
        kept: `DOCUMENT_SCHEMA` rows that go on, in input order.
        dropped_at: [dropped] int64 row numbers of the input batch, ascending.
        reasons: [dropped] `block.rule`.
        details: [dropped] the value and threshold, the place, …; may be empty.
        counts: Changes made, for example `{"pii.email_masked": 3}`; summed over batches and shards.
        signals: A side table keyed by a string column `id` (one column per name@version), or None.
        evidence: Further tables about dropped rows, by name: each becomes a folder beside `dropped/`.
    """

    kept: pa.Table
    dropped_at: np.ndarray
    reasons: list[str]
    details: list[str]
    counts: Mapping[str, int] = field(default_factory=dict)
    signals: pa.Table | None = None
    evidence: Mapping[str, pa.Table] = field(default_factory=dict)
    dropped_langs: list[str | None] | None = None  # [dropped] what a block found out about rows before dropping them


class Block(Protocol):
    """A per-document block."""

    def apply(self, documents: pa.Table) -> Outcome: ...


def outcome(
    documents: pa.Table,
    dropped: Sequence[Dropped] = (),
    *,
    counts: Mapping[str, int] | None = None,
    signals: pa.Table | None = None,
    evidence: Mapping[str, pa.Table] | None = None,
    langs: Sequence[str | None] | None = None,
) -> Outcome:
    """An `Outcome` that keeps every row of `documents` (already changed, same number of rows) not in `dropped`.

    `langs` has the language of every row, from a block that identifies them.
    """
    ordered = sorted(dropped, key=lambda one: one.row)
    at = np.array([one.row for one in ordered], np.int64)
    assert np.unique(at).shape == at.shape, "a row was dropped twice"
    mask = np.ones(documents.num_rows, bool)
    mask[at] = False
    kept = documents.filter(pa.array(mask)) if at.size else documents
    return Outcome(
        kept=kept,
        dropped_at=at,
        reasons=[one.reason for one in ordered],
        details=[one.detail for one in ordered],
        counts=dict(counts or {}),
        signals=signals,
        evidence=dict(evidence or {}),
        dropped_langs=[langs[one.row] for one in ordered] if langs is not None else None,
    )


def with_columns(documents: pa.Table, columns: Mapping[str, pa.Array | pa.ChunkedArray | Sequence[object]]) -> pa.Table:
    """The same rows with some columns replaced, cast to the types of the document schema."""
    for name, values in columns.items():
        place = DOCUMENT_SCHEMA.get_field_index(name)
        assert place >= 0, f"`{name}` is not in the document schema"
        wanted = DOCUMENT_SCHEMA.field(place)
        array: Any = values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values, type=wanted.type)
        documents = documents.set_column(place, wanted, array.cast(wanted.type))
    return documents


def with_texts(documents: pa.Table, texts: Sequence[str] | pa.Array | pa.ChunkedArray) -> pa.Table:
    """The same rows with new texts and their hashes."""
    array: Any = texts if isinstance(texts, pa.Array | pa.ChunkedArray) else pa.array(texts, pa.large_string())
    return with_columns(documents, {"text": array, "text_hash": text_hashes(array)})


def with_changed_texts(documents: pa.Table, changed: Mapping[int, str | Sequence[Utf8]]) -> pa.Table:
    """The same rows, the text of some replaced; the others' texts are neither decoded nor hashed again.

    A new text is a string, or its UTF-8 in pieces.
    """
    if not changed:
        return documents
    rows = sorted(changed)
    mask = np.zeros(documents.num_rows, bool)
    mask[rows] = True
    texts = text_array([changed[row] for row in rows])
    hashes = pc.replace_with_mask(documents["text_hash"], pa.array(mask), text_hashes(texts))
    if texts.nbytes > LARGE_BYTES:  # chunks side by side: no further copy
        return with_columns(documents, {"text": _spliced(documents["text"], texts, rows), "text_hash": hashes})
    new = pc.replace_with_mask(documents["text"], pa.array(mask), texts)
    return with_columns(documents, {"text": new, "text_hash": hashes})


def _spliced(old: pa.ChunkedArray, new: pa.Array, rows: Sequence[int]) -> pa.ChunkedArray:
    """`old` with `new` in place of `rows`."""
    chunks: list[pa.Array] = []
    start = 0
    for number, row in enumerate(rows):
        chunks += [*old.slice(start, row - start).chunks, new.slice(number, 1)]
        start = row + 1
    chunks += old.slice(start).chunks
    return pa.chunked_array([chunk for chunk in chunks if len(chunk)], pa.large_string())


def text_hashes(texts: pa.Array | pa.ChunkedArray) -> pa.Array:
    """`text_hash` of each text, over the UTF-8 bytes where they lie."""
    digest = xxhash.xxh3_128_hexdigest
    found: list[str] = []
    for chunk in texts.chunks if isinstance(texts, pa.ChunkedArray) else [texts]:
        array = chunk.cast(pa.large_string())
        data = array.buffers()[2]
        view = memoryview(data if data is not None else b"")
        ends = (
            np.frombuffer(array.buffers()[1], np.int64, len(array) + 1, array.offset * 8).tolist() if len(array) else []
        )
        found += [digest(view[start:end]) for start, end in pairwise(ends)]
    return pa.array(found, pa.string())


def verify(documents: pa.Table, result: Outcome) -> None:
    """Assert conservation: every input row is kept or dropped, once, with a reason (ours, not the user's, to keep)."""
    dropped = result.dropped_at.shape[0]
    assert result.kept.schema.names == DOCUMENT_SCHEMA.names, result.kept.schema.names
    assert dropped == len(result.reasons) == len(result.details)
    split = int(result.counts.get(SPLIT, 0))
    assert result.kept.num_rows + dropped == documents.num_rows + split, (
        f"{documents.num_rows} in (+{split} split), {result.kept.num_rows} kept, {dropped} dropped"
    )
