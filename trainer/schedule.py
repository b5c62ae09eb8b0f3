"""Learning rate of a step: warm-up, stable, decay (WSD).

Contract: pure function of (step, total steps, config). The stable part does not depend on `total_steps`, so a
decay can branch off any checkpoint of it.
Source: WSD of MiniCPM (arXiv 2404.06395), named by the K-EXAONE report; linear decay.
"""

import math

from trainer.config import LearningRate


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
