"""Texts larger than the limit, cut at paragraphs; and sources that lie behind a URL."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
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
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.documents import document_id
from pipeline.core.errors import InputError
from stages.config import ReadConfig
from stages.read import read_parts
from stages.rows import Origin
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


@pytest.mark.parametrize("kind", ["html", "warc", "python-stdlib"])
def test_pages_are_not_cut(kind: str) -> None:
    with pytest.raises(ValueError, match=f"of {kind} it would cut pages"):
        ReadConfig.model_validate({"kind": kind, "too_large": "cut"})


def write_rows(folder: Path, kind: str, rows: list[dict[str, Any]]) -> ReadConfig:
    """The rows as a file of a kind, and how it is read."""
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), folder / "a.parquet", row_group_size=3)
    else:
        (folder / "a.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return ReadConfig.model_validate({"kind": kind, "paths": (f"a.{kind}",)})


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_large_record_is_dropped_by_name_or_becomes_documents_of_whole_paragraphs(tmp_path: Path, kind: str) -> None:
    texts = ["짧은 글입니다.", KOREAN * 40, "끝입니다.", "또 하나.", KOREAN * 50]
    rows = [{"id": f"r{n}", "text": text, "url": f"http://x/{n}", "note": n} for n, text in enumerate(texts)]
    read = write_rows(tmp_path, kind, rows).replaced(maximum_document_bytes=2000)
    kept, dropped = run(read, tmp_path)
    assert [row["id"] for row in kept] == [document_id("web", f"r{n}") for n in (0, 2, 3)]
    assert [row["reason"] for row in dropped] == ["read.too_large"] * 2
    assert all("`maximum_document_bytes` is 2000; `too_large: cut`" in row["detail"] for row in dropped)

    documents, dropped = run(read.replaced(too_large="cut"), tmp_path)
    assert dropped == []
    assert [row for row in documents if row["parents"] is None] == kept
    for number in (1, 4):
        whole = document_id("web", f"r{number}")
        pieces = [row for row in documents if row["parents"] == [whole]]
        assert "".join(row["text"] for row in pieces) == texts[number]
        assert all(row["text"].endswith("\n\n") and len(row["text"].encode()) <= 1000 for row in pieces)
        assert {row["url"] for row in pieces} == {f"http://x/{number}"}
        assert [json.loads(row["extra"]) for row in pieces] == [
            {"note": number, "piece": n} for n in range(len(pieces))
        ]
        assert pieces[0]["id"] == document_id("web", f"{whole}@0")
    assert "".join(row["text"] for row in documents) == "".join(texts), "pieces stand where their record stood"
    assert len({row["id"] for row in documents}) == len(documents)


def test_a_large_row_that_is_no_text_is_quarantined(tmp_path: Path) -> None:
    broken = pa.array([b"ok", b"\xff" * 3000, b"fine"], pa.binary())
    table = pa.table({"text": pa.Array.from_buffers(pa.string(), 3, broken.buffers())})
    pq.write_table(table, tmp_path / "a.parquet")
    read = ReadConfig(kind="parquet", paths=("a.parquet",), maximum_document_bytes=2000, too_large="cut")
    documents, [gone] = run(read, tmp_path)
    assert [row["text"] for row in documents] == ["ok", "fine"]
    assert (gone["reason"], gone["detail"]) == ("read.bad_record", "a.parquet:2: field `text` is not UTF-8")


HUGE = """
import sys
from pathlib import Path
from stages.config import ReadConfig
from stages.read import read_parts
from stages.rows import Origin
from stages.sources import expand_paths, shard_parts

def kib(name):
    return int(next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name)).split()[1])

read = ReadConfig(kind=sys.argv[2], paths=(sys.argv[3],), maximum_document_bytes=1 << 20, shard_bytes=1 << 40, too_large=sys.argv[4])
files = expand_paths(read, Path(sys.argv[1]))
before = kib("VmRSS")
for parts in shard_parts(files, read.kind, read.shard_bytes):
    for batch in read_parts(parts, read.replaced(paths=()), Origin("web", None, None, None)):
        for row in batch.dropped:
            print(row["reason"], row["detail"], sep="\t")
        for text in batch.documents["text"].to_pylist():
            print("kept", len(text), sep="\t")
print("grew", kib("VmHWM") - before, sep="\t")
"""


def huge_file(folder: Path, name: str, size: int) -> None:
    """One record of `size` bytes, and where the kind has several a small one behind it."""
    block = b"word " * (1 << 18)
    parts = [block] * (size // len(block))
    if name.startswith("a.jsonl"):
        parts = [b'{"text": "', *parts, b'"}\n{"text": "small"}\n']
    elif name == "a.warc.gz":
        page = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n"
        length = len(page) + sum(map(len, parts))
        head = f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Record-ID: <urn:a>\r\nWARC-Target-URI: http://a\r\nContent-Length: {length}\r\nContent-Type: application/http\r\n\r\n"
        parts = [head.encode(), page, *parts, b"\r\n\r\n"]
    opened: Any = {"gz": gzip.open, "zst": zstandard.open}.get(name.rsplit(".", 1)[-1], open)
    with opened(folder / name, "wb") as file:
        for part in parts:
            file.write(part)


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="memory is read from Linux's /proc")
@pytest.mark.parametrize(
    ("kind", "name", "too_large"),
    [
        ("jsonl", "a.jsonl", "drop"), ("jsonl", "a.jsonl.gz", "drop"), ("jsonl", "a.jsonl.zst", "cut"), ("warc", "a.warc.gz", "drop"),
        ("html", "a.html", "drop"), ("text", "a.txt.zst", "drop"), ("text", "a.txt", "cut"), ("parquet", "a.parquet", "cut"),
    ],
)  # fmt: skip
def test_a_record_of_200_megabytes_takes_no_memory(tmp_path: Path, kind: str, name: str, too_large: str) -> None:
    size = (40 if kind == "parquet" else 200) << 20
    if kind == "parquet":
        rows = pa.table({"text": ["word " * (size // 5), "small"]})
        pq.write_table(rows, tmp_path / name, row_group_size=1, compression="zstd", use_dictionary=False)
        del rows
    else:
        huge_file(tmp_path, name, size)
    script = [sys.executable, "-c", HUGE, str(tmp_path), kind, name, too_large]
    done = subprocess.run(script, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *found, (_, grown) = (line.split("\t") for line in done.stdout.splitlines())
    if (kind, too_large) == ("text", "cut"):
        assert sum(int(length) for _, length in found) == size // (5 << 18) * (5 << 18)
    else:
        assert found[0][0] == "read.too_large"
        assert "`maximum_document_bytes` is 1048576" in found[0][1]
        assert found[1:] == ([["kept", "5"]] if kind in ("jsonl", "parquet") else [])
    # A line that may be cut is held up to 128 MiB; pieces of text come in batches of 16 MiB, here also as strings; of one
    # word repeated, a single read of packed bytes gives 64 MiB.
    limit_mib = {("jsonl", "cut"): 300, ("text", "cut"): 150, ("warc", "drop"): 150}.get((kind, too_large), 60)
    assert int(grown) < limit_mib << 10


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
