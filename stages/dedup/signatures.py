"""MinHash signatures over shingles of the quick segmenter, straight from an Arrow text column.

Contract: a document's signature depends on its text only. A shingle is `shingle` tokens in a row; a text with fewer
tokens is one shingle, a text without any is compared byte by byte, so that short documents take part. Hash family:
multiply-shift on mixed 64-bit shingle hashes, upper 32 bits (Dietzfelbinger et al. 1997). Bands as in MinHash LSH
(Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, chapter 3). Cost: about 100 MB/s on one core for 112 values;
memory 4 bytes a value a document and 5 bytes a byte of the longest document.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numba import njit

from pipeline.core.rng import derive_seed
from stages.characters import mix64
from stages.dedup.segment import segment, tables

BIG = np.uint32(0xFFFFFFFF)


def multipliers(count: int) -> np.ndarray:
    """[2, count] uint64: odd factors and addends of the hash family, the same for ever."""
    factors = [derive_seed("minhash", "factor", i) * 2 + 1 for i in range(count)]
    addends = [derive_seed("minhash", "addend", i) for i in range(count)]
    return np.array([factors, addends], np.uint64)


def compared_texts(documents: pa.Table) -> pa.Array | pa.ChunkedArray:
    """The texts by which documents are compared (columns `text`, `messages`): a chat's is all that was said in it."""
    texts, messages = documents["text"], documents["messages"]
    if messages.null_count == documents.num_rows:
        return texts
    return pa.array(list(map(_whole_text, texts.to_pylist(), messages.to_pylist())), pa.large_string())


def _whole_text(text: str, messages: Sequence[Mapping[str, Any]] | None) -> str:
    parts = [message[key] for message in messages or () for key in ("reasoning", "content") if message[key]]
    return "\n".join([text, *parts]) if parts else text


def text_buffers(column: pa.Array | pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """(uint8 bytes, [rows + 1] int64 offsets into them) of a large_string column without nulls; nothing is copied."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):  # several chunks, or none
        array = pa.concat_arrays([*array.chunks, pa.array([], array.type)])
    assert array.type == pa.large_string(), array.type
    assert array.null_count == 0, "texts are never null"
    _, offsets, data = array.buffers()
    if offsets is None or offsets.size == 0:  # no rows
        return np.empty(0, np.uint8), np.zeros(1, np.int64)
    ends = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
    return (np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)), ends


def text_bytes(documents: pa.Table) -> int:
    """UTF-8 bytes of all texts of a document table."""
    _, offsets = text_buffers(documents["text"])
    return int(offsets[-1] - offsets[0])


@njit(cache=True)
def shingles_of(
    data: np.ndarray, start: int, end: int, kinds: np.ndarray, folds: np.ndarray, shingle: int
) -> np.ndarray:
    """[shingles] uint64 hashes of one text, repeats included; never empty."""
    hashes, _ = segment(data, start, end, kinds, folds)
    tokens = hashes.shape[0]
    if tokens == 0:
        out = np.empty(1, np.uint64)
        state = np.uint64(0xCBF29CE484222325)
        for at in range(start, end):
            state = (state ^ np.uint64(data[at])) * np.uint64(0x100000001B3)
        out[0] = mix64(state)
        return out
    width = min(shingle, tokens)
    out = np.empty(tokens - width + 1, np.uint64)
    for first in range(out.shape[0]):
        state = np.uint64(width)
        for k in range(width):
            state = mix64(state * np.uint64(0x9E3779B97F4A7C15) + hashes[first + k])
        out[first] = state
    return out


@njit(cache=True)
def _signatures(
    data: np.ndarray,
    offsets: np.ndarray,
    kinds: np.ndarray,
    folds: np.ndarray,
    shingle: int,
    family: np.ndarray,
    out: np.ndarray,
) -> None:
    factors = family[0]
    addends = family[1]
    for row in range(offsets.shape[0] - 1):
        values = out[row]
        for hashed in shingles_of(data, offsets[row], offsets[row + 1], kinds, folds, shingle):
            for k in range(values.shape[0]):
                value = np.uint32((factors[k] * hashed + addends[k]) >> np.uint64(32))
                values[k] = min(values[k], value)


def signatures(texts: pa.Array | pa.ChunkedArray, shingle: int, count: int) -> np.ndarray:
    """[documents, count] uint32 MinHash values of a large_string column."""
    data, offsets = text_buffers(texts)
    known = tables()
    out = np.full((offsets.shape[0] - 1, count), BIG, np.uint32)
    _signatures(data, offsets, known.kind, known.fold, shingle, multipliers(count), out)
    return out


def shingles(text: str, shingle: int) -> np.ndarray:
    """[distinct] uint64 shingle hashes of one text, ascending."""
    data = np.frombuffer(text.encode("utf-8"), np.uint8)
    known = tables()
    return np.unique(shingles_of(data, 0, data.shape[0], known.kind, known.fold, shingle))


@njit(cache=True)
def _band_keys(values: np.ndarray, rows: int, out: np.ndarray) -> None:
    for document in range(values.shape[0]):
        for band in range(out.shape[1]):
            state = np.uint64(band)
            for k in range(rows):
                state = mix64(state * np.uint64(0x9E3779B97F4A7C15) + np.uint64(values[document, band * rows + k]))
            out[document, band] = state


def band_keys(values: np.ndarray, bands: int, rows: int) -> np.ndarray:
    """[documents, bands] uint64 bucket keys of [documents, bands * rows] signatures."""
    assert values.shape[1] == bands * rows, (values.shape, bands, rows)
    out = np.empty((values.shape[0], bands), np.uint64)
    _band_keys(values, rows, out)
    return out
