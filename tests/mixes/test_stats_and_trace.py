"""Statistics add up to the plan; trace finds the same documents from both ends."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from mixes.loader import MixLoader
from mixes.stats import plan_statistics
from mixes.trace import documents_at, positions_of
from pipeline.core.errors import InputError


@pytest.fixture
def planned(house: Any, documents_of: Any) -> Any:
    rng = np.random.default_rng(3)
    house.encode("web", documents_of("web", rng.integers(2, 100, 60).tolist(), lang="ko", domain="news"))
    made = documents_of("think", rng.integers(2, 60, 60).tolist(), lang="en", maker="m-1", parents=["x", "y"])
    house.encode("think", made)
    mix = {
        "web": {"from": ("web",), "weight": 0.6, "max_repeats": 3.0},
        "think": {"from": ("think",), "weight": 0.4, "max_repeats": 3.0, "minimum_tokens": 10},
    }
    house.append(mix, budget_tokens=64 * 30, rows_per_batch=2)
    house.append(mix, budget_tokens=64 * 60, rows_per_batch=2)
    return house


def test_totals_agree_with_the_plan(planned: Any) -> None:
    for segment in planned.plan.segments:
        stats = plan_statistics(planned.plan, segment)
        assert stats == json.loads((planned.store / segment.folder / "stats.json").read_text())
        for group in ("component", "source", "lang", "domain", "license", "maker"):
            parts = stats[f"by_{group}"].values()
            assert sum(part["tokens"] for part in parts) == segment.tokens, group
            assert sum(part["unique_tokens"] for part in parts) == stats["unique_tokens"], group
            assert sum(part["share"] for part in parts) == pytest.approx(1.0)
        assert stats["unique_tokens"] == sum(share.tokens_unique for share in segment.shares)
        assert stats["synthetic_share"] == pytest.approx(0.4, abs=0.05)
        assert stats["by_maker"].keys() == {"none", "m-1"}
        synthetic = {group: {name: part["synthetic_tokens"] for name, part in stats[f"by_{group}"].items()}
                     for group in ("lang", "domain", "source", "maker")}  # fmt: skip
        made = stats["by_source"]["think"]["tokens"]
        assert synthetic["lang"] == {"ko": 0, "en": made}
        assert synthetic["source"] == {"web": 0, "think": made}
        assert synthetic["maker"] == {"none": 0, "m-1": made}
        assert sum(synthetic["domain"].values()) == made == round(stats["synthetic_share"] * segment.tokens)
        assert stats["by_lang"].keys() == {"ko", "en"}
        documents = sum(share.documents_planned for share in segment.shares)
        assert sum(stats["document_lengths"].values()) == documents
        assert sum(part["documents"] for part in stats["by_source"].values()) == documents
        assert sum(stats["documents_per_row"]["histogram"].values()) == segment.rows
        asked = sum(source["asked"] for part in stats["targets"].values() for source in part.values())
        assert asked == segment.rows * 64
        assert (
            -sum(source["difference"] for part in stats["targets"].values() for source in part.values())
            == segment.padding_tokens
        )
    first, second = (plan_statistics(planned.plan, segment) for segment in planned.plan.segments)
    assert set(first["draws_by_times_seen"]) == {"1"}
    assert set(second["draws_by_times_seen"]) >= {"2"}
    assert second["unique_tokens"] < second["tokens"]
    assert first["unique_tokens"] == first["tokens"]
    assert first["excluded"]["think"]["think"]["minimum_tokens"]["documents"] > 0


def test_trace_agrees_with_the_loader(planned: Any) -> None:
    loader = MixLoader(planned.plan)
    for position in (0, 28, 30, 68):
        batch = loader.batch(position, 2)
        found = documents_at(planned.plan, position, 2)
        assert (found["position"] - position).to_list() == batch.pieces.row_P.tolist()
        assert found["offset"].to_list() == batch.pieces.offset_P.tolist()
        assert found["length"].to_list() == batch.pieces.length_P.tolist()
        assert found["source"].to_list() == [batch.sources[s] for s in batch.pieces.source_P]
        assert found["component"].to_list() == [batch.components[c] for c in batch.pieces.component_P]
        assert found["shard"].to_list() == [batch.shards[s] for s in batch.pieces.shard_P]
        assert found["document"].to_list() == batch.pieces.document_P.tolist()
    thought = found.filter(found["source"] == "think")
    assert set(thought["maker"]) <= {"m-1"}


def test_from_a_document_back_to_every_position(planned: Any) -> None:
    plan = planned.plan
    served = documents_at(plan, 0, plan.rows)
    for document_id in served["id"].unique().sort()[:20]:
        expected = served.filter(served["id"] == document_id).sort("position", "document_offset")
        found = positions_of(plan, document_id)
        for column in ("position", "segment", "component", "document_offset", "length"):
            assert found[column].to_list() == expected[column].to_list()


def test_an_unknown_document_is_said_to_be_unknown(planned: Any) -> None:
    with pytest.raises(InputError, match="no shard of the plan holds document `nobody`"):
        positions_of(planned.plan, "nobody")
