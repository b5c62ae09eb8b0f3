"""The preview packs as the packer does, solves the same quotas, and comes close to the plan that follows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixes.catalog import open_catalogue
from mixes.histogram import pack_histogram
from mixes.packing import pack
from mixes.preview import Lengths, lengths_of, preview
from mixes.spec import PlanConfig
from pipeline.core.errors import QuotaError


@settings(deadline=None)
@given(st.integers(1, 300).flatmap(lambda t: st.tuples(st.just(t), st.lists(st.integers(1, t), max_size=200))))
def test_rows_and_rooms_are_those_of_the_packer(case: tuple[int, list[int]]) -> None:
    row_tokens, lengths = case
    pieces = np.array(lengths, np.int64)
    row_of, rows = pack(pieces, row_tokens)
    used = np.bincount(row_of, weights=pieces, minlength=rows).astype(np.int64)
    found, rooms = pack_histogram(np.bincount(pieces, minlength=row_tokens + 1), row_tokens)
    assert found == rows
    expected = np.bincount(row_tokens - used, minlength=row_tokens + 1) if rows else np.zeros(row_tokens + 1, int)
    assert rooms.tolist() == expected.tolist()


def config(**changes: Any) -> PlanConfig:
    mix = {
        "web": {"from": ("web",), "weight": 0.7},
        "long": {"from": ("books",), "weight": 0.3, "whole": True, "max_repeats": 2.0},
    }
    values = {"phase": "one", "context_tokens": 64, "budget_tokens": 64 * 100, "rows_per_batch": 4, "seed": 0}
    return PlanConfig.model_validate({**values, "mix": {"components": mix}, **changes})


def test_a_thousand_million_documents() -> None:
    lengths = [
        Lengths("web", "web", np.array([16, 100]), np.array([900_000_000, 100_000_000])),
        Lengths("long", "books", np.array([32, 64, 65]), np.array([10**6, 10**6, 10**6])),
    ]
    budget = 64 * 5_000_000
    found = preview(lengths, config(budget_tokens=budget, rows_per_batch=1000), {"books": 0.5})
    assert (found.rows, found.steps) == (5_000_000, 5_000)
    books = next(one for one in found.sources if one.source == "books")
    assert (books.tokens, books.available_tokens) == (96_000_000, 96_000_000)  # 65 is longer than a row
    assert (books.repeats, books.repeats_so_far) == (1.0, 1.5)
    assert books.unique_tokens == 48_000_000
    assert (found.whole_documents_cut, found.excluded_documents) == (0, 10**6)
    web = next(one for one in found.sources if one.source == "web")
    assert web.cut_documents == pytest.approx(10**8 * web.repeats, rel=1e-6)
    with pytest.raises(QuotaError, match="component `long` needs 96,000,000 tokens"):
        preview(lengths, config(budget_tokens=budget, rows_per_batch=1000), {"books": 1.5})


def test_the_plan_comes_out_as_previewed(house: Any, documents_of: Any) -> None:
    rng = np.random.default_rng(4)
    house.encode("web", documents_of("web", rng.integers(2, 120, 400).tolist()))
    house.encode("books", documents_of("books", rng.integers(20, 90, 100).tolist()))
    plan_config = config()
    found = preview(lengths_of(open_catalogue(house.store, house.encoded), plan_config), plan_config, {})
    plan = house.append(
        {
            "web": {"from": ("web",), "weight": 0.7},
            "long": plan_config.mix.components["long"].model_dump(by_alias=True),
        },
        budget_tokens=64 * 100,
        rows_per_batch=4,
    )
    segment = plan.segments[0]
    assert found.rows == segment.rows
    assert found.fill == pytest.approx(
        segment.tokens / (segment.rows * 64), abs=0.03
    )  # a thousand such plans together pack a little better
    assert found.cut_documents == pytest.approx(segment.truncated_documents, rel=0.25)
    assert found.documents == pytest.approx(sum(share.documents_planned for share in segment.shares), rel=0.1)
