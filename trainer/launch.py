"""What `seodang plan` shows and `seodang train` checks before a phase starts: does it fit, and how long will it last.

Contract: with `training.memory_gib` a phase that takes more is refused, naming the nearest settings that fit; measured
against the device's own memory it is a warning, since the estimate has a band (docs/trainer.md). Nothing is started or
allocated. Cost: that of `trainer.estimate`, and once a large product on a processor, to measure its rate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from pipeline.core.errors import UserError
from trainer.architecture import ModelConfig
from trainer.config import PhaseConfig, TrainExecution
from trainer.estimate import GIB, Estimate, estimate_phase, fitting
from trainer.throughput import available_memory, available_peak_flops


@dataclass(frozen=True)
class Launch:
    """One phase, as it would be started here."""

    estimate: Estimate
    needed: int  # bytes of a process
    limit: int  # bytes; 0 where nothing is known
    is_told: bool  # the limit is `training.memory_gib`
    advice: str  # settings that would fit; empty when it fits, or nothing is known
    remarks: tuple[str, ...]

    @property
    def fits(self) -> bool:
        return not self.limit or self.needed <= self.limit

    def facts(self) -> dict[str, Any]:
        """For `--json`: bytes, FLOPs, days."""
        estimate = self.estimate
        return {
            "name": estimate.phase,
            "processes": estimate.parallel.processes,
            "parallel": estimate.parallel.model_dump(),
            "rows_per_microbatch": estimate.rows_per_microbatch,
            "parameters_of_process": estimate.parameters_of_process,
            "memory_bytes": self.needed,
            "memory": estimate.memory.items(),
            "limit_bytes": self.limit,
            "fits": self.fits,
            "advice": self.advice,
            "remarks": list(self.remarks),
            "step_flops": estimate.step_flops,
            "made_again_flops": estimate.made_again_flops,
            "tokens_per_second": estimate.tokens_per_second,
            "days": estimate.days,
        }


def plan_launch(config: ModelConfig, vocabulary_size: int, phase: PhaseConfig, execution: TrainExecution) -> Launch:
    """Estimate `phase` on the grid and device of `execution`."""
    found = estimate_phase(config, vocabulary_size, phase, execution, available_peak_flops(execution, phase.precision))
    needed = found.memory.of(execution.device)
    told = execution.memory_gib
    limit = int(told * GIB) if told is not None else available_memory(execution.device)
    advice = ""
    if limit and needed > limit:
        advice = _advice(execution, fitting(config, vocabulary_size, phase, execution, limit), needed)
    return Launch(found, needed, limit, told is not None, advice, tuple(_remarks(config, phase, execution)))


def check_launch(launch: Launch) -> str:
    """A warning, or nothing. Raises `UserError` when the phase takes more than it was told it may."""
    if launch.fits:
        return ""
    name = launch.estimate.phase
    what = f"phase `{name}` takes about {_gib(launch.needed)} GiB a process"
    if launch.is_told:
        raise UserError(
            f"{what}, training.memory_gib is {_gib(launch.limit)}", where="training.memory_gib", fix=launch.advice
        )
    return f"{what}, the device has {_gib(launch.limit)}; {launch.advice}"


def _advice(now: TrainExecution, better: TrainExecution | None, needed: int) -> str:
    enough = f"training.memory_gib of {_enough(needed)}"
    if better is None:
        return f"{enough} would do; neither fewer rows at once nor more recomputation or processes make it fit"
    changes = [
        f"training.{name}={value}"
        for name, value in (
            ("rows_per_microbatch", better.rows_per_microbatch),
            ("recompute", better.recompute),
            ("parallel.data", better.parallel.data),
            ("parallel.expert", better.parallel.expert),
            ("parallel.context", better.parallel.context),
        )
        if value != _value(now, name)
    ]
    return f"it fits with --set {' --set '.join(changes)}; or {enough}"


def _value(execution: TrainExecution, name: str) -> Any:
    value: Any = execution
    for part in name.split("."):
        value = getattr(value, part)
    return value


def _remarks(config: ModelConfig, phase: PhaseConfig, execution: TrainExecution) -> list[str]:
    """What the grid and the phase have against each other."""
    grid = execution.parallel
    found: list[str] = []
    if grid.data > phase.rows_per_batch:
        idle = grid.data - phase.rows_per_batch
        found.append(f"{idle} of {grid.data} shares of data get no row of a batch of {phase.rows_per_batch}")
    elif phase.rows_per_batch % grid.data:
        found.append(f"{phase.rows_per_batch} rows do not go round {grid.data} shares: some compute padding")
    stretch = phase.context_tokens / grid.context
    if grid.context > 1 and stretch % config.window_tokens:
        found.append(
            f"a stretch of {stretch:g} tokens is no multiple of the window of {config.window_tokens}: lower "
            "training.parallel.context"
        )
    if config.num_experts % grid.expert:
        found.append(
            f"{config.num_experts} experts do not go round {grid.expert} shares: lower training.parallel.expert"
        )
    return found


def _enough(size: int) -> str:
    """GiB in a few digits, rounded up: what is advised is not to be refused."""
    gib = size / GIB
    digits = 10.0 ** (math.floor(math.log10(gib)) - 2)
    return f"{math.ceil(gib / digits) * digits:.10g}"


def _gib(size: int) -> str:
    return f"{size / GIB:.3g}" if size < 1000 * GIB else f"{size / GIB:.0f}"
