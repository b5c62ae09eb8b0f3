"""WARC and WET files: records with their offsets, and whatever is broken named instead of lost.

A `.warc.gz` holds one gzip member a record. Members are taken one by one, so that a cut or damaged member costs that
record alone: it is reported with its offset, and reading goes on at the next member that opens. Records are parsed by
warcio. Memory: one member, decompressed, up to the limit given.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO

from warcio.archiveiterator import ArchiveIterator
from warcio.exceptions import ArchiveLoadFailed

READ_BYTES = 1 << 16
GZIP_MAGIC = b"\x1f\x8b\x08"
GZIP_WINDOW = 31  # zlib: 15 bits of window, gzip header


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


def warc_pages(handle: IO[bytes], limit_bytes: int) -> Iterator[WarcPage | WarcFault]:
    """Every response and conversion record of a WARC file, and every fault, in file order.

    Args:
        handle: The raw file, seekable.
        limit_bytes: Largest decompressed record; a larger one is a `too_large` fault.
    """
    start = handle.read(len(GZIP_MAGIC))
    handle.seek(0)
    if start != GZIP_MAGIC:
        yield from _records(handle, 0)
        return
    for offset, member, fault in _members(handle, limit_bytes):
        if fault is not None:
            yield fault
        else:
            yield from _records(io.BytesIO(member), offset)


def _members(handle: IO[bytes], limit_bytes: int) -> Iterator[tuple[int, bytes, WarcFault | None]]:
    """(offset, decompressed bytes, fault) of each gzip member."""
    offset, pending = 0, b""
    while True:
        engine = zlib.decompressobj(GZIP_WINDOW)
        parts: list[bytes] = []
        size = taken = 0
        problem = ""
        while not engine.eof:
            chunk = pending or handle.read(READ_BYTES)
            pending = b""
            if not chunk:
                problem = f"the gzip member ends after {taken} bytes" if taken else ""
                break
            taken += len(chunk)
            try:
                part = engine.decompress(chunk)
            except zlib.error as error:
                problem = str(error)
                break
            size += len(part)
            if size <= limit_bytes:
                parts.append(part)
        if not taken:
            return
        if engine.eof and not problem:
            fault = None
            if size > limit_bytes:
                message = f"{size} bytes, `maximum_document_bytes` is {limit_bytes}"
                fault = WarcFault("too_large", offset, message)
            yield offset, b"".join(parts), fault
            pending = engine.unused_data
            offset += taken - len(pending)
            continue
        yield offset, b"", WarcFault("truncated", offset, problem)
        following = _next_member(handle, offset + 1)
        if following is None:
            return
        offset, pending = following, b""
        handle.seek(offset)


def _next_member(handle: IO[bytes], start: int) -> int | None:
    """Offset of the next gzip member that holds a WARC record, or None."""
    handle.seek(start)
    base, window = start, b""
    while chunk := handle.read(READ_BYTES):
        window += chunk
        at = window.find(GZIP_MAGIC)
        while at >= 0:
            probe = window[at : at + 4096]
            if _opens(probe):
                return base + at
            at = window.find(GZIP_MAGIC, at + 1)
        keep = min(len(window), 4096)
        base += len(window) - keep
        window = window[len(window) - keep :]
    return None


def _opens(probe: bytes) -> bool:
    try:
        return zlib.decompressobj(GZIP_WINDOW).decompress(probe, 5).startswith(b"WARC/")
    except zlib.error:
        return False


def _records(handle: IO[bytes], offset: int) -> Iterator[WarcPage | WarcFault]:
    try:
        for record in ArchiveIterator(handle):
            if record.rec_type in ("response", "conversion"):
                yield _page(record, offset)
            elif record.rec_type is not None:
                record.raw_stream.read()
    except (ArchiveLoadFailed, EOFError, ValueError, OSError, zlib.error) as error:
        yield WarcFault("bad_record", offset, f"{type(error).__name__}: {error}")


def _page(record: object, offset: int) -> WarcPage | WarcFault:
    headers = record.rec_headers  # pyright: ignore[reportAttributeAccessIssue]
    http = record.http_headers  # pyright: ignore[reportAttributeAccessIssue]
    stated = record.length  # pyright: ignore[reportAttributeAccessIssue]
    limited = record.raw_stream  # pyright: ignore[reportAttributeAccessIssue]
    payload = record.content_stream().read()  # pyright: ignore[reportAttributeAccessIssue]
    if getattr(limited, "limit", 0) > 0:
        return WarcFault("truncated", offset, f"the record states {stated} bytes, {limited.limit} are missing")
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
        url=headers.get_header("WARC-Target-URI"),
        date=headers.get_header("WARC-Date"),
        status=(http.get_statuscode() or "") if http else "",
        content_type=kind.strip().lower(),
        charset=charset or None,
        headers=names,
        payload=payload,
    )
