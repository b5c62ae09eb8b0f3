"""What `seodang synth` shows: shares of each filter."""

from __future__ import annotations

from synth.acceptance import FILTERS, acceptance
from synth.config import WORKS


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
