"""What `seodang synth` shows: shares of each filter, and what asking would cost."""

from __future__ import annotations

from pathlib import Path

import pytest

from synth.acceptance import FILTERS, acceptance
from synth.cache import Request
from synth.config import WORKS, EndpointConfig, ReplayConfig
from synth.estimate import ENOUGH, estimate
from synth.store import ResponseStore, Stored


def test_a_filters_share_is_of_what_came_to_it() -> None:
    shares = acceptance("crosslingual", 100, {"crosslingual.length": 20, "crosslingual.numbers": 40, "guard.x": 4})
    assert [(one.reason, one.reached, one.dropped, one.accepted_share) for one in shares] == [
        ("crosslingual.structure", 100, 0, 1.0),
        ("crosslingual.length", 100, 20, 0.8),
        ("crosslingual.placeholders", 80, 0, 1.0),
        ("crosslingual.numbers", 80, 40, 0.5),
        ("crosslingual.language", 40, 0, 1.0),
        ("guard.x", 40, 4, 0.9),
    ]


def test_every_kind_of_set_has_its_filters() -> None:
    assert set(FILTERS) == set(WORKS)


def request(number: int) -> Request:
    return Request("m", ({"role": "user", "content": f"{number:0400}"},), {"max_tokens": 1000}, "test@1")


def test_an_estimate_counts_what_is_not_stored_yet(tmp_path: Path) -> None:
    price = {"prompt_per_million_tokens": 10.0, "completion_per_million_tokens": 100.0}
    endpoint = EndpointConfig.model_validate({"url": "http://x/v1", "model": "m", "price": price})
    store = ResponseStore(tmp_path, "w")
    requests = [*(request(n) for n in range(100)), request(3)]
    before = estimate(requests, store, endpoint)
    assert (before.requests, before.stored, before.prompt_tokens) == (100, 0, 100 * 100)
    assert (before.completion_tokens_at_most, before.completion_tokens_expected) == (100_000, None)
    assert before.money_at_most == pytest.approx(0.1 + 10.0)
    for number in range(ENOUGH):
        store.put(request(number), Stored({"usage": {"completion_tokens": 50 + number % 2}}))
    after = estimate(requests, store, endpoint)
    assert (after.stored, after.completion_tokens_expected) == (20, round(80 * 50.5))
    assert after.money_expected == pytest.approx(80 * 100 * 10 / 1e6 + 4040 * 100 / 1e6)
    recorded = estimate(requests, None, ReplayConfig(responses="x"))
    assert (recorded.stored, recorded.money_at_most, recorded.currency) == (0, None, "")
