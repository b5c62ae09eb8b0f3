"""Repeated paragraphs and substrings: which copy stays, byte for byte what a suffix array finds, nothing else touched."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from dedup_run import Row, Run, row
from dedup_texts import pieced
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.documents import text_hash
from pipeline.core.record import read_record
from stages.dedup import batches, spans
from stages.dedup.anchors import MIXED, anchors, byte_values, cut_ranges, powers, window_hashes
from stages.dedup.paragraphs import paragraphs
from stages.dedup.substrings import text_anchors

NOTICE = "This page is part of the town archive; please ask the clerk before you copy any of it."


def brute_force(rows: list[Row], window: int) -> dict[str, str]:
    """Id -> text after cutting, by comparing every window with every other."""
    better_first = sorted(rows, key=lambda one: (-len(one["text"].encode()), one["id"]))
    seen: set[bytes] = set()
    cut: dict[str, str] = {}
    for one in better_first:
        data = one["text"].encode()
        gone = [False] * len(data)
        for start in range(len(data) - window + 1):
            piece = data[start : start + window]
            if piece in seen:
                gone[start : start + window] = [True] * window
            seen.add(piece)
        characters = (range(start, end) for start, end in pairwise(starts_of_characters(data)))
        kept = [bytes(data[k] for k in place) for place in characters if not all(gone[k] for k in place)]
        cut[one["id"]] = b"".join(kept).decode()
    return cut


def starts_of_characters(data: bytes) -> list[int]:
    return [k for k in range(len(data)) if data[k] & 0xC0 != 0x80] + [len(data)]


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10_000), shards=st.integers(1, 3), ranges=st.integers(1, 5), part=st.sampled_from((3, 10**6))
)
def test_substrings_are_cut_as_by_brute_force(
    tmp_path_factory: pytest.TempPathFactory, seed: int, shards: int, ranges: int, part: int
) -> None:
    rows = pieced(seed, 9)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spans, "RANGE_ITEMS", 200 // ranges)
        patch.setattr(spans, "PART_ITEMS", part)
        patch.setattr(batches, "BATCH_BYTES", 100 * part)
        parts = [rows[i::shards] for i in range(shards)]
        done = Run(tmp_path_factory.mktemp("s"), parts, "dedup.substring", minimum_bytes=32).make()
    expected = brute_force(rows, 32)
    originals = {one["id"]: one["text"] for one in rows}
    gone = {one["id"] for one in done.dropped}
    assert {one["id"]: one["text"] for one in done.kept} == {k: v for k, v in expected.items() if k not in gone}
    assert gone == {k for k, v in expected.items() if not v.strip() and v != originals[k]}
    assert all(one["text_hash"] == text_hash(one["text"]) for one in done.kept)
    counts = read_record(done.folder("dedup.substring")).counts
    assert counts["bytes_removed"] == sum(len(v.encode()) for v in originals.values()) - sum(
        len(v.encode()) for v in expected.values()
    )


@pytest.mark.parametrize("repeated", ["-", "ab", "the same line again\n", "한 줄을 또 한 번 쓴다. "])
def test_a_short_period_is_cut_to_its_first_window(tmp_path: Path, repeated: str) -> None:
    """Every window of such a text has its own anchor; those that repeat the one before are one item."""
    rows = [row("a", f"Once: {repeated * 2000}"), row("b", f"Twice {repeated * 1000} and no more.")]
    done = Run(tmp_path, [rows], "dedup.substring").make()
    assert {one["id"]: one["text"] for one in done.kept} == brute_force(rows, 200)
    assert read_record(done.folder("anchors.substring")).counts["anchors"] < 200


def test_cut_bytes_are_those_of_a_suffix_array(tmp_path: Path) -> None:
    pydivsufsort = pytest.importorskip("pydivsufsort")
    window = 48
    rows = pieced(7, 40, pieces=30, length=90)
    done = Run(tmp_path, [rows], "dedup.substring", minimum_bytes=window).make()
    rows.sort(key=lambda one: (-len(one["text"].encode()), one["id"]))  # the best first
    texts = [one["text"].encode() for one in rows]
    joined = np.frombuffer(b"\xff".join(texts) + b"\xff", np.uint8).copy()
    suffixes = pydivsufsort.divsufsort(joined)
    common = pydivsufsort.kasai(joined, suffixes)
    firsts = np.cumsum([0, *(len(text) + 1 for text in texts)])
    gone = np.zeros(joined.shape[0], bool)
    group: list[int] = []
    for place, length in zip(suffixes.tolist(), common.tolist(), strict=True):
        if place + window < firsts[np.searchsorted(firsts, place, side="right")]:  # a window inside of a document
            group.append(place)
        if length < window:
            for copy in sorted(group)[1:]:
                gone[copy : copy + window] = True
            group = []
    assert gone.sum() > 1000
    cut = {
        one["id"]: b"".join(
            text[a:b] for a, b in pairwise(starts_of_characters(text)) if not gone[first + a : first + b].all()
        ).decode()
        for one, text, first in zip(rows, texts, firsts, strict=False)
    }
    assert {one["id"]: one["text"] for one in done.kept} == {
        one["id"]: cut[one["id"]] for one in rows if cut[one["id"]].strip() or not one["text"]
    }


def test_equal_text_elsewhere_in_the_document_is_not_touched(tmp_path: Path) -> None:
    """What `str.replace` gets wrong: only the byte range that is repeated goes."""
    notice = NOTICE * 3
    rows = [row("long", f"{notice} {NOTICE} First, a history of the mill."), row("short", f"강 {notice}강 {NOTICE}")]
    done = Run(tmp_path, [rows], "dedup.substring").make()
    assert {one["id"]: one["text"] for one in done.kept} == {
        rows[0]["id"]: rows[0]["text"],
        rows[1]["id"]: f"강 강 {NOTICE}",
    }


def test_every_window_has_one_anchor() -> None:
    """Two in (window - gram + 2) places of random text, the windows one run after the other."""
    generator = np.random.default_rng(3)
    texts = [generator.integers(97, 123, size, np.uint8).tobytes().decode() for size in (100_000, 199, 0, 200)]
    found = text_anchors(pa.array(texts, pa.large_string()), 200)
    assert found.counts.tolist() == [pytest.approx(100_000 * 2 / 102, rel=0.05), 0, 0, 1]
    assert found.spans.tolist() == found.lengths.tolist()  # nothing is repeated
    assert np.add.reduceat(found.spans, [0, found.counts[0]]).tolist() == [100_000 - 199, 1]


def test_anchors_and_regions_do_not_depend_on_what_is_around() -> None:
    piece = "".join(random.Random(4).choices("abcdefg ", k=2000))
    found = text_anchors(pa.array([piece, f"before {piece}", f"{piece} after"], pa.large_string()), 200)
    firsts = np.cumsum([0, *found.counts])
    pairs = [set(zip(found.keys[a:b].tolist(), found.checks[a:b].tolist(), strict=True)) for a, b in pairwise(firsts)]
    assert all(len(pairs[0] - other) <= 1 for other in pairs[1:])  # the run that the edge is in


def test_more_anchors_than_room_are_counted() -> None:
    text = np.random.default_rng(5).integers(0, 256, 1000, np.uint8)
    columns = [np.empty(5, kind) for kind in (np.uint64, np.uint64, np.uint16, np.uint32)]
    counts = np.zeros(1, np.int64)
    found = anchors(text, np.array([0, 1000]), 16, 32, byte_values(), powers(), *columns, counts)
    assert found == counts[0] == pytest.approx(1000 * 2 / 18, rel=0.3)


def test_window_hashes_roll_like_hashes_from_scratch() -> None:
    text = np.frombuffer(random.Random(1).randbytes(300), np.uint8)
    rolled, apart = np.empty(200, np.uint64), np.empty(200, np.uint64)
    assert window_hashes(text, 100, np.array([0]), np.array([200]), byte_values(), powers(), rolled) == 200
    starts = np.arange(0, 200, 2)
    window_hashes(text, 100, starts, np.ones(100, np.uint16), byte_values(), powers(), apart)
    assert (rolled[::2] == apart[:100]).all()
    assert np.unique(rolled).shape[0] == 200


@settings(max_examples=100, deadline=None)
@given(st.text(min_size=1, max_size=60), st.lists(st.integers(0, 200), min_size=1, max_size=10, unique=True))
def test_only_whole_characters_are_cut(text: str, places: list[int]) -> None:
    data = np.frombuffer(text.encode("utf-8", "replace"), np.uint8)
    window = min(5, data.shape[0])
    windows = data.shape[0] - window + 1
    starts = np.array(sorted({place % windows for place in places}), np.int64)
    room = np.empty((starts.shape[0] + 2, 3), np.int64)
    offsets, firsts, run = np.array([0, data.shape[0]]), np.array([0, 1]), np.array([windows])
    kept = np.ones(data.shape[0], bool)
    count = cut_ranges(data, offsets, window, firsts, run, run, np.array([MIXED], np.uint8), starts, room)
    assert (room[:count, 0] == 0).all()
    for _, first, last in room[:count]:
        assert kept[first:last].all()
        kept[first:last] = False
    data[kept].tobytes().decode("utf-8")
    inside = np.zeros(data.shape[0], bool)
    for start in starts:
        inside[start : start + window] = True
    assert not (~kept & ~inside).any()


def test_a_paragraph_stays_in_its_best_document(tmp_path: Path) -> None:
    rows = [
        row("a", f"Bread\n\n{NOTICE}\n\nHow to bake."),
        row(
            "b",
            f"Snow\n\n{NOTICE.upper()}\n\nHow long it lies on the hills, and what old people say of it all winter long, year by year.",
        ),
        row("c", f"{NOTICE}\n{NOTICE}"),
        row("d", "Bread\n\nHow to bake."),
    ]
    done = Run(tmp_path, [rows[:2], rows[2:]], "dedup.paragraphs").make()
    texts = {one["id"]: one["text"] for one in done.kept}
    assert texts == {
        rows[0]["id"]: "Bread\n\nHow to bake.",
        rows[1]["id"]: rows[1]["text"],
        rows[3]["id"]: rows[3]["text"],  # short paragraphs may stand anywhere
    }
    assert [(one["id"], one["reason"]) for one in done.dropped] == [(rows[2]["id"], "dedup.paragraphs")]
    counts = read_record(done.folder("dedup.paragraphs")).counts
    assert counts["pieces_removed"] == 3
    assert counts["documents_in"] == 4


@pytest.mark.parametrize(
    "line",
    ["가나다 라마바 사아자 차카타 파하 거너더 러머버", "東京の川は山から流れて海へ注ぎます。昔の人は舟で渡った。"],
)
def test_paragraphs_of_other_scripts_are_found(line: str) -> None:
    keys, ranges = paragraphs(pa.array([f"{line}\nx", f"y\n{line}!"], pa.large_string()), 10)
    assert keys[0] == keys[1]
    assert ranges.tolist() == [[0, 0, len(line.encode()) + 1], [1, 2, 3 + len(line.encode())]]


def test_a_conversation_is_never_dropped_for_its_text(tmp_path: Path) -> None:
    said = [{"role": "user", "content": "a question"}]
    rows = [row("a", f"{NOTICE}\nMore of it."), row("b", NOTICE, messages=said)]
    done = Run(tmp_path, [rows], "dedup.paragraphs").make()
    assert {one["id"]: one["text"] for one in done.kept} == {rows[0]["id"]: rows[0]["text"], rows[1]["id"]: ""}


def test_nothing_repeated_changes_nothing(tmp_path: Path) -> None:
    rows = [row(str(k), random.Random(k).randbytes(300).hex()) for k in range(4)]
    for block in ("dedup.paragraphs", "dedup.substring"):
        done = Run(tmp_path, [rows, []], block).make()
        assert [one["text"] for one in done.kept] == [one["text"] for one in rows]
