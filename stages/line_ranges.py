"""Lines of a file, or of a byte range of it, each with its place; no line is lost or read twice over the ranges.

Contract: the ranges of one file are neighbours. A range has the lines that start after its first line feed, up to the
one that starts at its very end; the first range has the first line as well. Plain files are cut by bytes, `.zst` files
by the frames that start in the range; `.gz` and `.bz2` cannot be cut. A line's place is the byte it starts at: in the
file, in the uncompressed stream, or `FRAME+BYTE` in a frame. It does not depend on how the file is cut.
Memory: one line of at most `limit_bytes`; a longer one is given without its bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import IO

import zstandard

from pipeline.core.files import open_input, open_raw
from stages.frames import Frame, frame_bytes, frames

READ_BYTES = 1 << 18


@dataclass(frozen=True)
class Line:
    """A line without its line feed; `data` is None when it is longer than the limit."""

    place: str
    data: bytes | None
    size: int


@dataclass(frozen=True)
class _Chunk:
    data: bytes
    offset: int
    frame: int | None = None

    def place(self, at: int) -> str:
        return str(self.offset + at) if self.frame is None else f"{self.frame}+{self.offset + at}"


def can_be_cut(name: str) -> bool:
    """Whether byte ranges of a file of this name can be read on their own."""
    return not name.endswith((".gz", ".bz2"))


def lines(url: str, start: int, end: int | None, limit_bytes: int) -> Iterator[Line]:
    """The lines of the byte range [start, end) of a file, as the contract says.

    Raises:
        EOFError, OSError, zstandard.ZstdError: The file is cut or damaged; the lines before have been given.
    """
    if not can_be_cut(url):
        with open_input(url) as handle:
            yield from _split(_stream(handle), iter(()), limit_bytes, first=True)
        return
    with open_raw(url) as handle:
        if url.endswith(".zst"):
            walk = _FrameWalk(handle, start, end)
            yield from _split(walk.inside(), walk.after(), limit_bytes, first=start == 0)
        else:
            inside_bytes = _plain(handle, start, end)
            after_bytes = _plain(handle, end, None) if end is not None else iter(())
            yield from _split(inside_bytes, after_bytes, limit_bytes, first=start == 0)


def _stream(handle: IO[bytes]) -> Iterator[_Chunk]:
    offset = 0
    read: Callable[[int], bytes] = handle.read1  # pyright: ignore[reportAttributeAccessIssue]  # of a cut file, all
    while data := read(READ_BYTES):
        yield _Chunk(data, offset)
        offset += len(data)


def _plain(handle: IO[bytes], start: int, end: int | None) -> Iterator[_Chunk]:
    at = start
    while end is None or at < end:
        handle.seek(at)
        data = handle.read(READ_BYTES if end is None else min(READ_BYTES, end - at))
        if not data:
            return
        yield _Chunk(data, at)
        at += len(data)


class _FrameWalk:
    """The frames of a file that start in [start, end), then those behind them."""

    def __init__(self, handle: IO[bytes], start: int, end: int | None) -> None:
        self._handle, self._start, self._end = handle, start, end
        self._walk = frames(handle)
        self._next: Frame | None = None

    def inside(self) -> Iterator[_Chunk]:
        reached = 0
        try:
            for frame in self._walk:
                reached = frame.stop or frame.start
                if self._end is not None and frame.start >= self._end:
                    self._next = frame
                    return
                if frame.start >= self._start and not frame.skippable:
                    yield from self._chunks(frame)
        except zstandard.ZstdError:
            if reached >= self._start:  # else the range before has said so
                raise

    def after(self) -> Iterator[_Chunk]:
        first = [self._next] if self._next is not None else []
        for frame in chain(first, self._walk):
            if not frame.skippable:
                yield from self._chunks(frame)

    def _chunks(self, frame: Frame) -> Iterator[_Chunk]:
        offset = 0
        for data in frame_bytes(self._handle, frame):
            yield _Chunk(data, offset, frame.start)
            offset += len(data)


class _Pending:
    """The line that is being put together."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._parts: list[bytes] = []
        self._size = 0
        self._place: str | None = None

    def add(self, part: bytes, place: Callable[[], str]) -> None:
        if self._place is None:
            self._place = place()
        self._size += len(part)
        if self._size > self._limit:
            self._parts.clear()
        else:
            self._parts.append(part)

    @property
    def started(self) -> bool:
        return self._size > 0

    def taken(self) -> Line:
        whole = b"".join(self._parts) if self._size <= self._limit else None
        line = Line(self._place or "0", whole, self._size)
        self._parts, self._size, self._place = [], 0, None
        return line


def _split(inside: Iterator[_Chunk], after: Iterator[_Chunk], limit_bytes: int, *, first: bool) -> Iterator[Line]:
    pending = _Pending(limit_bytes)
    owned = first
    for chunk in inside:
        at = 0
        while (feed := chunk.data.find(b"\n", at)) >= 0:
            if owned:
                pending.add(chunk.data[at:feed], lambda chunk=chunk, at=at: chunk.place(at))
                yield pending.taken()
            owned, at = True, feed + 1
        if owned and at < len(chunk.data):
            pending.add(chunk.data[at:], lambda chunk=chunk, at=at: chunk.place(at))
    if not owned:
        return
    for chunk in after:
        feed = chunk.data.find(b"\n")
        pending.add(chunk.data if feed < 0 else chunk.data[:feed], lambda chunk=chunk: chunk.place(0))
        if feed >= 0:
            yield pending.taken()
            return
    if pending.started:
        yield pending.taken()
