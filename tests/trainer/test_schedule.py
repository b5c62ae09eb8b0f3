"""Warm-up, stable, decay."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.config import LearningRate, RampStage
from trainer.schedule import BatchSchedule, learning_rate_at


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


def test_the_batch_grows_by_tokens() -> None:
    ramp = (RampStage(until_tokens=100, rows_per_batch=2), RampStage(until_tokens=300, rows_per_batch=4))
    batches = BatchSchedule.of(50, 16, 8, ramp)
    # 100 tokens are 7 rows: four steps of 2; 300 are 19 rows: three more steps of 4, up to row 20; then steps of 8.
    assert batches.stages == ((0, 2), (8, 4), (20, 8))
    assert [batches.rows_at(row) for row in (0, 6, 8, 16, 20, 44)] == [2, 2, 4, 4, 8, 6]
    assert batches.steps == 4 + 3 + 4


@given(
    total=st.integers(1, 300),
    until=st.lists(st.integers(1, 5000), max_size=3, unique=True),
    rows=st.lists(st.integers(1, 20), min_size=4, max_size=4, unique=True),
)
def test_steps_cover_every_row_once(total: int, until: list[int], rows: list[int]) -> None:
    *early, full = sorted(rows)
    ramp = [
        RampStage(until_tokens=tokens, rows_per_batch=size) for tokens, size in zip(sorted(until), early, strict=False)
    ]
    batches = BatchSchedule.of(total, 16, full, ramp)
    row = step = 0
    while row < total:
        assert batches.steps_before(row) == step
        assert batches.rows_at(row) >= 1
        row += batches.rows_at(row)
        step += 1
    assert (row, step) == (total, batches.steps)
