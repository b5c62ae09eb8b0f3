"""Texts larger than the limit, cut at paragraphs; and sources that lie behind a URL."""

from __future__ import annotations

import gzip
import io
import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.documents import document_id
from pipeline.core.errors import InputError
from stages.config import ReadConfig
from stages.read import Origin, read_parts
from stages.sources import CACHE, expand_paths, shard_parts, source_content
from stages.text_pieces import border, pieces

ORIGIN = Origin("web", "CC-BY-4.0", "general", None)
KOREAN = "동네 도서관은 매주 월요일에 문을 닫습니다. 책을 빌리려면 회원증을 가지고 가야 합니다.\n연체하면 백 원을 냅니다.\n\n"


def run(read: ReadConfig, base: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(documents, dropped rows) of a source."""
    documents: list[dict[str, Any]] = []
    dropped: list[dict[str, Any]] = []
    for parts in shard_parts(expand_paths(read, base), read.kind, read.shard_bytes):
        for batch in read_parts(parts, read.replaced(paths=()), ORIGIN):
            documents += batch.documents.to_pylist()
            dropped += batch.dropped
    return documents, dropped


@given(st.binary(max_size=200) | st.text("ab가 \n\r", max_size=80).map(str.encode), st.integers(8, 60))
def test_pieces_joined_are_the_file_and_each_fits(data: bytes, limit: int) -> None:
    found = list(pieces(io.BytesIO(data), limit))
    assert b"".join(piece for _, piece in found) == data
    assert all(0 < len(piece) <= limit // 2 for _, piece in found)
    assert [place for place, _ in found] == [sum(len(piece) for _, piece in found[:n]) for n in range(len(found))]


@given(st.text("ab가é\U0001f600 \n", max_size=120), st.integers(8, 40))
def test_no_character_is_cut(text: str, limit: int) -> None:
    assert "".join(piece.decode() for _, piece in pieces(io.BytesIO(text.encode()), limit)) == text


@pytest.mark.parametrize(
    ("data", "cut"),
    [
        (b"one\n\ntwo\nthree f", 5),
        (b"one\r\n\r\ntwo\nx y", 7),
        (b"one two\nthree", 8),
        (b"one two", 4),
        ("가나다".encode(), 6),
        (b"abc", 2),
    ],
)
def test_the_best_border_is_taken(data: bytes, cut: int) -> None:
    assert border(data) == cut


@pytest.mark.parametrize("charset", ["utf-8", "cp949"])
def test_a_large_text_becomes_documents_of_whole_paragraphs(tmp_path: Path, charset: str) -> None:
    text = KOREAN * 40
    (tmp_path / "book.txt.gz").write_bytes(gzip.compress(text.encode(charset)))
    (tmp_path / "small.txt").write_text("짧은 글입니다.\n")
    read = ReadConfig(kind="text", paths=("*.txt*",), maximum_document_bytes=2000, too_large="cut")
    documents, dropped = run(read, tmp_path)
    assert not dropped
    *book, small = documents
    assert "".join(row["text"] for row in book) == text
    assert all(row["text"].endswith("\n\n") and len(row["text"].encode()) <= 2000 for row in book)
    assert len(book) > 3
    assert {tuple(row["parents"]) for row in book} == {(document_id("web", "book.txt.gz"),)}
    assert [json.loads(row["extra"])["piece"] for row in book] == list(range(len(book)))
    assert book[0]["id"] == document_id("web", "book.txt.gz@0")
    assert (small["id"], small["parents"]) == (document_id("web", "small.txt"), None)


def test_a_large_text_is_dropped_by_name_unless_it_is_to_be_cut(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text(KOREAN * 40)
    documents, [gone] = run(ReadConfig(kind="text", paths=("*.txt",), maximum_document_bytes=2000), tmp_path)
    assert documents == []
    assert gone["reason"] == "read.too_large"
    assert "`maximum_document_bytes` is 2000; `too_large: cut`" in gone["detail"]
    with pytest.raises(ValueError, match="a jsonl record is parsed whole"):
        ReadConfig(kind="jsonl", too_large="cut")


def test_what_cannot_be_cut_is_dropped_by_name(tmp_path: Path) -> None:
    (tmp_path / "wide.txt").write_bytes((KOREAN * 40).encode("utf-16"))
    read = ReadConfig(kind="text", paths=("*.txt",), maximum_document_bytes=2000, too_large="cut")
    documents, [gone] = run(read, tmp_path)
    assert documents == []
    assert gone["reason"] == "read.too_large"
    assert "UTF-32 are not cut" in gone["detail"]


def test_a_cut_archive_of_a_large_text_keeps_what_came_before(tmp_path: Path) -> None:
    import random

    words = random.Random(1)
    text = "\n\n".join(" ".join(f"{words.getrandbits(40):x}" for _ in range(9)) for _ in range(200))
    whole = gzip.compress(text.encode())
    (tmp_path / "book.txt.gz").write_bytes(whole[: len(whole) // 2])
    read = ReadConfig(kind="text", paths=("*.txt.gz",), maximum_document_bytes=2000, too_large="cut")
    documents, dropped = run(read, tmp_path)
    assert [row["reason"] for row in dropped] == ["read.truncated"]
    assert text.startswith("".join(row["text"] for row in documents))


def sample(folder: Path) -> dict[str, ReadConfig]:
    """A file of every kind below a folder, and how it is read."""
    rows = [{"id": str(n), "text": f"{KOREAN}{n}"} for n in range(3)]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / "a.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    pq.write_table(pa.Table.from_pylist(rows), folder / "b.parquet")
    (folder / "c.txt").write_text(KOREAN)
    (folder / "d.html").write_bytes(f"<p>{KOREAN}</p>".encode("euc-kr"))
    (folder / "e.py").write_text("print(1)\n")
    return {
        "a.jsonl.gz": ReadConfig(kind="jsonl"),
        "b.parquet": ReadConfig(kind="parquet"),
        "c.txt": ReadConfig(kind="text"),
        "d.html": ReadConfig(kind="html"),
        "e.py": ReadConfig(kind="source-tree"),
    }


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """The folder `tmp_path` served over HTTP."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    handler.func.log_message = lambda *_: None  # type: ignore[method-assign]
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_every_kind_reads_the_same_behind_a_url(tmp_path: Path, address: str) -> None:
    memory = fsspec.filesystem("memory")
    for name, read in sample(tmp_path).items():
        memory.pipe(f"/corpus/{name}", (tmp_path / name).read_bytes())
        here = run(read.replaced(paths=(name,)), tmp_path)
        assert here[0]
        assert run(read.replaced(paths=(f"memory://corpus/{name}",)), tmp_path) == here
        assert run(read.replaced(paths=(f"{address}/{name}",)), tmp_path) == here
    several = ReadConfig(kind="text", paths=("memory://corpus/*.txt",))
    assert [row["text"] for row in run(several, tmp_path)[0]] == [KOREAN]
    memory.rm("/corpus", recursive=True)


def test_a_remote_file_without_a_stamp_is_hashed_each_time(tmp_path: Path, address: str) -> None:
    (tmp_path / "c.txt").write_text("before")
    read = ReadConfig(kind="text", paths=(f"{address}/c.txt",))
    first = source_content(expand_paths(read, tmp_path), tmp_path / "cache")
    assert not (tmp_path / "cache" / CACHE).exists()
    (tmp_path / "c.txt").write_text("behind")  # as long as before
    assert source_content(expand_paths(read, tmp_path), tmp_path / "cache") != first


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("nosuch://x/y.txt", "cannot be read: Protocol not known"),
        ("http://127.0.0.1:1/y.txt", "no file matches|cannot be reached"),
        ("memory://nowhere/y.txt", "no file matches"),
    ],
)
def test_an_address_that_gives_nothing_is_the_users_error(tmp_path: Path, path: str, what: str) -> None:
    with pytest.raises(InputError, match=what):
        expand_paths(ReadConfig(kind="text", paths=(path,)), tmp_path, where="c.yaml:3")
