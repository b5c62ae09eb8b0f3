"""The run log against the plan: equal to the token, or told where not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mixes.audit import audit
from mixes.loader import MixLoader


@pytest.fixture
def trained(house: Any, documents_of: Any) -> tuple[Any, list[dict[str, Any]]]:
    """A plan and the lines a trainer writes."""
    rng = np.random.default_rng(2)
    house.encode("a", documents_of("a", rng.integers(2, 90, 60).tolist()))
    house.encode("b", documents_of("b", rng.integers(2, 90, 60).tolist()))
    mix = {"a": {"from": ("a",), "weight": 0.6}, "b": {"from": ("b",), "weight": 0.4}}
    house.append(mix, budget_tokens=64 * 12, rows_per_batch=4)
    plan = house.append(mix, budget_tokens=64 * 8, rows_per_batch=4)
    lines = []
    for step, position in enumerate(range(0, 20, 4)):
        batch = MixLoader(plan).batch(position, 4)
        ids, counts = np.unique(batch.source_ids_RT[batch.source_ids_RT >= 0], return_counts=True)
        by_source = {batch.sources[i]: int(n) for i, n in zip(ids, counts, strict=True)}
        line = {"phase": "one", "step": step + 1, "position": position, "rows": 4, "tokens": sum(by_source.values())}
        lines.append({**line, "segment": batch.segment, "tokens_by_source": by_source})
    return plan, lines


def test_what_was_trained_is_what_was_planned(trained: Any) -> None:
    plan, lines = trained
    found = audit(plan, lines)
    assert found.clean
    assert (found.steps, found.rows, found.tokens) == (5, 20, sum(segment.tokens for segment in plan.segments))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"tokens": 1}, "one step 2: 1 tokens, planned"),
        ({"segment": "f" * 64}, "one step 2: trained on segment ffffffff, the plan has"),
        ({"position": 5}, "one step 2: begins at row 5, the step before it ended at 4"),
        ({"position": 400}, "one step 2: row 400 is outside the plan's 20 rows"),
        ({"rows": 9}, "one step 2: 9 rows from 4 cross the end of segment `one`"),
        ({"tokens_by_source": {"a": 3}}, "one step 2: tokens by source {'a': 3}, planned {'a':"),
    ],
)
def test_what_differs_is_told(trained: Any, change: dict[str, Any], problem: str) -> None:
    plan, lines = trained
    lines[1] = lines[1] | change
    assert any(told.startswith(problem) for told in audit(plan, lines).problems)


def test_a_step_that_was_skipped_is_told(trained: Any) -> None:
    plan, lines = trained
    assert audit(plan, [lines[0], lines[2]]).problems == ("one step 3: begins at row 8, the step before it ended at 4",)
