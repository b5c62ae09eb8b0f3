"""One run over a segment of a plan, or over a stretch of it: what stays the same while its updates are made."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from pipeline.core.plans import Plan, Segment
from trainer.config import PhaseConfig, TrainExecution
from trainer.parallel.ranks import ALONE, Ranks
from trainer.schedule import BatchSchedule

CHECKPOINTS_PER_SEGMENT = 3  # when not told: enough to lose a third of a short run at most
MOST_STEPS_BETWEEN_CHECKPOINTS = 1000


@dataclass(frozen=True)
class Run:
    """What stays the same over a segment."""

    phase: PhaseConfig
    plan: Plan
    segment: Segment
    folder: Path
    execution: TrainExecution
    first_row: int
    rows: int  # of the segment, or of the stretch that a branch trains on
    ranks: Ranks = ALONE

    @property
    def is_branch(self) -> bool:
        return self.rows != self.segment.rows

    @property
    def batches(self) -> BatchSchedule:
        """Rows of each update. A phase begins with its ramp; segments added to it have the full batch."""
        phase = self.phase
        ramp = phase.batch_ramp if self.segment.name == phase.name and not self.is_branch else ()
        return BatchSchedule.of(self.rows, phase.context_tokens, phase.rows_per_batch, ramp)

    @property
    def steps(self) -> int:
        """Updates of the segment; the last may be short of rows."""
        return self.batches.steps

    @property
    def end(self) -> int:
        """Position after the last row."""
        return self.first_row + self.rows

    def steps_done(self, position: int) -> int:
        """Updates of the segment before `position`."""
        return self.batches.steps_before(position - self.first_row)

    @property
    def checkpoint_every(self) -> int:
        fitting = min(MOST_STEPS_BETWEEN_CHECKPOINTS, math.ceil(self.steps / CHECKPOINTS_PER_SEGMENT))
        return self.execution.checkpoint_every_steps or fitting
