"""The loss-spike guard: which updates stand out so far from the steps before that they are not made.

Contract: a pure function of the steps before, which stand in the run log, so that a resumed run decides as the
uninterrupted one. Cost: a few hundred additions a step.
Source: OLMo-core's SkipStepOptimizer, which judges loss and gradient norm the same way.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Iterable
from typing import Any, NamedTuple

from trainer.config import SpikeGuard


class Seen(NamedTuple):
    """What a step is judged by."""

    loss: float
    gradient_norm: float


class Recent:
    """The last steps of a phase."""

    def __init__(self, guard: SpikeGuard | None, lines: Iterable[dict[str, Any]] = ()) -> None:
        self._guard = guard
        self._seen = deque[Seen](maxlen=guard.window_steps if guard else 0)
        for line in lines:
            self.add(Seen(line["loss"], line["gradient_norm"]))

    def add(self, seen: Seen) -> None:
        """One more step, skipped or not."""
        self._seen.append(seen)

    def spike(self, now: Seen) -> str:
        """Why an update with these values is not to be made; empty when it is."""
        if self._guard is None or len(self._seen) < self._guard.window_steps // 2:
            return ""
        for name, value, before in zip(("loss", "gradient norm"), now, zip(*self._seen, strict=True), strict=True):
            mean, deviation = statistics.fmean(before), statistics.stdev(before)
            if value > mean + self._guard.deviations * deviation:
                return (
                    f"{name} {value:.4g} is more than {self._guard.deviations:g} deviations of {deviation:.2g} above "
                    f"the mean {mean:.4g} of {len(before)} steps"
                )
        return ""
