"""Packing against a naive best-fit-decreasing, and what must hold of any packing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixes.packing import exclude, group_by_row, include, least_at_or_above, levels, pack, pack_prefix
from mixes.rows import packed_rows
from mixes.stream import Stream


def naive_best_fit_decreasing(lengths: list[int], row_tokens: int) -> list[int]:
    """Free room of each row, by looking at every row for every piece."""
    rooms: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [room for room in rooms if room >= length]
        if fitting:
            rooms[rooms.index(min(fitting))] -= length
        else:
            rooms.append(row_tokens - length)
    return rooms


@settings(deadline=None)
@given(st.integers(1, 300).flatmap(lambda t: st.tuples(st.just(t), st.lists(st.integers(1, t), max_size=120))))
def test_rows_and_rooms_equal_the_naive_packing(case: tuple[int, list[int]]) -> None:
    row_tokens, lengths = case
    row_of, rows = pack(np.array(lengths, np.int64), row_tokens)
    assert row_of.shape[0] == len(lengths)
    used = np.bincount(row_of, weights=np.array(lengths), minlength=rows).astype(int) if lengths else np.empty(0, int)
    assert (used <= row_tokens).all()
    assert (used > 0).all()
    assert sorted(row_tokens - used) == sorted(naive_best_fit_decreasing(lengths, row_tokens))


@pytest.mark.parametrize("size", [1, 63, 64, 65, 4096, 262_144])
def test_bitset_finds_the_least_sufficient_room(size: int) -> None:
    rng = np.random.default_rng(size)
    starts = levels(size)
    words = np.zeros(starts[-1], np.uint64)
    members: set[int] = set()
    for step in range(400):
        member = int(rng.integers(0, size + 1))
        if step % 3 == 2 and members:
            member = sorted(members)[int(rng.integers(len(members)))]
            exclude(words, starts, member)
            members.discard(member)
        else:
            include(words, starts, member)
            members.add(member)
        wanted = int(rng.integers(0, size + 1))
        expected = min((m for m in members if m >= wanted), default=-1)
        assert least_at_or_above(words, starts, wanted) == expected


def test_equal_lengths_keep_their_order() -> None:
    row_of, rows = pack(np.array([5, 5, 5, 5, 3, 3]), 10)
    assert rows == 3
    assert row_of.tolist() == [0, 0, 1, 1, 2, 2]


def test_a_known_packing_does_not_change() -> None:
    lengths = np.arange(1, 400, dtype=np.int64) * 37 % 97 + 1
    row_of, rows = pack(lengths, 128)
    assert (rows, int((row_of * np.arange(row_of.shape[0])).sum())) == GOLDEN


GOLDEN = (153, 7_358_520)


@settings(deadline=None)
@given(st.lists(st.integers(1, 32), min_size=1, max_size=120), st.integers(1, 20))
def test_the_longest_prefix_that_fits_is_taken(lengths: list[int], rows: int) -> None:
    pieces = np.array(lengths, np.int64)
    row_of, used = pack_prefix(pieces, 32, rows)
    taken = row_of.shape[0]
    assert used <= rows
    assert (np.bincount(row_of, weights=pieces[:taken]) <= 32).all()
    assert taken == len(lengths) or pack(pieces[: taken + 1], 32)[1] > rows


def test_pieces_stand_row_by_row_in_stream_order() -> None:
    first_piece, order = group_by_row(np.array([2, 0, 2, 1, 0]), 3)
    assert first_piece.tolist() == [0, 2, 3, 5]
    assert order.tolist() == [1, 4, 3, 0, 2]


@pytest.mark.parametrize(("row_tokens", "least"), [(8_192, 0.999), (262_144, 0.998)])
def test_fill_of_web_like_lengths(row_tokens: int, least: float) -> None:
    """Lognormal web lengths (mean about 1,000 tokens) in windows of 100,000 pieces."""
    lengths = np.clip(np.random.default_rng(0).lognormal(6.2, 1.2, 300_000), 16, None).astype(np.int32)
    rows = int(lengths.sum()) // row_tokens
    stream = Stream(lengths, [np.arange(300_000)], [int(lengths.sum())], row_tokens)
    served = sum(int(pieces.length_P.sum()) for _, pieces in packed_rows(stream, 100_000, row_tokens, rows))
    assert served / (rows * row_tokens) > least


@settings(deadline=None)
@given(st.lists(st.integers(1, 100), min_size=60, max_size=200), st.integers(1, 20), st.integers(1, 80))
def test_exactly_the_rows_are_filled_from_a_prefix_of_the_stream(lengths: list[int], rows: int, window: int) -> None:
    tokens = sum(lengths)
    rows = min(rows, tokens // 32)
    whole = Stream(np.array(lengths), [np.arange(len(lengths))], [tokens], 32).window(10**4)
    stream = Stream(np.array(lengths), [np.arange(len(lengths))], [tokens], 32)
    parts = list(packed_rows(stream, window, 32, rows))
    counts = np.concatenate([count_R for count_R, _ in parts])
    served = np.concatenate([pieces.length_P for _, pieces in parts])
    assert counts.shape[0] == rows
    used = np.add.reduceat(served, np.cumsum(counts) - counts)
    assert ((used > 0) & (used <= 32)).all()
    places = sorted((int(r), int(o)) for _, pieces in parts for r, o in zip(pieces.row_P, pieces.offset_P, strict=True))
    assert places == list(zip(whole.row_P.tolist(), whole.offset_P.tolist(), strict=True))[: len(places)]
