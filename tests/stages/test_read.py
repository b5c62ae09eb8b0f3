"""Reading: every kind of source, broken records named and counted, legacy encodings, fixed ids and shards."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import sysconfig
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from pipeline.core.documents import document_id
from pipeline.core.errors import InputError
from stages.charset import decode_page, meta_charset
from stages.config import ReadConfig
from stages.read import is_html, read_parts
from stages.robots import declarations
from stages.rows import Origin
from stages.sources import Part, SourceFile, expand_paths, files_of, shard_parts, source_content, step_paths

ORIGIN = Origin("web", "CC-BY-4.0", "general", None)
KOREAN = "동네 도서관은 매주 월요일에 문을 닫습니다. 책을 빌리려면 회원증을 가지고 가야 합니다. 연체하면 하루에 백 원을 냅니다. "
JAPANESE = "図書館は毎週月曜日に閉まります。本を借りるには、会員証を持って行かなければなりません。返却が遅れると一日十円かかります。"
GERMAN = "Die Bücherei schließt montags früher. Für längere Ausleihen müssen Schüler ihre Ausweise verlängern lassen. "


def run(read: ReadConfig, base: Path) -> tuple[list[dict], list[dict]]:
    """(documents, dropped rows) of a source."""
    documents: list[dict] = []
    dropped: list[dict] = []
    shards = shard_parts(expand_paths(read, base), read.kind, read.shard_bytes)
    for batch in (batch for parts in shards for batch in read_parts(parts, read.replaced(paths=()), ORIGIN)):
        documents += batch.documents.to_pylist()
        dropped += batch.dropped
    return documents, dropped


def warc(pages: list[tuple[str, bytes, str]], *, compress: bool = True) -> bytes:
    """A WARC file with a response record for each (url, body, content type)."""
    out = io.BytesIO()
    writer = WARCWriter(out, gzip=compress)
    for url, body, kind in pages:
        headers = StatusAndHeaders("200 OK", [("Content-Type", kind)], protocol="HTTP/1.1")
        writer.write_record(
            writer.create_warc_record(
                url,
                "response",
                payload=io.BytesIO(body),
                http_headers=headers,
                warc_headers_dict={"WARC-Record-ID": f"<urn:{url}>", "WARC-Date": "2025-03-01T00:00:00Z"},
            )
        )
    return out.getvalue()


def html(text: str, head: str = "") -> str:
    return f"<html><head>{head}</head><body><p>{text}</p></body></html>"


def test_warc_pages_keep_their_record_id_url_date_and_robots(tmp_path: Path) -> None:
    page = html("Guten Tag", '<meta name="robots" content="noai, noindex">').encode()
    (tmp_path / "a.warc.gz").write_bytes(warc([("http://a.example/1", page, "text/html; charset=utf-8")]))
    documents, dropped = run(ReadConfig(kind="warc", paths=("*.warc.gz",)), tmp_path)
    assert dropped == []
    (row,) = documents
    assert row["id"] == document_id("web", "<urn:http://a.example/1>")
    assert (row["url"], row["date"], row["robots"]) == ("http://a.example/1", "2025-03-01", "noai, noindex")
    assert row["license"] == "CC-BY-4.0"
    assert is_html(pa.Table.from_pylist([row])) == [True]


@pytest.mark.parametrize("compress", [True, False])
def test_a_cut_warc_keeps_the_records_before_and_names_the_place(tmp_path: Path, compress: bool) -> None:
    pages = [(f"http://a.example/{n}", html(f"page {n} " * 300).encode(), "text/html") for n in range(3)]
    data = warc(pages, compress=compress)
    (tmp_path / "a.warc.gz").write_bytes(data[:-40])
    documents, dropped = run(ReadConfig(kind="warc", paths=("*.warc.gz",)), tmp_path)
    assert [row["url"] for row in documents] == ["http://a.example/0", "http://a.example/1"]
    (row,) = dropped
    assert row["reason"] == "read.truncated"
    assert row["detail"].startswith("a.warc.gz@")


def test_a_damaged_member_costs_one_record_and_reading_goes_on_after_it(tmp_path: Path) -> None:
    members = [warc([(f"http://a.example/{n}", html(f"page {n}").encode(), "text/html")]) for n in range(4)]
    data = members[0] + members[1][: len(members[1]) // 2] + members[2] + members[3]
    (tmp_path / "a.warc.gz").write_bytes(data)
    documents, dropped = run(ReadConfig(kind="warc", paths=("*.warc.gz",)), tmp_path)
    assert [row["url"] for row in documents] == [f"http://a.example/{n}" for n in (0, 2, 3)]
    assert [row["reason"] for row in dropped] == ["read.truncated"]
    assert f"@{len(members[0])}:" in dropped[0]["detail"]


def test_a_response_without_an_address_costs_itself_alone(tmp_path: Path) -> None:
    first, bad, last = (warc([(f"http://a.example/{n}", html(f"page {n}").encode(), "text/html")]) for n in range(3))
    nameless = gzip.compress(gzip.decompress(bad).replace(b"WARC-Target-URI: http://a.example/1\r\n", b""))
    (tmp_path / "a.warc.gz").write_bytes(first + nameless + last)
    documents, [gone] = run(ReadConfig(kind="warc", paths=("*.warc.gz",)), tmp_path)
    assert [row["url"] for row in documents] == ["http://a.example/0", "http://a.example/2"]
    assert gone["reason"] == "read.bad_record"


def test_pages_that_are_not_text_or_not_found_are_dropped_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "a.warc.gz").write_bytes(warc([("http://a.example/p", b"\x89PNG", "image/png")]))
    documents, dropped = run(ReadConfig(kind="warc", paths=("a.warc.gz",)), tmp_path)
    assert documents == []
    assert [row["reason"] for row in dropped] == ["read.not_text"]


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (KOREAN, "euc_kr"), (KOREAN + "똠방각하 펲시콜라", "cp949"), (JAPANESE, "cp932"), (JAPANESE, "euc_jp"),
        (JAPANESE, "iso2022_jp"), (GERMAN, "cp1252"), (KOREAN, "utf-8"), (JAPANESE, "utf-16"),
        ("¿Cuándo abrió la biblioteca? Mañana, señor, según el cartel.", "cp1252"),
        ("图书馆每个星期一关门,我们要带会员证去借书。这是一个不错的地方,你可以在那里看书。", "gb18030"),
    ],
)  # fmt: skip
def test_legacy_encodings_without_declaration_are_decoded_right(text: str, encoding: str) -> None:
    found = decode_page(html(text).encode(encoding))
    assert found is not None
    assert found.text == html(text)


def test_a_wrong_latin1_declaration_is_not_believed_for_korean() -> None:
    data = html(KOREAN).encode("euc_kr")
    found = decode_page(data, declared="iso-8859-1")
    assert found is not None
    assert found.text == html(KOREAN)
    assert meta_charset(b"<meta http-equiv='Content-Type' content='text/html; charset=EUC-KR'>") == "EUC-KR"


def test_noise_has_no_charset(tmp_path: Path) -> None:
    noise = bytes(range(128, 256)) * 20
    assert decode_page(noise) is None
    (tmp_path / "a.txt").write_bytes(noise)
    documents, dropped = run(ReadConfig(kind="text", paths=("a.txt",)), tmp_path)
    assert documents == []
    assert dropped[0]["reason"] == "read.unknown_charset"


@pytest.mark.parametrize("language", ["ko", "ja", "de", "es"])
def test_real_documents_survive_their_legacy_encoding(data_root: Path, language: str) -> None:
    encodings = {"ko": "cp949", "ja": "cp932", "de": "cp1252", "es": "cp1252"}
    right = total = 0
    raw = zstandard.ZstdDecompressor().stream_reader((data_root / "docs_parallel.jsonl.zst").open("rb"))
    for line in io.TextIOWrapper(raw, encoding="utf-8"):
        record = json.loads(line)
        if record["lang"] != language or total == 150:
            continue
        data = record["text"][:3000].encode(encodings[language], errors="ignore")
        if data.isascii():
            continue
        found = decode_page(data)
        total += 1
        right += found is not None and found.text == data.decode(encodings[language])
    assert total >= 60
    assert right / total >= 0.98


@pytest.mark.parametrize(
    ("language", "encoding"),
    [("ko", "cp949"), ("ko", "euc_kr"), ("ja", "cp932"), ("ja", "euc_jp"), ("de", "cp1252"), ("es", "cp1252")],
)
def test_real_pages_in_legacy_encodings_whatever_they_declare(data_root: Path, language: str, encoding: str) -> None:
    rows = pq.read_table(data_root / "html_gold.parquet", columns=["html", "lang"]).to_pylist()
    pages = [row["html"].decode("utf-8") for row in rows if row["lang"] == language][::6]
    for page in pages:
        bare = re.sub(r"(?i)<meta[^>]*charset[^>]*>|<\?xml[^>]*>", "", page)
        data = bare.encode(encoding, "ignore")
        wrong = b"<meta charset=utf-8>" + data
        for raw, declared in ((data, None), (data, "iso-8859-1"), (wrong, None)):
            found = decode_page(raw, declared=declared)
            assert found is not None
            assert found.text == raw.decode(encoding)


def test_bad_json_lines_are_quarantined_and_the_rest_goes_on(tmp_path: Path) -> None:
    lines = [b'{"id": "a", "text": "one", "note": 3}', b"{broken", b'{"id": "c"}', b"[1]", b'{"text": "five"}']
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(b"\n".join(lines)))
    documents, dropped = run(ReadConfig(kind="jsonl", paths=("*.jsonl.gz",)), tmp_path)
    assert [row["text"] for row in documents] == ["one", "five"]
    assert documents[0]["id"] == document_id("web", "a")
    assert documents[1]["id"] == document_id("web", "x.jsonl.gz@62")
    assert json.loads(documents[0]["extra"]) == {"note": 3}
    assert [row["reason"] for row in dropped] == ["read.bad_record"] * 3
    assert [row["detail"].split(": ")[0] for row in dropped] == [f"x.jsonl.gz@{n}" for n in (38, 46, 58)]


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_a_truncated_archive_keeps_its_records_and_says_so(tmp_path: Path, ending: str) -> None:
    lines = "".join(json.dumps({"text": f"line {n} {document_id('s', str(n))}"}) + "\n" for n in range(20000)).encode()
    packed = gzip.compress(lines) if ending == ".gz" else zstandard.compress(lines)
    (tmp_path / f"x.jsonl{ending}").write_bytes(packed[: len(packed) // 2])
    documents, dropped = run(ReadConfig(kind="jsonl", paths=("x.jsonl*",)), tmp_path)
    assert 1000 < len(documents) < 20000
    assert dropped
    assert {row["reason"] for row in dropped} <= {"read.truncated", "read.bad_record"}


def test_parquet_columns_are_mapped_by_name(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"body": ["a", None], "doc": ["1", "2"], "link": ["http://x", None], "rank": [1, 2]}),
        tmp_path / "t.parquet",
    )
    read = ReadConfig(kind="parquet", paths=("t.parquet",), text_key="body", id_key="doc", url_key="link")
    documents, dropped = run(read, tmp_path)
    assert [(row["text"], row["url"], row["extra"]) for row in documents] == [("a", "http://x", '{"rank":1}')]
    assert [row["reason"] for row in dropped] == ["read.bad_record"]


def test_a_record_over_the_limit_is_named_with_the_option(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text(json.dumps({"text": "a" * 900}) + "\n" + json.dumps({"text": "b"}) + "\n")
    documents, dropped = run(ReadConfig(kind="jsonl", paths=("x.jsonl",), maximum_document_bytes=100), tmp_path)
    assert [row["text"] for row in documents] == ["b"]
    assert dropped[0]["reason"] == "read.too_large"
    assert "maximum_document_bytes" in dropped[0]["detail"]


def test_no_matching_file_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file matches"):
        expand_paths(ReadConfig(kind="jsonl", paths=("*.jsonl",)), tmp_path)
    with pytest.raises(InputError, match="no `paths`"):
        expand_paths(ReadConfig(kind="jsonl"), tmp_path)


def test_the_standard_library_gives_english_and_code() -> None:
    read = ReadConfig(kind="python-stdlib", maximum_bytes=1_500_000)
    files = expand_paths(read, Path())
    assert sum(file.size_bytes for file in files) <= 1_500_000
    assert all(not name.startswith(("test/", "site-packages/")) for name in (file.name for file in files))
    documents = [
        row for batch in read_parts([Part(one) for one in files], read, ORIGIN) for row in batch.documents.to_pylist()
    ]
    domains = {row["domain"] for row in documents}
    assert domains == {"code", "documentation"}
    topics = [row for row in documents if row["title"] == "for"]
    assert len(topics) == 1
    assert '"for" statement' in topics[0]["text"]
    assert Path(sysconfig.get_path("stdlib"), "pydoc_data/topics.py").is_file()


def test_content_follows_bytes_and_names_not_places(tmp_path: Path) -> None:
    for folder in ("here", "there"):
        (tmp_path / folder / "sub").mkdir(parents=True)
        (tmp_path / folder / "sub" / "a.txt").write_text("hello")
    read = ReadConfig(kind="text", paths=("**/*.txt",))
    here, there = (expand_paths(read, tmp_path / folder) for folder in ("here", "there"))
    cache = tmp_path / "cache"
    assert source_content(here, cache) == source_content(there) == source_content(here, cache)
    (tmp_path / "there/sub/a.txt").write_text("hellO")
    assert source_content(here) != source_content(there)
    assert files_of(step_paths(here)) == here


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=40), st.integers(1, 2000))
def test_whole_files_are_grouped_and_large_ones_cut_whatever_their_order(sizes: list[int], limit: int) -> None:
    files = [SourceFile(f"{n:03d}", f"/x/{n}", size) for n, size in enumerate(sizes)]
    for kind in ("text", "jsonl"):
        shards = shard_parts(files, kind, limit)
        assert shard_parts(files[::-1], kind, limit) == shards
        parts = [part for shard in shards for part in shard]
        for file in files:
            own = [part for part in parts if part.file == file]
            assert [part.start for part in own] == [0, *(part.end for part in own[:-1])]
            assert own[-1].end is None
            assert all((part.end or file.size_bytes) - part.start <= limit for part in own) or kind == "text"
        assert all(len(shard) == 1 or sum(part.file.size_bytes for part in shard) <= limit for shard in shards)


def test_robots_declarations_are_collected_from_header_and_page() -> None:
    page = html("x", "<meta content='noimageai' name=robots><meta name='tdm-reservation' content='1'>")
    headers = {"x-robots-tag": "noai, otherbot: noindex"}
    assert declarations(page, headers) == "noai, noimageai, tdm-reservation=1"
    assert declarations(html("x"), {}) is None


def test_real_warc_and_wet_read_without_loss(data_root: Path) -> None:
    documents, dropped = run(ReadConfig(kind="warc", paths=("warc/*.warc.gz", "warc/*.wet.gz")), data_root)
    assert (len(documents), dropped) == (182, [])
    assert len({row["id"] for row in documents}) == 182


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_records_with_an_empty_id_are_told_apart_by_their_place(kind: str, tmp_path: Path) -> None:
    rows = [{"id": "", "text": "one"}, {"id": "own", "text": "two"}, {"id": "", "text": "three"}]
    path = tmp_path / "a"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        path.write_text("id,text\n" + "".join(f"{row['id']},{row['text']}\n" for row in rows), encoding="utf-8")
    documents, dropped = run(ReadConfig.model_validate({"kind": kind, "paths": ("a",)}), tmp_path)
    assert [row["text"] for row in documents] == ["one", "two", "three"]
    assert len({row["id"] for row in documents}) == 3
    assert documents[1]["id"] == document_id("web", "own")
    assert dropped == []


def test_a_copy_that_keeps_its_times_is_hashed_again(tmp_path: Path) -> None:
    """Other bytes of the same size and time, as `cp -p` and archives leave them."""
    path, cache, found = tmp_path / "a.bin", tmp_path / "cache", []
    for data in (b"one", b"two"):
        path.write_bytes(data)
        os.utime(path, ns=(10**18, 10**18))
        found.append(source_content([SourceFile("a.bin", str(path), 3)], cache))
    assert found[0] != found[1]
