"""WARC records of the sample crawl, byte for byte the same at every build.

Contract: record ids are UUIDs of the URL, dates are fixed, gzip members carry no time. Every third page is preceded by
the request that fetched it, as crawlers write them. Source: WARC 1.0 (ISO 28500) through warcio.
"""

from __future__ import annotations

import io
import uuid
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

CRAWLED = "2025-05-01"
BAD_FILE = "bad.warc.gz"
TRUNCATED_FILE = "truncated.warc.gz"
REQUEST_EVERY = 3
KEPT_OF_LAST_MEMBER = 0.6  # share of its bytes


@dataclass(frozen=True)
class Capture:
    """One fetched page, or with `info` the record that opens a file."""

    url: str
    payload: bytes
    date: str = CRAWLED
    header_charset: str | None = "UTF-8"
    content_type: str = "text/html"
    status: str = "200 OK"
    headers: dict[str, str] = field(default_factory=dict)
    info: bool = False


def warcinfo(name: str) -> Capture:
    """The record that opens a file."""
    payload = b"software: samples/build.py\r\nformat: WARC File Format 1.0\r\n"
    return Capture(url=name, payload=payload, info=True)


def not_a_page(url: str, status: str, content_type: str) -> Capture:
    """Something that every crawl brings and no text comes of."""
    payload = b"\x89PNG\r\n\x1a\n" + bytes(64) if content_type == "image/png" else b"<h1>Not found</h1>"
    charset = None if content_type == "image/png" else "UTF-8"
    return Capture(url, payload, CRAWLED, charset, content_type, status)


def warc_bytes(captures: Sequence[Capture]) -> bytes:
    """A whole `.warc.gz` file."""
    sink = io.BytesIO()
    writer = WARCWriter(sink, gzip=True)
    for number, capture in enumerate(captures):
        if capture.info:
            headers = {"WARC-Record-ID": _record_id("info", capture.url), "WARC-Date": f"{CRAWLED}T00:00:00Z"}
            headers |= {"WARC-Filename": capture.url, "Content-Type": "application/warc-fields"}
            writer.write_record(
                writer.create_warc_record("", "warcinfo", io.BytesIO(capture.payload), warc_headers_dict=headers)
            )
            continue
        if number % REQUEST_EVERY == 1:
            _write_request(writer, capture.url)
        _write_response(writer, capture)
    return sink.getvalue()


def _write_request(writer: WARCWriter, url: str) -> None:
    parts = urlsplit(url)
    http = StatusAndHeaders(f"GET {parts.path} HTTP/1.1", [("Host", parts.netloc)], is_http_request=True)
    headers = {"WARC-Record-ID": _record_id("request", url), "WARC-Date": f"{CRAWLED}T00:00:00Z"}
    writer.write_record(
        writer.create_warc_record(url, "request", io.BytesIO(b""), http_headers=http, warc_headers_dict=headers)
    )


def _write_response(writer: WARCWriter, capture: Capture) -> None:
    charset = f"; charset={capture.header_charset}" if capture.header_charset else ""
    lines = [("Content-Type", capture.content_type + charset), ("Content-Length", str(len(capture.payload)))]
    http = StatusAndHeaders(capture.status, [*lines, *sorted(capture.headers.items())], protocol="HTTP/1.1")
    headers = {"WARC-Record-ID": _record_id("response", capture.url), "WARC-Date": f"{CRAWLED}T00:00:00Z"}
    writer.write_record(
        writer.create_warc_record(
            capture.url, "response", io.BytesIO(capture.payload), http_headers=http, warc_headers_dict=headers
        )
    )


def _record_id(kind: str, url: str) -> str:
    return f"<urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'{kind} {url}')}>"


def member_offsets(data: bytes) -> list[int]:
    """Where each gzip member of a file starts."""
    offsets, at = [], 0
    while at < len(data):
        offsets.append(at)
        engine = zlib.decompressobj(31)
        engine.decompress(data[at:])
        at = len(data) - len(engine.unused_data)
    return offsets


def cut_last_member(data: bytes) -> tuple[bytes, int]:
    """The file without the end of its last member, as an interrupted download leaves it, and that member's offset."""
    last = member_offsets(data)[-1]
    return data[: last + int((len(data) - last) * KEPT_OF_LAST_MEMBER)], last
