"""Reading: while a batch is worked on, no reader that waits for the next one holds its text a second time."""

from __future__ import annotations

import gc
import io
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from stages import read as reading
from stages.config import ReadConfig
from stages.read import read_parts
from stages.rows import Origin
from stages.sources import expand_paths, shard_parts

LINE = "Die B\u00fccherei schlie\u00dft montags um f\u00fcnf \u2013 der Leser merkt es sich.\n"
BATCH_BYTES = 2 << 20
TEXT = LINE * (BATCH_BYTES // len(LINE.encode()) + 1)  # fills a batch
SHORT = LINE * 20
HELD_BYTES = BATCH_BYTES // 8  # of Python's memory; Arrow's, where the batch is, is not traced
# Not here: CSV, whose parser keeps four bytes for each character of its longest field.


def page(text: str) -> str:
    return f"<html><head><meta charset='utf-8'></head><body><p>{text}</p></body></html>"


def warc(text: str) -> bytes:
    out = io.BytesIO()
    writer = WARCWriter(out, gzip=True)
    headers = StatusAndHeaders("200 OK", [("Content-Type", "text/html; charset=utf-8")], protocol="HTTP/1.1")
    writer.write_record(
        writer.create_warc_record(
            "http://a.example/", "response", payload=io.BytesIO(page(text).encode()), http_headers=headers
        )
    )
    return out.getvalue()


MAKERS: dict[str, Callable[[str], bytes]] = {
    "warc": warc,
    "jsonl": lambda text: (json.dumps({"text": text}, ensure_ascii=False) + "\n").encode(),
    "text": str.encode,
    "html": lambda text: page(text).encode(),
    "source-tree": str.encode,
}


@pytest.mark.parametrize(
    ("kind", "too_large"), [*((kind, "drop") for kind in MAKERS), ("jsonl", "cut"), ("text", "cut")]
)
def test_the_text_of_a_batch_is_held_by_the_batch_alone(
    kind: str, too_large: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "BATCH_BYTES", BATCH_BYTES)
    for name, text in (("a", SHORT), ("b", TEXT)):  # the short one first: what is loaded at first use stays
        (tmp_path / name).mkdir()
        (tmp_path / name / "one.txt").write_bytes(MAKERS[kind](text))
    held = [traced_at_batch(kind, too_large, tmp_path / name) for name in ("a", "b")]
    assert held[1] - held[0] < HELD_BYTES


def traced_at_batch(kind: str, too_large: str, folder: Path) -> int:
    """Bytes that Python's objects take more once the only batch of the source has been given than before it was read."""
    read = ReadConfig.model_validate({"kind": kind, "paths": ("*.txt",), "endings": (".txt",), "too_large": too_large})
    (parts,) = shard_parts(expand_paths(read, folder), read.kind, read.shard_bytes)
    gc.collect()
    tracemalloc.start()
    try:
        batches = read_parts(parts, read.replaced(paths=()), Origin("web", "CC-BY-4.0", "general", None))
        batch = next(batches)
        assert batch.documents.num_rows == 1
        gc.collect()
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
