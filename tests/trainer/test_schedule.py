"""Warm-up, stable, decay."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.config import LearningRate
from trainer.schedule import learning_rate_at


def test_the_three_parts_by_hand() -> None:
    config = LearningRate(peak=1.0, warmup_steps=2, decay_fraction=0.4, floor_fraction=0.2)
    rates = [learning_rate_at(step, 10, config) for step in range(10)]
    assert rates == pytest.approx([0.5, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2])


def test_a_warmup_fraction_is_rounded_up() -> None:
    config = LearningRate(peak=1.0, warmup_fraction=0.21)
    assert [learning_rate_at(step, 10, config) for step in range(4)] == pytest.approx([1 / 3, 2 / 3, 1, 1])


def test_a_step_outside_the_phase_is_an_error() -> None:
    with pytest.raises(ValueError, match="< 10"):
        learning_rate_at(10, 10, LearningRate())


@given(
    total=st.integers(1, 200),
    warmup=st.integers(0, 50),
    decay=st.floats(0, 1),
    floor=st.floats(0, 1),
    longer=st.integers(0, 300),
)
def test_rates_rise_hold_and_fall(total: int, warmup: int, decay: float, floor: float, longer: int) -> None:
    config = LearningRate(peak=3e-4, warmup_steps=warmup, decay_fraction=decay, floor_fraction=floor)
    rates = [learning_rate_at(step, total, config) for step in range(total)]
    assert all(0 <= rate <= config.peak for rate in rates)
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    # Before the decay begins, a longer phase has the same rates: a decay can branch off anywhere.
    stable = LearningRate(peak=3e-4, warmup_steps=warmup)
    assert all(
        learning_rate_at(step, total, stable) == learning_rate_at(step, total + longer, stable) for step in range(total)
    )
