"""Large files are split inside: every record once, whatever the cut; ids do not depend on it; damage stays local."""

from __future__ import annotations

import gzip
import io
import json
import struct
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from pipeline.core.documents import document_id, text_hash
from stages.config import ReadConfig
from stages.frames import Frame, frames
from stages.line_ranges import lines
from stages.read import read_parts
from stages.rows import Origin
from stages.sources import expand_paths, shard_parts

ORIGIN = Origin("web", "CC-BY-4.0", "general", None)


def read_all(read: ReadConfig, base: Path) -> tuple[list[list[dict[str, Any]]], list[dict[str, Any]]]:
    """(documents of each shard, dropped rows)."""
    shards, dropped = [], []
    for parts in shard_parts(expand_paths(read, base), read.kind, read.shard_bytes):
        batches = list(read_parts(parts, read.replaced(paths=()), ORIGIN))
        shards.append([row for batch in batches for row in batch.documents.to_pylist()])
        dropped += [row for batch in batches for row in batch.dropped]
    return shards, dropped


def framed(parts: list[bytes]) -> bytes:
    return b"".join(zstandard.compress(part) for part in parts)


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.binary(max_size=12).map(lambda b: b.replace(b"\n", b".")), max_size=30),
    st.booleans(),
    st.integers(1, 80),
)
def test_ranges_of_a_plain_file_have_each_line_once(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes], ends: bool, step: int
) -> None:
    data = b"\n".join(parts) + (b"\n" if ends else b"")
    path = tmp_path_factory.mktemp("lines") / "x.jsonl"
    path.write_bytes(data)
    cuts = [*range(0, len(data), step)] or [0]
    found = [
        line
        for start, end in zip(cuts, [*cuts[1:], None], strict=True)
        for line in lines(str(path), start, end, limit_bytes=100)
    ]
    assert [line.data for line in found if line.data] == [line for line in data.split(b"\n") if line]
    for line in found:
        assert data[int(line.place) :].startswith(line.data or b"")


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.lists(st.sampled_from([b"a", b"bc\n", b"\n", b"def"]), max_size=6).map(b"".join), max_size=8),
    st.integers(1, 60),
)
def test_ranges_of_a_framed_file_have_each_line_once(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes], step: int
) -> None:
    packed = framed(parts)
    path = tmp_path_factory.mktemp("frames") / "x.jsonl.zst"
    path.write_bytes(packed)
    cuts = [*range(0, len(packed), step)] or [0]
    found = [
        line
        for start, end in zip(cuts, [*cuts[1:], None], strict=True)
        for line in lines(str(path), start, end, limit_bytes=100)
    ]
    assert [line.data for line in found if line.data] == [line for line in b"".join(parts).split(b"\n") if line]
    assert len({line.place for line in found if line.data}) == len([line for line in found if line.data])


def test_frames_are_found_without_decompressing() -> None:
    parts = [b"a" * 300_000, b"", bytes(range(256)) * 900]
    packed = [zstandard.ZstdCompressor(write_checksum=bool(n % 2)).compress(part) for n, part in enumerate(parts)]
    skippable = struct.pack("<II", 0x184D2A53, 5) + b"hello"
    data = packed[0] + skippable + packed[1] + packed[2]
    at = [0, len(packed[0]), len(packed[0]) + 13, len(packed[0]) + 13 + len(packed[1]), len(data)]
    assert list(frames(io.BytesIO(data))) == [
        Frame(start, stop, skippable=n == 1) for n, (start, stop) in enumerate(pairwise(at))
    ]
    cut = list(frames(io.BytesIO(data[:-7])))
    assert cut[-1] == Frame(at[3], None)


@pytest.mark.parametrize("ending", ["", ".zst"])
def test_one_big_jsonl_file_feeds_several_shards_with_the_same_ids(tmp_path: Path, ending: str) -> None:
    rows = [json.dumps({"text": f"line {n} {text_hash(str(n)) * 9}"}) + "\n" for n in range(400)]
    groups = ["".join(rows[at : at + 20]).encode() for at in range(0, 400, 20)]
    (tmp_path / f"x.jsonl{ending}").write_bytes(framed(groups) if ending else b"".join(groups))
    whole = ReadConfig(kind="jsonl", paths=("x.jsonl*",))
    (one,), dropped = read_all(whole, tmp_path)
    assert (len(one), dropped) == (400, [])
    many, dropped = read_all(whole.replaced(shard_bytes=5000), tmp_path)
    assert [row for shard in many for row in shard] == one
    assert dropped == []
    assert sum(bool(shard) for shard in many) >= 3


def test_parquet_is_split_by_row_groups(tmp_path: Path) -> None:
    texts = [text_hash(str(n)) * 20 for n in range(1000)]
    pq.write_table(pa.table({"text": texts, "note": list(range(1000))}), tmp_path / "t.parquet", row_group_size=100)
    whole = ReadConfig(kind="parquet", paths=("t.parquet",))
    (one,), _ = read_all(whole, tmp_path)
    assert [row["text"] for row in one] == texts
    assert one[417]["id"] == document_id("web", "t.parquet:418")
    assert one[417]["extra"] == '{"note":417}'
    many, dropped = read_all(whole.replaced(shard_bytes=10_000), tmp_path)
    assert [row for shard in many for row in shard] == one
    assert dropped == []
    assert sum(bool(shard) for shard in many) >= 3


def warc_record(number: int) -> bytes:
    out = io.BytesIO()
    writer = WARCWriter(out, gzip=False)
    body = f"<html><body><p>page {number} {text_hash(str(number)) * 20}</p></body></html>".encode()
    headers = StatusAndHeaders("200 OK", [("Content-Type", "text/html; charset=utf-8")], protocol="HTTP/1.1")
    writer.write_record(
        writer.create_warc_record(
            f"http://a.example/{number}",
            "response",
            payload=io.BytesIO(body),
            http_headers=headers,
            warc_headers_dict={"WARC-Record-ID": f"<urn:{number}>", "WARC-Date": "2025-03-01T00:00:00Z"},
        )
    )
    return out.getvalue()


@pytest.mark.parametrize("ending", ["gz", "zst", "zst with dictionary"])
def test_archives_are_split_by_members(tmp_path: Path, ending: str) -> None:
    records = [warc_record(n) for n in range(40)]
    if ending == "gz":
        data = b"".join(gzip.compress(record) for record in records)
    elif ending == "zst":
        data = framed(records)
    else:
        dictionary = zstandard.train_dictionary(4096, records * 5)
        engine = zstandard.ZstdCompressor(dict_data=dictionary)
        packed = zstandard.compress(dictionary.as_bytes())
        data = struct.pack("<II", 0x184D2A5D, len(packed)) + packed + b"".join(engine.compress(r) for r in records)
    (tmp_path / f"a.warc.{ending[:3].strip()}").write_bytes(data)
    whole = ReadConfig(kind="warc", paths=("a.warc*",))
    (one,), dropped = read_all(whole, tmp_path)
    assert ([row["url"] for row in one], dropped) == ([f"http://a.example/{n}" for n in range(40)], [])
    many, dropped = read_all(whole.replaced(shard_bytes=len(data) // 4), tmp_path)
    assert [row for shard in many for row in shard] == one
    assert dropped == []
    assert sum(bool(shard) for shard in many) >= 3


def test_a_cut_or_damaged_zstandard_archive_costs_one_record(tmp_path: Path) -> None:
    packed = [zstandard.compress(warc_record(n)) for n in range(5)]
    damaged = packed[0] + packed[1][:60] + b"\xff" * 40 + packed[2] + packed[3] + packed[4][:-20]
    (tmp_path / "a.warc.zst").write_bytes(damaged)
    (one,), dropped = read_all(ReadConfig(kind="warc", paths=("a.warc.zst",)), tmp_path)
    assert [row["url"] for row in one] == [f"http://a.example/{n}" for n in (0, 2, 3)]
    assert {row["reason"] for row in dropped} <= {"read.truncated", "read.bad_record"}
    assert len(dropped) == 2


def test_bytes_between_members_are_not_lost_in_silence(tmp_path: Path) -> None:
    members = [gzip.compress(warc_record(n)) for n in range(2)]
    (tmp_path / "a.warc.gz").write_bytes(members[0] + b"rubbish between" + members[1])
    (one,), dropped = read_all(ReadConfig(kind="warc", paths=("a.warc.gz",)), tmp_path)
    assert len(one) == 2
    assert [row["detail"] for row in dropped] == [f"a.warc.gz@{len(members[0])}: 15 bytes that hold no WARC record"]


def test_records_of_one_member_are_all_read_and_large_ones_passed_over(tmp_path: Path) -> None:
    records = [warc_record(n) for n in range(3)]
    big = warc_record(7).replace(b"page 7", b"page 7" + b"x" * 5000)
    big = big.replace(b"Content-Length: ", b"Content-Length: ").replace(
        b"Content-Length: " + str(len(warc_record(7).split(b"\r\n\r\n", 1)[1]) - 4).encode(),
        b"Content-Length: " + str(len(warc_record(7).split(b"\r\n\r\n", 1)[1]) - 4 + 5000).encode(),
    )
    (tmp_path / "a.warc.gz").write_bytes(gzip.compress(records[0] + big + records[1] + records[2]))
    read = ReadConfig(kind="warc", paths=("a.warc.gz",), maximum_document_bytes=2000)
    (one,), dropped = read_all(read, tmp_path)
    assert [row["url"] for row in one] == [f"http://a.example/{n}" for n in range(3)]
    assert [(row["reason"], row["url"]) for row in dropped] == [("read.too_large", "http://a.example/7")]
    assert "maximum_document_bytes" in dropped[0]["detail"]


def test_rows_of_parquet_that_are_no_text_are_quarantined_one_by_one(tmp_path: Path) -> None:
    texts = pa.array([b"good", b"\xff\xfe", None, b"x" * 400, b"also good"], pa.binary())
    broken = pa.Array.from_buffers(pa.string(), len(texts), texts.buffers())
    pq.write_table(pa.table({"text": broken, "id": list("abcde")}), tmp_path / "t.parquet")
    read = ReadConfig(kind="parquet", paths=("t.parquet",), maximum_document_bytes=300)
    (one,), dropped = read_all(read, tmp_path)
    assert [(row["id"], row["text"]) for row in one] == [
        (document_id("web", "a"), "good"),
        (document_id("web", "e"), "also good"),
    ]
    assert [row["text_hash"] for row in one] == [text_hash("good"), text_hash("also good")]
    assert [(row["reason"], row["detail"].split(": ")[0]) for row in dropped] == [
        ("read.bad_record", "t.parquet:2"), ("read.bad_record", "t.parquet:3"), ("read.too_large", "t.parquet:4"),
    ]  # fmt: skip


def test_columns_of_other_types_become_text(tmp_path: Path) -> None:
    table = {"text": pa.array(["a", "b"]).dictionary_encode(), "id": [7, None], "date": [2024, 2025], "url": ["", "u"]}
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    (one,), _ = read_all(ReadConfig(kind="parquet", paths=("t.parquet",)), tmp_path)
    assert [(row["text"], row["date"], row["url"]) for row in one] == [("a", "2024", None), ("b", "2025", "u")]
    assert [row["id"] for row in one] == [document_id("web", "7"), document_id("web", "t.parquet:2")]
    assert [row["license"] for row in one] == ["CC-BY-4.0"] * 2
