"""WARC and WET files: records with their offsets, and whatever is broken named instead of lost.

A `.warc.gz` holds one gzip member a record, a `.warc.zst` one Zstandard frame a record, the latter often with a
dictionary in a skippable frame at the file's start. Members are taken one by one, so that a cut or damaged member costs
what it holds alone: it is reported with its offset, and reading goes on at the next member that opens. Records are
parsed by warcio, as a stream: one that is larger than the limit is passed over, not held.
Contract: the records of the members that start in a byte range; plain files have no ranges.
Memory: one record of at most `limit_bytes`.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import IO, Any, Protocol

import zstandard
from warcio.archiveiterator import ArchiveIterator
from warcio.exceptions import ArchiveLoadFailed

from stages.frames import MAGIC as ZSTD_MAGIC
from stages.frames import SKIPPABLE

READ_BYTES = 1 << 16
GZIP_MAGIC = b"\x1f\x8b\x08"
GZIP_WINDOW = 31  # zlib: 15 bits of window, gzip header
PROBE_BYTES = 4096
_DICTIONARY = SKIPPABLE | 0xD  # its magic number, by the WARC Zstandard specification
# AttributeError: warcio's answer to a response that names no address
_BROKEN = (ArchiveLoadFailed, EOFError, ValueError, OSError, AttributeError, zlib.error, zstandard.ZstdError)


@dataclass(frozen=True)
class WarcPage:
    """A response or conversion record: its payload after HTTP decoding."""

    record: str  # WARC-Record-ID
    url: str | None
    date: str | None  # when it was fetched
    status: str  # HTTP status code; empty for conversion records
    content_type: str
    charset: str | None
    headers: dict[str, str] = field(default_factory=dict)  # HTTP headers, names in lower case
    payload: bytes = b""


@dataclass(frozen=True)
class WarcFault:
    """Something that could not be read: `truncated`, `bad_record` or `too_large`."""

    rule: str
    offset: int  # bytes into the file
    message: str
    url: str | None = None


class _Engine(Protocol):
    """What zlib's and zstandard's decompressors have in common."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, /) -> bytes: ...


@dataclass(frozen=True)
class _Packing:
    """How members are compressed."""

    magic: bytes
    engine: Callable[[], _Engine]


def warc_pages(
    handle: IO[bytes], limit_bytes: int, start: int = 0, end: int | None = None
) -> Iterator[WarcPage | WarcFault]:
    """Every response and conversion record of the members in a byte range, and every fault, in file order.

    Args:
        handle: The raw file, seekable.
        limit_bytes: Largest payload; a larger one is a `too_large` fault.
        start: First byte of the range.
        end: The byte after the range; None for the end of the file.
    """
    packing = _packing(handle)
    if packing is None:
        if start == 0:
            handle.seek(0)
            yield from _records(handle, 0, limit_bytes)
        return
    offset = _next_member(handle, start, packing)
    if start == 0 and offset != 0 and _begins_with_member(handle, packing):
        lost = handle.seek(0, 2) if offset is None else offset
        yield WarcFault("truncated", 0, f"{lost} bytes that hold no WARC record")
    while offset is not None and (end is None or offset < end):
        member = _Member(handle, offset, packing)
        faults = yield from _records(io.BufferedReader(member, READ_BYTES), offset, limit_bytes)
        member.drain()
        if member.problem:
            if not faults:
                yield WarcFault("truncated", offset, member.problem)
            offset = _next_member(handle, offset + 1, packing)
            continue
        offset = _next_member(handle, member.end, packing)
        if offset != member.end and (lost := (handle.seek(0, 2) if offset is None else offset) - member.end):
            yield WarcFault("truncated", member.end, f"{lost} bytes that hold no WARC record")


def _begins_with_member(handle: IO[bytes], packing: _Packing) -> bool:
    """Whether a member should stand at byte 0 (a dictionary may stand there instead)."""
    handle.seek(0)
    return handle.read(len(packing.magic)) == packing.magic


def _packing(handle: IO[bytes]) -> _Packing | None:
    handle.seek(0)
    start = handle.read(8)
    if start.startswith(GZIP_MAGIC):
        return _Packing(GZIP_MAGIC, lambda: zlib.decompressobj(GZIP_WINDOW))
    dictionary: zstandard.ZstdCompressionDict | None = None
    if len(start) == 8 and struct.unpack("<I", start[:4])[0] == _DICTIONARY:
        data = handle.read(struct.unpack("<I", start[4:])[0])
        if data.startswith(ZSTD_MAGIC):
            data = zstandard.ZstdDecompressor().decompressobj().decompress(data)
        dictionary = zstandard.ZstdCompressionDict(data)
    elif not start.startswith(ZSTD_MAGIC):
        return None
    return _Packing(ZSTD_MAGIC, lambda: zstandard.ZstdDecompressor(dict_data=dictionary).decompressobj())


class _Member(io.RawIOBase):
    """One member as a stream. A problem ends the stream and is kept in `problem`."""

    def __init__(self, handle: IO[bytes], offset: int, packing: _Packing) -> None:
        super().__init__()
        self._handle = handle
        self._engine = packing.engine()
        self._pending = b""
        self._at = offset
        self.problem = ""
        self._offset = offset

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        size = min(len(buffer), READ_BYTES)
        while not self._pending and not self._engine.eof and not self.problem:
            self._handle.seek(self._at)
            part = self._handle.read(READ_BYTES)
            self._at += len(part)
            if not part:
                self.problem = f"the member ends after {self._at - self._offset} bytes"
                break
            try:
                self._pending = self._engine.decompress(part)
            except (zlib.error, zstandard.ZstdError) as error:
                self.problem = str(error)
        taken, self._pending = self._pending[:size], self._pending[size:]
        buffer[: len(taken)] = taken
        return len(taken)

    def drain(self) -> None:
        """Read on to the member's end."""
        scratch = bytearray(READ_BYTES)
        while self.readinto(scratch):
            pass

    @property
    def end(self) -> int:
        """The byte after the member, once it has been read to its end."""
        return self._at - len(self._engine.unused_data)


def _next_member(handle: IO[bytes], start: int, packing: _Packing) -> int | None:
    """Offset of the next member that holds a WARC record, or None."""
    base, window = start, b""
    while True:
        handle.seek(base + len(window))
        chunk = handle.read(READ_BYTES)
        window += chunk
        last = len(window) if not chunk else max(0, len(window) - PROBE_BYTES)
        at = window.find(packing.magic)
        while 0 <= at < last:
            if _opens(window[at : at + PROBE_BYTES], packing):
                return base + at
            at = window.find(packing.magic, at + 1)
        if not chunk:
            return None
        base, window = base + last, window[last:]


def _opens(probe: bytes, packing: _Packing) -> bool:
    engine = packing.engine()
    try:
        # A cut probe gives what it can; zstandard gives nothing before a whole block.
        text = engine.decompress(probe)
    except (zlib.error, zstandard.ZstdError):
        return False
    if packing.magic == ZSTD_MAGIC and not text:
        return _is_header(probe)
    return text.startswith(b"WARC/")


def _is_header(probe: bytes) -> bool:
    """Whether a frame whose first block is longer than the probe has a sound header."""
    try:
        return zstandard.get_frame_parameters(probe).window_size > 0
    except zstandard.ZstdError:
        return False


def _records(handle: Any, offset: int, limit_bytes: int) -> Generator[WarcPage | WarcFault, None, int]:
    """Returns how many faults it gave."""
    faults = 0
    try:
        for record in ArchiveIterator(handle):
            if record.rec_type in ("response", "conversion"):
                found = [_page(record, offset, limit_bytes)]
                faults += isinstance(found[0], WarcFault)
                yield found.pop()  # a large page, which is not to be held while it is worked on
    except _BROKEN as error:
        yield WarcFault("bad_record", offset, f"{type(error).__name__}: {error}")
        faults += 1
    return faults


def _page(record: Any, offset: int, limit_bytes: int) -> WarcPage | WarcFault:
    headers, http = record.rec_headers, record.http_headers
    url = headers.get_header("WARC-Target-URI")
    payload = _payload(record.content_stream(), limit_bytes)
    if payload is None:
        message = f"a record of {record.length} bytes; `maximum_document_bytes` is {limit_bytes}"
        return WarcFault("too_large", offset, message, url)
    limited = record.raw_stream
    if getattr(limited, "limit", 0) > 0:
        message = f"the record states {record.length} bytes, {limited.limit} are missing"
        return WarcFault("truncated", offset, message, url)
    names = {name.lower(): value for name, value in http.headers} if http else {}
    stated_type = names.get("content-type", "") or ("" if http else headers.get_header("Content-Type") or "")
    kind, _, parameters = stated_type.partition(";")
    charset = next(
        (value.strip(" \"'") for key, _, value in (p.partition("=") for p in parameters.split(";"))
         if key.strip().lower() == "charset"),
        None,
    )  # fmt: skip
    return WarcPage(
        record=headers.get_header("WARC-Record-ID") or "",
        url=url,
        date=headers.get_header("WARC-Date"),
        status=(http.get_statuscode() or "") if http else "",
        content_type=kind.strip().lower(),
        charset=charset or None,
        headers=names,
        payload=payload,
    )


def _payload(stream: Any, limit_bytes: int) -> bytes | None:
    """The payload, or None when it is longer than the limit: stated lengths are not believed, and it may be packed."""
    parts: list[bytes] = []
    size = 0
    while part := stream.read(READ_BYTES):
        size += len(part)
        if size > limit_bytes:
            return None
        parts.append(part)
    return b"".join(parts)
