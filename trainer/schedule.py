"""Learning rate of a step: warm-up, stable, decay (WSD); and rows of a step, where the batch grows in stages.

Contract: pure functions of (step or row, total steps or rows, config). The stable part does not depend on
`total_steps`, so that a decay can branch off any checkpoint of it.
Source: WSD of MiniCPM (arXiv 2404.06395), named by the K-EXAONE report; linear decay.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from trainer.config import LearningRate, RampStage


def warmup_steps_of(total_steps: int, config: LearningRate) -> int:
    """Steps of the warm-up; a fraction is rounded up."""
    if config.warmup_steps is not None:
        return config.warmup_steps
    return math.ceil((config.warmup_fraction or 0.0) * total_steps)


def learning_rate_at(step: int, total_steps: int, config: LearningRate) -> float:
    """The rate of update number `step` (from 0) of `total_steps`.

    The last warm-up step has the peak, the last step of a decay has the floor. Where a warm-up given in steps
    reaches into the decay, the smaller of the two rates holds. Raises ValueError for a step outside the phase.
    """
    if not 0 <= step < total_steps:
        raise ValueError(f"step {step} is outside the phase: use 0 <= step < {total_steps}")
    warmup_steps = warmup_steps_of(total_steps, config)
    warmup = min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0
    decay_steps = math.ceil(config.decay_fraction * total_steps)
    steps_into_decay = step + 1 - (total_steps - decay_steps)
    if steps_into_decay <= 0:
        return config.peak * warmup
    decay = 1 - (1 - config.floor_fraction) * steps_into_decay / decay_steps
    return config.peak * min(warmup, decay)


@dataclass(frozen=True)
class BatchSchedule:
    """Which rows make a step: stages of (first row, rows a step); rows count from the schedule's beginning."""

    total_rows: int
    stages: tuple[tuple[int, int], ...]

    @classmethod
    def of(
        cls, total_rows: int, context_tokens: int, rows_per_batch: int, ramp: Sequence[RampStage]
    ) -> "BatchSchedule":
        """A stage ends with the first whole step at or after its tokens."""
        stages: list[tuple[int, int]] = []
        row = 0
        for stage in ramp:
            missing = math.ceil(stage.until_tokens / context_tokens) - row
            if missing > 0 and row < total_rows:
                stages.append((row, stage.rows_per_batch))
                row += math.ceil(missing / stage.rows_per_batch) * stage.rows_per_batch
        if row < total_rows:
            stages.append((row, rows_per_batch))
        return cls(total_rows, tuple(stages))

    @property
    def steps(self) -> int:
        """All of them; the last may be short of rows."""
        return self.steps_before(self.total_rows)

    def steps_before(self, row: int) -> int:
        """Steps that begin before `row`."""
        ends = [*(first for first, _ in self.stages[1:]), self.total_rows]
        return sum(
            math.ceil(max(0, min(row, end) - first) / rows)
            for (first, rows), end in zip(self.stages, ends, strict=True)
        )

    def rows_at(self, row: int) -> int:
        """Rows of the step that begins with `row`."""
        rows = next(rows for first, rows in reversed(self.stages) if first <= row)
        return min(rows, self.total_rows - row)
