"""Texts as UTF-8 where they lie in an Arrow column; long ones in pieces of whole lines.

A Python string takes one, two or four bytes a character, whatever its rarest one needs: 62 MiB of text with a single
emoji in it is a string of up to 250 MiB, and most operations make another. Blocks therefore decode a piece at a time.
Contract: pieces joined are the text; each is of about `PIECE_BYTES` and ends behind a line feed that the block's own
`is_border` accepts, the last one with the text. Where no such line feed comes, a piece is longer: it is for a block's
borders to be such that a block gives the same for the pieces as for the whole. Cost: no copy, a search at each border.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import cast

import numpy as np
import pyarrow as pa

PIECE_BYTES = 2 << 20
SEARCHED_BYTES = 1 << 16  # looked through at once for line feeds
Border = Callable[[memoryview, int], bool]  # (text, place behind a line feed): whether a piece may end there
Utf8 = bytes | memoryview


def views(texts: pa.Array | pa.ChunkedArray) -> list[memoryview]:
    """The UTF-8 of each text, not copied; that of null is empty."""
    found: list[memoryview] = []
    for chunk in texts.chunks if isinstance(texts, pa.ChunkedArray) else [texts]:
        array = cast(pa.LargeStringArray, chunk.cast(pa.large_string()))
        if not len(array):
            continue
        _, places, content = array.buffers()
        data = memoryview(content if content is not None else b"").cast("B")
        ends = np.frombuffer(places, np.int64, len(array) + 1, array.offset * 8).tolist()
        found += [data[start:end] for start, end in pairwise(ends)]
    return found


def decoded(view: memoryview) -> str:
    """The text of some UTF-8."""
    return str(view, "utf-8")


def beginnings(texts: pa.Array | pa.ChunkedArray, characters: int) -> list[str]:
    """The first characters of each text, at least so many where it has them."""
    return [bytes(view[: 4 * characters]).decode(errors="ignore") for view in views(texts)]  # at most four bytes each


def any_line_feed(text: memoryview, place: int) -> bool:
    """The border of blocks that look at single lines."""
    return True


def pieces(text: memoryview, is_border: Border = any_line_feed) -> Iterator[tuple[int, int]]:
    """[start, end) of each piece; one for a short text, none for an empty one."""
    start = 0
    while start < len(text):
        end = _next_border(text, start + PIECE_BYTES, is_border)
        yield start, end
        start = end


def _next_border(text: memoryview, place: int, is_border: Border) -> int:
    """The first border behind `place`, or the text's end."""
    while place < len(text):
        some = bytes(text[place : place + SEARCHED_BYTES])
        at = some.find(b"\n")
        while at >= 0:
            if place + at + 1 < len(text) and is_border(text, place + at + 1):
                return place + at + 1
            at = some.find(b"\n", at + 1)
        place += len(some)
    return len(text)


def text_array(texts: Sequence[str | Sequence[Utf8]]) -> pa.LargeStringArray:
    """Texts, some of them given in pieces of UTF-8, as a column: each is copied once."""
    parts: list[Iterable[Utf8]] = [[text.encode()] if isinstance(text, str) else text for text in texts]
    ends = np.cumsum([0, *(sum(map(len, one)) for one in parts)], dtype=np.int64)
    data = pa.allocate_buffer(int(ends[-1]))
    into, at = memoryview(data).cast("B"), 0
    for part in (piece for one in parts for piece in one):
        into[at : at + len(part)] = part
        at += len(part)
    buffers = [None, pa.py_buffer(ends), data]
    return cast(pa.LargeStringArray, pa.Array.from_buffers(pa.large_string(), len(texts), buffers))
