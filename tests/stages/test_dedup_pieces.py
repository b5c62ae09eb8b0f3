"""Repeated paragraphs and substrings: which copy stays, byte for byte what a suffix array finds, nothing else touched."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dedup_run import Row, Run, row
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.documents import read_table, text_hash
from pipeline.core.record import read_record
from stages.dedup import spans
from stages.dedup.anchors import anchors, byte_values, covered, window_hashes
from stages.dedup.paragraphs import paragraphs
from stages.dedup.spans import open_items
from stages.dedup.substrings import shared_runs

NOTICE = "This page is part of the town archive; please ask the clerk before you copy any of it."
ALPHABETS = ("abcdefghij ", "가나다라마바사 ", "ab", "\U0001f40d\U0001f99cx")


def pieced(seed: int, documents: int, pieces: int = 12, length: int = 40) -> list[Row]:
    """Documents put together from few pieces of text, so that much is repeated at odd places."""
    dice = random.Random(seed)
    alphabet = dice.choice(ALPHABETS)
    stock = ["".join(dice.choice(alphabet) for _ in range(dice.randint(3, length))) for _ in range(pieces)]
    return [
        row(str(number), "".join(dice.choice(stock) for _ in range(dice.randint(0, 9)))) for number in range(documents)
    ]


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


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10_000), shards=st.integers(1, 3), ranges=st.integers(1, 5))
def test_substrings_are_cut_as_by_brute_force(
    tmp_path_factory: pytest.TempPathFactory, seed: int, shards: int, ranges: int
) -> None:
    rows = pieced(seed, 9)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spans, "RANGE_ITEMS", 200 // ranges)
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


def test_repeated_windows_are_those_of_a_suffix_array(tmp_path: Path) -> None:
    pydivsufsort = pytest.importorskip("pydivsufsort")
    window = 48
    rows = pieced(7, 40, pieces=30, length=90)
    done = Run(tmp_path, [rows], "dedup.substring", minimum_bytes=window).make()
    texts = [one["text"].encode() for one in rows]
    joined = np.frombuffer(b"\xff".join(texts) + b"\xff", np.uint8).copy()
    suffixes = pydivsufsort.divsufsort(joined)
    common = pydivsufsort.kasai(joined, suffixes)
    repeated: set[int] = set()
    for k in np.flatnonzero(common[:-1] >= window):
        repeated |= {int(suffixes[k]), int(suffixes[k + 1])}
    firsts = np.cumsum([0, *(len(text) + 1 for text in texts)])
    inside = {
        (int(document), int(place - firsts[document]))
        for place in repeated
        for document in [np.searchsorted(firsts, place, side="right") - 1]
        if place + window < firsts[document + 1]
    }
    node = done.graph.node("windows.substring")
    table = read_table(node_documents(done), pq.read_schema(node_documents(done)), ["text"])
    runs = [runs for _, runs in shared_runs(done.graph.task(node), 0, table["text"])]
    places = [(k, s) for k, run in enumerate(runs) for first, last in run for s in range(first, last + 1)]
    _, nodes = open_items(node.folder).of_range(0, 1 << 64)
    assert {places[item] for item in nodes} == inside
    assert len(inside) > 1000


def node_documents(done: Run) -> Path:
    return done.input / "documents" / "00000.parquet"


def test_equal_text_elsewhere_in_the_document_is_not_touched(tmp_path: Path) -> None:
    """What `str.replace` gets wrong: only the byte range that is repeated goes."""
    notice = NOTICE * 3
    rows = [row("long", f"{notice} {NOTICE} First, a history of the mill."), row("short", f"강 {notice}강 {NOTICE}")]
    done = Run(tmp_path, [rows], "dedup.substring").make()
    assert {one["id"]: one["text"] for one in done.kept} == {
        rows[0]["id"]: rows[0]["text"],
        rows[1]["id"]: f"강 강 {NOTICE}",
    }


def test_memory_of_anchors_does_not_grow_with_the_text() -> None:
    """About one anchor in a quarter of the window, whatever the text."""
    text = np.frombuffer(random.Random(3).randbytes(400_000), np.uint8)
    keys, runs = np.empty(text.shape[0], np.uint64), np.empty((text.shape[0], 2), np.int64)
    count = anchors(text, 100, 200, byte_values(), keys, runs)
    assert count == pytest.approx(text.shape[0] * 2 / 102, rel=0.05)
    starts = runs[:count]
    assert starts[0, 0] == 0
    assert starts[-1, 1] == text.shape[0] - 200
    assert (starts[1:, 0] == starts[:-1, 1] + 1).all()  # every window has one anchor


def test_more_anchors_than_room_are_counted() -> None:
    text = np.zeros(1000, np.uint8)
    keys, runs = np.empty(10, np.uint64), np.empty((10, 2), np.int64)
    assert anchors(text, 16, 32, byte_values(), keys, runs) == 1000 - 32 + 1


def test_window_hashes_roll_like_hashes_from_scratch() -> None:
    text = np.frombuffer(random.Random(1).randbytes(300), np.uint8)
    rolled, apart = np.empty(200, np.uint64), np.empty(200, np.uint64)
    assert window_hashes(text, 100, np.array([[0, 199]]), byte_values(), rolled) == 200
    window_hashes(text, 100, np.array([[k, k] for k in range(0, 200, 2)]), byte_values(), apart)
    assert (rolled[::2] == apart[:100]).all()
    assert np.unique(rolled).shape[0] == 200


@settings(max_examples=100, deadline=None)
@given(st.text(min_size=1, max_size=60), st.lists(st.integers(0, 200), min_size=1, max_size=10, unique=True))
def test_only_whole_characters_are_cut(text: str, places: list[int]) -> None:
    data = np.frombuffer(text.encode("utf-8", "replace"), np.uint8)
    window = min(5, data.shape[0])
    starts = np.array(sorted({place % (data.shape[0] - window + 1) for place in places}), np.int64)
    out = np.empty((starts.shape[0], 2), np.int64)
    kept = np.ones(data.shape[0], bool)
    for first, last in out[: covered(starts, window, data, out)]:
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
