"""Quota: exact totals, honoured caps, proportions, and errors whose suggestions really work."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixes.quota import Ask, Supply, solve, water_fill
from pipeline.core.errors import QuotaError

amounts = st.lists(st.tuples(st.integers(1, 10_000), st.integers(0, 5_000)), min_size=1, max_size=8)


@given(amounts, st.integers(0, 20_000))
def test_water_filling_is_exact_capped_and_proportional(rows: list[tuple[int, int]], total: int) -> None:
    weights, caps = [Fraction(w) for w, _ in rows], [c for _, c in rows]
    total = min(total, sum(caps))
    shares = water_fill(total, weights, caps)
    assert sum(shares) == total
    assert all(0 <= share <= cap for share, cap in zip(shares, caps, strict=True))
    free = [i for i, share in enumerate(shares) if share < caps[i]]
    for i in free:
        for j in range(len(rows)):  # nobody below its cap gets less for its weight than anybody else, but for rounding
            assert (shares[i] + 1) / weights[i] >= (shares[j] - 1) / weights[j]


def test_known_shares() -> None:
    thirds = [Fraction(1)] * 3
    assert water_fill(100, thirds, [100] * 3) == [34, 33, 33]  # largest remainder, ties to the first
    assert water_fill(100, thirds, [10, 100, 100]) == [10, 45, 45]  # the capped one's rest is shared
    assert water_fill(100, [Fraction(1), Fraction(3)], [5, 1000]) == [5, 95]
    assert water_fill(0, thirds, [0, 0, 0]) == [0, 0, 0]


def linear_supplies(sizes: dict[str, int], repeats: dict[str, float]) -> list[Supply]:
    return [Supply(name, f"{name}-src", size, int(size * repeats[name])) for name, size in sizes.items()]


def ask(
    budget: int, weights: dict[str, float], repeats: dict[str, float], shortage: Literal["refuse", "fill"] = "refuse"
) -> Ask:
    return Ask(budget, weights, repeats, shortage, "mix of phase `one`")


@given(
    st.dictionaries(
        st.sampled_from("abcd"), st.tuples(st.integers(1, 999), st.integers(10, 2000)), min_size=1, max_size=4
    ),
    st.integers(1, 5000),
)
def test_suggestions_work(rows: dict[str, tuple[int, int]], budget: int) -> None:
    weights = {name: weight / 1000 for name, (weight, _) in rows.items()}
    sizes = {name: size for name, (_, size) in rows.items()}
    repeats = dict.fromkeys(rows, 1.0)

    def capacity_at(component: str, cap: float) -> int:
        return int(sizes[component] * cap)

    try:
        targets = solve(ask(budget, weights, repeats), linear_supplies(sizes, repeats), capacity_at)
    except QuotaError as error:
        offered = re.findall(r"max_repeats ([\d.]+) for `(\w)`", error.fix)
        raised = repeats | {name: float(cap) for cap, name in offered}
        again = solve(ask(budget, weights, raised), linear_supplies(sizes, raised), capacity_at)
        assert sum(again) == budget
        smaller = re.search(r"budget_tokens (\d+)", error.fix)
        if smaller:
            fits = int(smaller[1])
            less = solve(ask(fits, weights, repeats), linear_supplies(sizes, repeats), capacity_at)
            assert sum(less) == fits
        if "shortage: fill" in error.fix:
            filled = solve(ask(budget, weights, repeats, "fill"), linear_supplies(sizes, repeats), capacity_at)
            assert sum(filled) == budget
            lighter = {n: float(w) for n, w in re.findall(r"(\w) ([\d.]+)(?=[,]|$)", error.fix.split("weights ")[1])}
            if lighter.keys() == weights.keys():
                solve(ask(budget, lighter, repeats), linear_supplies(sizes, repeats), capacity_at)
    else:
        assert sum(targets) == budget
        assert all(
            target <= sizes[supply.component]
            for target, supply in zip(targets, linear_supplies(sizes, repeats), strict=True)
        )


def test_shortage_says_who_how_much_and_what_would_do() -> None:
    supplies = [
        Supply("long", "books", 20_000, 20_000),
        Supply("web", "web-en", 300_000, 300_000),
        Supply("web", "web-ko", 100_000, 100_000),
    ]
    asked = ask(300_000, {"web": 0.7, "long": 0.3}, {"web": 1.0, "long": 1.0})
    with pytest.raises(QuotaError) as caught:
        solve(asked, supplies, lambda component, cap: int(20_000 * cap))
    assert caught.value.what == (
        "component `long` needs 90,000 tokens (weight 0.3 of 300,000), its sources hold 20,000 within max_repeats 1 "
        "(books 20,000): 70,000 short"
    )
    assert caught.value.fix == (
        "what would do: max_repeats 4.5 for `long`, or weights long 0.0666, web 0.9334, or `shortage: fill`, "
        "or budget_tokens 66666"
    )
    assert caught.value.where == "mix of phase `one`"


def test_fill_takes_the_rest_from_the_others_by_size() -> None:
    supplies = [
        Supply("long", "books", 20_000, 20_000),
        Supply("web", "web-en", 300_000, 300_000),
        Supply("web", "web-ko", 100_000, 100_000),
    ]
    asked = ask(300_000, {"web": 0.7, "long": 0.3}, {"web": 1.0, "long": 1.0}, "fill")
    found = solve(asked, supplies, lambda component, cap: 0)
    assert found == [20_000, 210_000, 70_000]


def test_an_empty_component_asks_for_documents() -> None:
    with pytest.raises(QuotaError, match="sources or conditions that leave documents in it") as caught:
        solve(ask(100, {"a": 1.0}, {"a": 1.0}), [Supply("a", "s", 0, 0)], lambda component, cap: 0)
    assert "max_repeats" not in caught.value.fix
