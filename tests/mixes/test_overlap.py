"""What mixes have in common: exactly by documents, and by datasketch's sketches of a sample."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from datasketch import HyperLogLogPlusPlus

from mixes.overlap import count_ngrams, sample_components, sampled_overlap, shared_documents
from mixes.trace import documents_at


def test_registers_are_those_that_datasketch_fills_one_by_one() -> None:
    hashes = np.random.default_rng(0).integers(0, 2**64, 20_000, np.uint64)
    hashes[:3] = [0, 1 << 63, 255]
    ours, theirs = HyperLogLogPlusPlus(8), HyperLogLogPlusPlus(8, hashfunc=int)
    count_ngrams(ours, hashes)
    for number in hashes.tolist():
        theirs.update(number)
    assert ours.reg.tolist() == theirs.reg.tolist()


def test_documents_of_an_earlier_phase_are_counted(house: Any, documents_of: Any) -> None:
    house.encode("web", documents_of("web", [32] * 40))
    house.encode("new", documents_of("new", [16] * 80))
    house.append({"web": {"from": ("web",), "weight": 1.0}}, budget_tokens=64 * 10)
    mix = {
        "rehearsal": {"from": ("web",), "weight": 0.5, "max_repeats": 2.0, "where": "length = 32"},
        "fresh": {"from": ("new",), "weight": 0.5},
    }
    plan = house.append(mix, budget_tokens=64 * 20)
    found = shared_documents((plan, plan.segments[0]), (plan, plan.segments[1]))
    rehearsal = found["rehearsal"]["all"]
    assert (rehearsal.of_documents, rehearsal.of_tokens) == (20, 640)
    assert rehearsal.documents == 0  # drawing went on with what the first phase left
    assert found["fresh"]["web"].tokens == 0
    again = house.append(mix, budget_tokens=64 * 10, phase="three")
    third = shared_documents((again, again.segments[0]), (again, again.segments[2]))["rehearsal"]["web"]
    first_ids = set(documents_at(again, 0, 10)["id"])
    third_ids = documents_at(again, 30, 10).filter(pl.col("component") == "rehearsal")["id"].to_list()
    common = [i for i in third_ids if i in first_ids]
    assert 0 < len(common) < 10
    assert (third.documents, third.tokens, third.of_tokens) == (len(common), 32 * len(common), 320)


def test_near_duplicates_and_ngrams_of_a_sample(house: Any) -> None:
    from pipeline.core.documents import document_id

    def texts(source: str, first_length: int) -> list[dict[str, Any]]:
        lengths = [first_length] + [200] * 29
        return [
            {"source": source, "length": length, "license": "CC0-1.0", "id": document_id(source, str(n))}
            for n, length in enumerate(lengths)
        ]

    house.encode("a", texts("a", 200))
    house.encode("b", texts("b", 150))  # the same tokens under other ids, but for the end of the first
    mix = {"a": {"from": ("a",), "weight": 0.5}, "b": {"from": ("b",), "weight": 0.5}}
    plan = house.append(mix, budget_tokens=200 * 40, context_tokens=200)
    sketches = sample_components(plan, plan.segments[0])
    found = sampled_overlap(sketches["a"], sketches["b"])
    assert found["sampled"] == [20, 20]
    a, b = ({i.split("/")[1] for i in sketches[name].ids} for name in "ab")
    common = len((a & b) - {"0"})  # of the first three quarters are alike: below the threshold
    assert found["near_duplicates"] == common
    assert found["distinct_ngrams"][0] == pytest.approx(20 * 193, rel=0.03)
    assert found["shared_ngram_share"] == pytest.approx(common / 20, abs=0.08)  # one more in part
