"""A text too large for one document, as documents of whole paragraphs.

Contract: pieces of at most half the limit (other encodings may take twice the bytes in UTF-8), cut behind the last
empty line that fits, else behind a line, a space, or before a character. A piece is the file's bytes from its place:
the pieces joined are the file. Where a piece starts depends on the bytes before it and on the limit alone.
UTF-16 and UTF-32 have zero bytes in their line feeds and are not cut. Memory: one piece. `cut_row` does the same for a
record that was parsed whole: its pieces have its columns, it as parent, and ids by its own and their place.
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator, Mapping
from typing import IO, Any

import orjson

from pipeline.core.documents import document_id, text_hash

PIECE = "piece"  # key of `extra`: the number of a piece of a large text
PIECE_SHARE = 2  # a piece has at most 1 / PIECE_SHARE of the limit
_WIDE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)  # UTF-32's other mark begins as UTF-16's
_PARAGRAPHS = (b"\n\n", b"\n\r\n")
_SMALLER = (b"\n", b" ")


def pieces(handle: IO[bytes], limit_bytes: int) -> Iterator[tuple[int, bytes]]:
    """(place of its first byte, bytes) of each piece."""
    size = max(4, limit_bytes // PIECE_SHARE)  # room for any character
    place, rest = 0, b""
    while True:
        data = rest + _read(handle, size - len(rest))
        if not data:
            return
        cut = border(data) if len(data) == size else len(data)
        yield place, data[:cut]
        place, rest = place + cut, data[cut:]


def cut_row(row: Mapping[str, Any], text: bytes, limit_bytes: int) -> Iterator[dict[str, Any]]:
    """The rows of a record's pieces; `text` is its UTF-8, and `row` has its other columns."""
    extra: dict[str, Any] = orjson.loads(row["extra"]) if row.get("extra") else {}
    for number, (place, data) in enumerate(pieces(io.BytesIO(text), limit_bytes)):
        piece = data.decode()
        yield {
            **row,
            "id": document_id(row["source"], f"{row['id']}@{place}"),
            "text": piece,
            "text_hash": text_hash(piece),
            "parents": [*(row.get("parents") or []), row["id"]],
            "extra": orjson.dumps({**extra, PIECE: number}, option=orjson.OPT_SORT_KEYS).decode(),
        }


def is_wide(beginning: bytes) -> bool:
    """Whether a file is in an encoding that is not cut."""
    return beginning.startswith(_WIDE)


def border(data: bytes) -> int:
    """Where to cut: bytes of the longest beginning that ends behind a paragraph, a line, a word or a character."""
    for marks in (_PARAGRAPHS, *((mark,) for mark in _SMALLER)):
        cut = max(data.rfind(mark) + len(mark) if mark in data else 0 for mark in marks)
        if cut:
            return cut
    cut = len(data) - 1
    while cut > len(data) - 4 and data[cut] & 0xC0 == 0x80:  # UTF-8 continuation
        cut -= 1
    return cut or len(data)  # four bytes of no character


def _read(handle: IO[bytes], size: int) -> bytes:
    """`size` bytes, or fewer at the end: a decompressing stream may give less at a time."""
    parts: list[bytes] = []
    while size > 0 and (part := handle.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
