"""Quality curves, buckets, cluster sizes, native floors and synthetic caps, alone and in whole plans."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixes.limits import Limits, hold
from mixes.quota import Supply
from mixes.spec import ComponentConfig, CurveConfig, MixConfig
from mixes.strata import bucket_of, curve
from mixes.trace import documents_at
from pipeline.core.errors import ConfigError, QuotaError


@settings(deadline=None)
@given(st.fractions(Fraction(1, 100), 3), st.integers(0, 8), st.integers(0, 30), st.integers(4, 12), st.integers(2, 40))
def test_a_curve_keeps_its_promises(mean: Fraction, discard: int, power: int, top: int, buckets: int) -> None:
    config = CurveConfig(discard=discard / 10, power=power / 10, top_repeats=float(top), buckets=buckets)
    try:
        found = curve(config, mean, "here")
    except QuotaError:
        kept = sum((Fraction(2 * b + 1, 2 * buckets)) > Fraction(discard, 10) for b in range(buckets))
        assert mean * buckets > top * kept
        return
    assert float(sum(found) / buckets) == pytest.approx(float(mean), abs=1e-5)
    assert found == sorted(found)
    assert found[-1] <= top + Fraction(1, 1000)
    for bucket in range(buckets):
        assert (found[bucket] > 0) <= (Fraction(2 * bucket + 1, 2 * buckets) > Fraction(discard, 10))


def test_a_known_curve() -> None:
    found = curve(CurveConfig(discard=0.5, power=1.0, top_repeats=7.0, buckets=4), Fraction(2), "here")
    assert found == [0, 0, 1, 7]


def test_a_curve_that_cannot_says_what_would() -> None:
    with pytest.raises(QuotaError, match="keeps 2 of 4 buckets, which must then be seen 8.00 times") as caught:
        curve(CurveConfig(discard=0.5, buckets=4), Fraction(4), "here")
    assert "at least 8.00" in caught.value.fix


def test_buckets_hold_equal_tokens_worst_first() -> None:
    quality = np.array([0.5, -1.0, 0.9, np.nan, 0.0, -2.0], np.float32)
    length = np.array([10, 10, 10, 99, 10, 10])
    assert bucket_of(quality, length, 5).tolist() == [3, 1, 4, -1, 2, 0]


def test_better_documents_are_seen_more_often(house: Any, documents_of: Any) -> None:
    web = [row | {"quality": number / 100} for number, row in enumerate(documents_of("web", [16] * 100))]
    house.encode("web", web)
    component = {"from": ("web",), "weight": 1.0, "max_repeats": 4.0, "quality": {"factors": (0.0, 1.0, 2.0, 4.0)}}
    plan = house.append({"web": component}, budget_tokens=16 * 175, context_tokens=16)
    ids = [row["id"] for row in _table(house)]
    seen = np.array([documents_at(plan, 0, plan.rows)["id"].to_list().count(i) for i in ids])
    assert [int(seen[start : start + 25].sum()) for start in (0, 25, 50, 75)] == [0, 25, 50, 100]
    assert house.results[0].dropped == {"mix.quality": 25}


def test_large_clusters_are_seen_more_often(house: Any, documents_of: Any) -> None:
    sizes = [1] * 40 + [5] * 40
    house.encode("web", [r | {"cluster_size": n} for r, n in zip(documents_of("web", [16] * 80), sizes, strict=True)])
    component = {"from": ("web",), "weight": 1.0, "max_repeats": 3.0, "cluster_repeats": {2: 3.0}}
    plan = house.append({"web": component}, budget_tokens=16 * 160, context_tokens=16)
    clusters = {row["id"]: row["cluster_size"] for row in _table(house)}
    drawn = [clusters[i] for i in documents_at(plan, 0, plan.rows)["id"]]
    assert (drawn.count(1), drawn.count(5)) == (40, 120)


def test_quality_without_any_is_refused(house: Any, documents_of: Any) -> None:
    house.encode("web", documents_of("web", [16] * 10))
    with pytest.raises(ConfigError, match="no document of `web` has any") as caught:
        house.append({"web": {"from": ("web",), "weight": 1.0, "quality": {"discard": 0.2}}}, budget_tokens=64)
    assert "encode.quality_signal" in caught.value.fix


def _table(house: Any) -> list[dict[str, Any]]:
    from pipeline.core.documents import read_table
    from pipeline.core.shards import DOCUMENT_TABLE_SCHEMA

    paths = sorted(house.store.glob("encode.*/tokens/*.docs.parquet"))
    return [row for path in paths for row in read_table(path, DOCUMENT_TABLE_SCHEMA).to_pylist()]


SUPPLIES = [
    Supply("a", "web", 800, 800),
    Supply("a", "web", 100, 100, limit="native ko"),
    Supply("a", "made", 100, 100, limit="synthetic"),
    Supply("b", "made", 900, 900, limit="synthetic"),
    Supply("b", "web", 100, 400),
]


def test_floors_and_caps_move_tokens_inside_components() -> None:
    targets = [400, 50, 50, 450, 50]
    held = hold(targets, SUPPLIES, Limits({"ko": 0.08}, 0.3), "here")
    assert sum(held[:3]) == 500
    assert sum(held[3:]) == 500
    assert held[1] == 80
    assert held[2] + held[3] == 300
    assert hold(targets, SUPPLIES, Limits({"ko": 0.05}, 0.5), "here") == targets


def test_limits_that_cannot_hold_say_what_could() -> None:
    with pytest.raises(QuotaError, match="asks for 200 tokens people wrote in `ko`, the components hold 100") as caught:
        hold([400, 50, 50, 450, 50], SUPPLIES, Limits({"ko": 0.2}, None), "here")
    assert "native_floors.ko to at most 0.1" in caught.value.fix
    with pytest.raises(QuotaError, match="the components need at least 100 synthetic ones") as caught:
        hold([400, 50, 50, 450, 50], SUPPLIES, Limits({}, 0.05), "here")
    assert "synthetic_cap to at least 0.1" in caught.value.fix


@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.sampled_from(["", "native ko", "native vi", "synthetic"]), st.integers(1, 90)),
        min_size=3, max_size=12,
    ),
    st.integers(0, 50), st.integers(0, 40), st.integers(0, 100),
)  # fmt: skip
def test_what_holds_holds(rows: list[tuple[str, str, int]], korean: int, vietnamese: int, synthetic: int) -> None:
    supplies = [Supply(name, f"s{n}", size, 2 * size, limit=limit) for n, (name, limit, size) in enumerate(rows)]
    targets = [size for *_, size in rows]
    floors = {language: share / 100 for language, share in (("ko", korean), ("vi", vietnamese)) if share}
    try:
        held = hold(targets, supplies, Limits(floors, synthetic / 100), "here")
    except QuotaError:
        return
    for name in "ab":
        own = [i for i, supply in enumerate(supplies) if supply.component == name]
        assert sum(held[i] for i in own) == sum(targets[i] for i in own)
    assert all(0 <= tokens <= supply.capacity_tokens for tokens, supply in zip(held, supplies, strict=True))
    total = sum(targets)
    got = {limit: sum(t for t, s in zip(held, supplies, strict=True) if s.limit == limit) for _, limit, _ in rows}
    assert got.get("native ko", 0) >= korean * total / 100
    assert got.get("native vi", 0) >= vietnamese * total / 100
    assert got.get("synthetic", 0) <= synthetic * total / 100


def test_a_plan_holds_its_floor_and_cap(house: Any, documents_of: Any) -> None:
    house.encode("web", documents_of("web", [16] * 300, lang="en"), documents_of("web", [16] * 60, lang="ko"))
    house.encode("made", documents_of("made", [16] * 300, lang="ko", maker="m"))
    components = {"all": {"from": ("*",), "weight": 1.0}}
    plan = house.append(components, budget_tokens=16 * 200, native_floors={"ko": 0.25}, synthetic_cap=0.2)
    served = documents_at(plan, 0, plan.rows)
    native = served.filter((served["lang"] == "ko") & served["maker"].is_null())["length"].sum()
    made = served.filter(served["maker"].is_not_null())["length"].sum()
    assert native >= 0.25 * 16 * 200 - 16
    assert made <= 0.2 * 16 * 200 + 16


def test_configuration_mistakes_are_told() -> None:
    with pytest.raises(ValueError, match="together at most 1"):
        MixConfig.model_validate({"components": {"a": {"from": ("x",), "weight": 1.0}}, "native_floors": {"ko": 1.2}})
    with pytest.raises(ValueError, match="sizes are at least 2"):
        ComponentConfig.model_validate({"from": ("x",), "weight": 1.0, "cluster_repeats": {1: 2.0}})
    with pytest.raises(ValueError, match="factors are at least 0"):
        ComponentConfig.model_validate({"from": ("x",), "weight": 1.0, "quality": {"factors": (0.0, 0.0)}})
