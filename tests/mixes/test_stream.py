"""The stream of pieces: every prefix keeps the quotas' proportions within one piece of each pool."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixes.stream import ONE, Pieces, Stream, fraction

CONTEXT = 32

pool = st.lists(st.integers(1, 150), min_size=1, max_size=25)


def streamed(lengths: list[int], drawn: list[np.ndarray], targets: list[int], window: int = 7) -> Pieces:
    """The whole stream, a window at a time."""
    stream = Stream(np.array(lengths, np.int32), drawn, targets, CONTEXT)
    parts = []
    while (part := stream.window(window)).row_P.size:
        parts.append(part)
    names = ("row_P", "pool_P", "offset_P", "length_P")
    return Pieces(*(np.concatenate([getattr(part, name) for part in parts] or [np.empty(0, int)]) for name in names))


@settings(deadline=None)
@given(st.lists(st.tuples(pool, st.integers(0, 1000)), min_size=1, max_size=8))
def test_every_prefix_is_proportional_within_a_piece(pools: list[tuple[list[int], int]]) -> None:
    drawn, targets, first = [], [], 0
    for lengths, permille in pools:
        drawn.append(np.arange(first, first + len(lengths)))
        targets.append(sum(lengths) * permille // 1000)
        first += len(lengths)
    length_D = np.array([length for lengths, _ in pools for length in lengths])
    stream = streamed(length_D.tolist(), drawn, targets)
    budget = sum(targets)
    served = [0] * len(pools)
    for row, which, offset, length in zip(stream.row_P, stream.pool_P, stream.offset_P, stream.length_P, strict=True):
        before = int(length_D[drawn[which][0] : row].sum() + offset)
        assert served[which] == before, "a pool's pieces stay in the order they were drawn"
        assert length == min(length_D[row] - offset, CONTEXT)
        assert served[which] < targets[which], "nothing is taken once the quota is met"
        served[which] += int(length)
        missing = max(budget - sum(served), 0)
        for (lengths, _), target, tokens in zip(pools, targets, served, strict=True):
            longest = min(max(lengths), CONTEXT)
            share = Fraction(target * missing, budget)
            assert -longest - share <= tokens - target <= longest
    assert all(tokens >= target for tokens, target in zip(served, targets, strict=True))


def test_the_last_pieces_come_by_what_they_are_owed() -> None:
    """Quotas 26, 40 and 30 of pieces of 20: owed 6, 0 and 10 tokens of the last piece."""
    stream = streamed([20] * 9, [np.arange(0, 3), np.arange(3, 6), np.arange(6, 9)], [26, 40, 30])
    assert stream.row_P.tolist() == [3, 6, 0, 4, 7, 1]


@pytest.mark.parametrize("window", [1, 2, 3, 100])
def test_a_long_document_is_cut_at_rows_and_ends_with_the_quota(window: int) -> None:
    stream = streamed([5, 100, 7], [np.arange(3)], [70], window)
    assert stream.row_P.tolist() == [0, 1, 1, 1]
    assert stream.offset_P.tolist() == [0, 0, 32, 64]
    assert stream.length_P.tolist() == [5, 32, 32, 32]
    assert streamed([5, 100, 7], [np.arange(3)], [69], window).row_P.tolist() == [0, 1, 1]
    assert streamed([5, 100, 7], [np.arange(3)], [112], window).length_P.tolist() == [5, 32, 32, 32, 4, 7]
    assert streamed([5], [np.arange(1)], [0], window).row_P.shape == (0,)


@given(st.integers(1, (1 << 42) - 1), st.lists(st.integers(0, 1 << 42), min_size=1, max_size=20))
def test_fractions_are_exact_where_the_product_has_more_than_64_bits(whole: int, parts: list[int]) -> None:
    parts = [min(part, whole) for part in parts]
    assert [fraction(part, whole) for part in parts] == [part * ONE // whole for part in parts]
