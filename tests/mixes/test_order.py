"""Which row is served where: a bijection, the same batches however dealt, ranks that cost about the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixes.order import RowOrder, balanced
from pipeline.core.plans import SegmentRows


@settings(deadline=None)
@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=70))
def test_balancing_only_rearranges(costs: list[int]) -> None:
    assert sorted(balanced(np.array(costs, np.int64)).tolist()) == list(range(len(costs)))


def test_halves_of_a_known_batch() -> None:
    """9 goes left; 8, 4 and then 1 (9 <= 12 sends 3 left, 12 <= 12 would send 1 left but the half is full)."""
    order = balanced(np.array([1, 3, 4, 8, 9, 0]))
    costs = np.array([1, 3, 4, 8, 9, 0])[order]
    assert (costs[:3].sum(), costs[3:].sum()) == (13, 12)


@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_ranks_cost_about_the_same(ranks: int) -> None:
    """64 rows on up to 8 ranks are within 1 % of even, and nearer to it than dealt at random."""
    costs = np.random.default_rng(3).integers(1_000, 9_000, 64)
    per_rank = costs[balanced(costs)].reshape(ranks, -1).sum(axis=1)
    assert per_rank.max() / per_rank.mean() < 1.01
    dealt = costs.reshape(ranks, -1).sum(axis=1)
    assert dealt.max() > per_rank.max()


def test_every_row_is_served_once_and_found_again(house: Any, documents_of: Any) -> None:
    house.encode("web", documents_of("web", np.random.default_rng(1).integers(2, 100, 400).tolist()))
    plan = house.append({"web": {"from": ("web",), "weight": 1.0}}, budget_tokens=64 * 60, rows_per_batch=6)
    rows = SegmentRows(plan, plan.segments[0])
    order = RowOrder(rows)
    stored = order.stored(0, 60)
    assert sorted(stored.tolist()) == list(range(60))
    assert order.offsets(np.arange(60))[stored].tolist() == list(range(60))
    assert order.stored(17, 11).tolist() == stored[17:28].tolist()
    for batch in range(10):
        assert sorted(order.dealt(batch)) == sorted(order.batch(batch))
