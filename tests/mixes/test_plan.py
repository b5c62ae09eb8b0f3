"""Plans: quotas met to the token, promises kept, history never touched, repeats counted over the whole chain."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mixes.loader import MixLoader
from mixes.plan import WORK
from mixes.spec import PlanConfig
from mixes.trace import documents_at
from pipeline.core.errors import ConfigError, InputError, QuotaError
from pipeline.core.plans import Plan, SegmentRows, read_plan
from pipeline.core.rng import Permutation, derive_seed
from pipeline.core.steps import StepOutput, StepTask

few = settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))


def draws(plan: Plan) -> Counter[str]:
    """Times each document's beginning is served, over the whole plan."""
    served = documents_at(plan, 0, plan.rows)
    return Counter(served.filter(served["document_offset"] == 0)["id"].to_list())


def stored_pieces(plan: Plan, number: int) -> dict[str, np.ndarray]:
    rows = SegmentRows(plan, plan.segments[number])
    return rows.pieces(np.arange(rows.piece_count))


def assert_quotas_met(house: Any, plan: Plan) -> None:
    """Of the last segment: each pair is off by one of its pieces (or uncut documents) and its share of the padding."""
    segment = plan.segments[-1]
    quota = json.loads((plan.store / segment.folder / "quota.json").read_text())
    longest: Counter[str] = Counter()
    for row in documents_in(house):
        longest[row["source"]] = max(longest[row["source"]], min(row["length"], segment.context_tokens))
    for share in segment.shares:
        asked = quota[share.component][share.source]
        padding = asked * segment.padding_tokens / (segment.rows * segment.context_tokens)
        assert abs(share.tokens_planned - asked) <= longest[share.source] + padding, (share, asked)


def lost_tokens(house: Any, plan: Plan) -> int:
    """Tokens of the drawn documents that no row of the only segment serves."""
    true_length = {row["id"]: row["length"] for row in documents_in(house)}
    drawn = sum(true_length[key] * times for key, times in draws(plan).items())
    return drawn - plan.segments[0].tokens


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@few
@given(
    web=st.lists(st.integers(1, 300), min_size=30, max_size=60),
    long=st.lists(st.integers(1, 90), min_size=20, max_size=40),
    share=st.integers(1, 9),
    batch=st.integers(1, 4),
    window=st.integers(3, 100),
)
def test_what_every_plan_keeps(
    new_house: Callable[[], Any],
    documents_of: Any,
    web: list[int],
    long: list[int],
    share: int,
    batch: int,
    window: int,
) -> None:
    house = new_house()
    house.encode("web", documents_of("web-a", web[::2]), documents_of("web-b", web[1::2]))
    house.encode("books", documents_of("books", long))
    components = {
        "web": {"from": ("web-*",), "weight": share / 10, "max_repeats": 40.0},
        "long": {"from": ("books",), "weight": 1 - share / 10, "max_repeats": 100.0, "whole": True},
    }
    plan = house.append(components, budget_tokens=64 * 23, rows_per_batch=batch, window_pieces=window)
    segment = plan.segments[0]
    assert segment.rows == 23 - 23 % batch
    assert segment.tokens + segment.padding_tokens == segment.rows * 64
    rows = SegmentRows(plan, segment)
    lengths = rows.pieces(np.arange(rows.piece_count))["length"]
    row_tokens = np.add.reduceat(lengths, rows.first_piece(np.arange(plan.rows)))
    assert (row_tokens <= 64).all()
    served = documents_at(plan, 0, plan.rows)
    true_length = {row["id"]: row["length"] for row in documents_in(house)}
    whole = served.filter(served["component"] == "long")
    assert all(row["length"] == true_length[row["id"]] for row in whole.iter_rows(named=True))
    assert house.results[0].counts["whole_documents_cut"] == 0
    planned = {(s.component, s.source): s.tokens_planned for s in segment.shares}
    loader = MixLoader(plan)
    consumed: Counter[tuple[str, str]] = Counter()
    for position in range(0, plan.rows, batch):
        got = loader.batch(position, batch)
        for p in range(got.pieces.row_P.shape[0]):
            key = got.components[got.pieces.component_P[p]], got.sources[got.pieces.source_P[p]]
            consumed[key] += int(got.pieces.length_P[p])
        assert (got.source_ids_RT >= 0).sum() == got.pieces.length_P.sum()
    assert dict(consumed) == {key: tokens for key, tokens in planned.items() if tokens}
    assert_quotas_met(house, plan)
    assert house.results[0].facts["lost_tokens"] == lost_tokens(house, plan)
    counts = house.results[0]
    assert counts.counts["documents_in"] == counts.counts["documents_out"] + sum(counts.dropped.values())


def documents_in(house: Any) -> list[dict[str, Any]]:
    from pipeline.core.documents import read_table
    from pipeline.core.shards import DOCUMENT_TABLE_SCHEMA

    paths = sorted(house.store.glob("encode.*/tokens/*.docs.parquet"))
    return [row for path in paths for row in read_table(path, DOCUMENT_TABLE_SCHEMA).to_pylist()]


@few
@given(
    lengths=st.lists(st.integers(1, 100), min_size=40, max_size=60),
    cap=st.sampled_from([0.5, 1.0, 1.5, 2.0, 3.0]),
    seeds=st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9)),
)
def test_repeat_caps_hold_for_every_document_over_all_phases(
    new_house: Callable[[], Any], documents_of: Any, lengths: list[int], cap: float, seeds: tuple[int, ...]
) -> None:
    house = new_house()
    house.encode("web", documents_of("web", lengths, lang="ko"))
    every = {"from": ("web",), "weight": 0.5, "max_repeats": cap}
    long = {"from": ("web",), "weight": 0.5, "max_repeats": cap, "where": "length >= 40", "whole": True}
    budget = int(sum(lengths) * cap * 0.32) + 128
    before: dict[str, bytes] = {}
    for number, seed in enumerate(seeds):
        settings = {"context_tokens": 128, "seed": seed, "phase": f"p{number}", "shortage": "fill"}
        try:
            plan = house.append({"every": every, "long": long}, budget_tokens=budget, **settings)
        except QuotaError:  # small documents in big rows: the cap refuses rather than gives way
            break
        counted = draws(plan)
        assert max(counted.values()) <= -(-cap // 1)
        assert sum(counted.values()) <= cap * len(lengths)
        assert plan.segments[-1].shares[0].cursor_after == sum(counted.values())
        for name, content in before.items():
            assert (house.store / name).read_bytes() == content, name
        folder = plan.segments[-1].folder
        before |= {f"{folder}/{name}": content for name, content in files_of(house.store / folder).items()}


def test_draws_follow_the_source_epoch_by_epoch(house: Any, documents_of: Any) -> None:
    house.encode("web", documents_of("web", [64] * 10))
    plan = house.append({"web": {"from": ("web",), "weight": 1.0, "max_repeats": 3.0}}, budget_tokens=64 * 25)
    pieces = stored_pieces(plan, 0)
    expected = np.concatenate([Permutation(10, derive_seed(7, "web", epoch)).all() for epoch in range(3)])[:25]
    assert pieces["document"].tolist() == expected.tolist()
    plan = house.append({"web": {"from": ("web",), "weight": 1.0, "max_repeats": 3.0}}, budget_tokens=64 * 5)
    pieces = stored_pieces(plan, 1)
    assert pieces["document"].tolist() == Permutation(10, derive_seed(7, "web", 2)).all()[5:].tolist()
    assert set(draws(plan).values()) == {3}
    assert [segment.name for segment in plan.segments] == ["one", "one+1"]
    assert plan.segments[1].first_row == 25
    assert plan.segments[1].shares[0].cursor_after == 30
    assert [s.shares[0].tokens_unique for s in plan.segments] == [640, 0]


def test_rows_are_served_in_a_bijection(house: Any, documents_of: Any) -> None:
    house.encode("web", documents_of("web", [64] * 50))
    plan = house.append({"web": {"from": ("web",), "weight": 1.0}}, budget_tokens=64 * 50)
    loader = MixLoader(plan)
    served = [int(loader.batch(position, 1).pieces.document_P[0]) for position in range(50)]
    assert sorted(served) == list(range(50))
    assert served != list(range(50))


def test_long_documents_are_cut_where_allowed_and_left_out_where_promised(house: Any, documents_of: Any) -> None:
    house.encode("web", documents_of("web", [200, 30, 20, 14] * 10))
    allowed = {"from": ("web",), "weight": 1.0}
    plan = house.append({"web": allowed}, budget_tokens=64 * 30, rows_per_batch=2)
    served = documents_at(plan, 0, plan.rows)
    true_length = {row["id"]: row["length"] for row in documents_in(house)}
    cut = {row["id"] for row in served.iter_rows(named=True) if row["length"] < true_length[row["id"]]}
    assert cut
    assert all(true_length[document_id] == 200 for document_id in cut)
    assert house.results[0].counts["documents_cut"] == len(cut)
    lost = sum(true_length[document_id] for document_id in set(served["id"])) - int(served["length"].sum())
    assert house.results[0].facts["lost_tokens"] == lost
    assert house.results[0].counts["documents_cut"] == plan.segments[0].truncated_documents
    promised = allowed | {"whole": True, "max_repeats": 2.0}
    plan = house.append({"web": promised}, budget_tokens=64 * 4, phase="two")
    excluded = json.loads((house.store / plan.segments[1].folder / "excluded.json").read_text())
    assert excluded == {"web": {"web": {"longer_than_row": {"documents": 10, "tokens": 2000}}}}


def test_shares_match_weights(house: Any, documents_of: Any) -> None:
    rng = np.random.default_rng(1)
    house.encode("a", documents_of("a", rng.integers(2, 40, 3000).tolist()))
    house.encode("b", documents_of("b", rng.integers(2, 40, 3000).tolist()))
    weights = {"x": {"from": ("a",), "weight": 0.25}, "y": {"from": ("b",), "weight": 0.75}}
    plan = house.append(weights, budget_tokens=64 * 800, window_pieces=500)
    segment = plan.segments[0]
    share = {s.component: s.tokens_planned / segment.tokens for s in segment.shares}
    assert share["x"] == pytest.approx(0.25, abs=0.002)
    assert segment.tokens / (segment.rows * 64) > 0.99


@few
@given(
    sources=st.lists(
        st.tuples(st.lists(st.integers(1, 200), min_size=4, max_size=20), st.integers(1, 20), st.booleans()),
        min_size=2,
        max_size=7,
    ),
    rows=st.integers(1, 60),
    window=st.integers(1, 50),
)
def test_every_pair_ends_within_a_piece_of_its_quota(
    new_house: Callable[[], Any],
    documents_of: Any,
    sources: list[tuple[list[int], int, bool]],
    rows: int,
    window: int,
) -> None:
    house = new_house()
    components: dict[str, Any] = {}
    for number, (lengths, weight, whole) in enumerate(sources):
        name = f"s{number}"
        house.encode(name, documents_of(name, [*lengths, 30]))
        components[name] = {"from": (name,), "weight": weight / 10, "whole": whole, "max_repeats": 200.0}
    components["all"] = {"from": ("s*",), "weight": 1.0, "max_repeats": 300.0}
    plan = house.append(components, budget_tokens=64 * rows, window_pieces=window)
    assert plan.rows == rows
    assert_quotas_met(house, plan)


def test_a_long_document_does_not_swallow_a_small_mix(house: Any, documents_of: Any) -> None:
    house.encode("code", documents_of("code", [20_000]))
    for name in ("a", "b", "c", "d", "e"):
        house.encode(name, documents_of(name, [90, 50, 130, 20] * 20))
    text = {"from": ("a", "b", "c", "d", "e"), "weight": 0.4}
    code = {"from": ("code",), "weight": 0.6, "max_repeats": 2.0}
    plan = house.append({"text": text, "code": code}, budget_tokens=6_400)
    planned = {(s.component, s.source): s.tokens_planned for s in plan.segments[0].shares}
    assert planned["code", "code"] == pytest.approx(3_840, abs=128)
    assert all(planned["text", name] == pytest.approx(512, abs=96) for name in ("a", "b", "c", "d", "e"))
    assert house.results[0].facts["lost_tokens"] == lost_tokens(house, plan) >= 20_000 - 3_840 - 64
    code_share = next(share for share in plan.segments[0].shares if share.component == "code")
    assert (code_share.documents_planned, code_share.cursor_after) == (1, 1)
    plan = house.append({"text": text, "code": code}, budget_tokens=6_400)
    assert draws(plan)[documents_at(plan, 0, 100).filter(pl.col("source") == "code")["id"][0]] == 2
    with pytest.raises(QuotaError, match="component `code` needs 3,840 tokens"):  # in part counts as drawn
        house.append({"text": text, "code": code}, budget_tokens=6_400)


def test_conditions_read_the_document_table(house: Any, documents_of: Any) -> None:
    korean = documents_of("web", [20] * 30, lang="ko", quality=0.9)
    house.encode("web", korean, documents_of("web", [20] * 30, lang="en"))
    condition = {"from": ("w*",), "weight": 1.0, "where": "lang = 'ko' AND quality > 0.5"}
    plan = house.append({"web": condition}, budget_tokens=64 * 6)
    assert set(documents_at(plan, 0, plan.rows)["lang"]) == {"ko"}


def test_impossible_quota_is_refused_before_anything_is_written(house: Any, documents_of: Any) -> None:
    house.encode("web", documents_of("web", [50] * 10))
    with pytest.raises(QuotaError) as caught:
        house.append({"web": {"from": ("web",), "weight": 1.0}}, budget_tokens=64 * 20)
    assert "component `web` needs 1,280 tokens" in str(caught.value)
    assert "780 short" in str(caught.value)
    assert "max_repeats 2.6 for `web`" in str(caught.value)
    assert "budget_tokens 500" in str(caught.value)
    assert not list(house.store.glob("mix.*"))
    plan = house.append({"web": {"from": ("web",), "weight": 1.0, "max_repeats": 2.6}}, budget_tokens=64 * 20)
    assert plan.rows == 20


def test_a_later_phase_gets_only_what_earlier_ones_left(house: Any, documents_of: Any) -> None:
    house.encode("web", documents_of("web", [64] * 30))
    once = {"web": {"from": ("web",), "weight": 1.0}}
    house.append(once, budget_tokens=64 * 20)
    with pytest.raises(QuotaError) as caught:
        house.append(once, budget_tokens=64 * 11, phase="two")
    assert "its sources hold 640 within max_repeats 1 (web 640): 64 short" in caught.value.what
    assert "max_repeats 1.1 for `web`" in caught.value.fix
    plan = house.append(once, budget_tokens=64 * 10, phase="two")
    assert set(draws(plan).values()) == {1}
    assert len(draws(plan)) == 30


def test_unknown_source_names_the_known(house: Any, documents_of: Any) -> None:
    house.encode("web", documents_of("web-ko", [50] * 10))
    with pytest.raises(ConfigError, match="did you mean `web-ko`"):
        house.append({"web": {"from": ("web-kr",), "weight": 1.0}}, budget_tokens=64)


def test_two_tokenizers_do_not_mix(house: Any, documents_of: Any) -> None:
    house.encode("a", documents_of("a", [50] * 10))
    house.encode("b", documents_of("b", [50] * 10), tokenizer="u" * 64)
    with pytest.raises(InputError, match=r"2 different tokenizers: encode\.a, encode\.b"):
        house.append({"web": {"from": ("*",), "weight": 1.0}}, budget_tokens=64)


def test_the_step_and_the_function_write_the_same(house: Any, documents_of: Any) -> None:
    house.encode("web", documents_of("web", list(range(2, 80))))
    components = {"web": {"from": ("web",), "weight": 1.0}}
    house.append(components, budget_tokens=64 * 8)
    values = {"phase": "one", "context_tokens": 64, "rows_per_batch": 1, "seed": 7, "budget_tokens": 64 * 8}
    config = PlanConfig.model_validate({**values, "mix": {"components": components}})
    task = StepTask("mix.one", "f" * 64, config, house.encoded, house.store / "mix.step", house.store, {})
    assert WORK.shard_count(task) == 1
    result = WORK.make_shard(task, 0)
    ours, theirs = files_of(house.store / "mix.0"), files_of(house.store / "mix.step")
    for name in ("rows.arrow", "pieces.arrow", "excluded.json", "quota.json", "kinds.json", "stats.json"):
        assert ours[name] == theirs[name], name
    assert WORK.finish(task, [result])["fingerprint"] == house.plan.fingerprint
    chained = {**house.encoded, "previous": StepOutput("mix.one", house.store / "mix.step")}
    two = config.replaced(phase="two", mix={"components": {"web": {**components["web"], "max_repeats": 2.0}}})
    later = StepTask("mix.two", "e" * 64, two, chained, house.store / "mix.two", house.store, {})
    WORK.make_shard(later, 0)
    plan = read_plan(house.store, house.store / "mix.two")
    assert [segment.name for segment in plan.segments] == ["one", "two"]
    assert plan.holds(house.plan.fingerprint)
