"""The gate after a context extension: green when the model retrieves everywhere and has forgotten nothing.

Contract: a pure measurement, the verdict is whatever came out; `gate-K.json` has no timings, so that equal weights
give equal bytes. Training again after a red light is the caller's business.
Source: the "green light" of the K-EXAONE report (arXiv 2601.01739); thresholds and grid are ours (`GateConfig`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.core.files import write_json
from trainer.config import GateConfig
from trainer.evals.niah import Encode, NiahGrid, build_haystacks, grid_depths, grid_lengths, score_haystacks
from trainer.evals.short_context import HeldOutRows, short_context_loss
from trainer.model.model import MoEModel

GATE_VERSION = 1


@dataclass(frozen=True)
class HeldOut:
    """What a gate measures on; no mix may train on it."""

    texts: tuple[str, ...]  # to hide needles in
    short_rows: HeldOutRows  # at the pre-training context length


@dataclass(frozen=True)
class GateVerdict:
    """What was measured, what was asked for, and the light."""

    phase: str
    round: int  # 0 after the phase's own segment, k after its k-th extension
    checkpoint: str  # name of the checkpoint folder
    plan: str  # fingerprint of the segment consumed last
    context_tokens: int
    green: bool
    reasons: tuple[str, ...]  # why it is red; empty when green
    niah: NiahGrid
    niah_mean: float  # share of needles found
    niah_worst_length: float  # the same at the length where it is smallest
    niah_needed: float  # at every length
    short_context_loss: float  # nats a token
    short_context_baseline: float  # before the extension
    short_context_allowed: float
    version: int = GATE_VERSION


def run_gate(
    model: MoEModel,
    encode: Encode,
    config: GateConfig,
    held_out: HeldOut,
    *,
    phase: str,
    round_number: int,
    checkpoint: str,
    plan: str,
    context_tokens: int,
    baseline: float,
    seed: int,
    folder: Path,
) -> GateVerdict:
    """Measure, judge, and write `folder/gate-{round_number}.json`.

    Args:
        baseline: Short-context loss on the same rows of the model the extension began with, nats a token.
        seed: Of the needles. The same for all rounds of a phase would let one be compared with the next.

    Raises `InputError` when the held-out texts or lengths do not make a grid.
    """
    lengths, depths = grid_lengths(context_tokens, config.lengths), grid_depths(config.depths)
    haystacks = build_haystacks(
        encode, held_out.texts, lengths=lengths, depths=depths, needles_per_cell=config.needles_per_cell, seed=seed
    )
    grid = score_haystacks(model, haystacks, lengths, depths)
    loss = short_context_loss(model, held_out.short_rows)
    allowed = baseline * (1 + config.short_context)
    reasons = judge(grid, config.niah, loss, allowed)
    verdict = GateVerdict(
        phase=phase,
        round=round_number,
        checkpoint=checkpoint,
        plan=plan,
        context_tokens=context_tokens,
        green=not reasons,
        reasons=reasons,
        niah=grid,
        niah_mean=grid.mean,
        niah_worst_length=min(grid.by_length),
        niah_needed=config.niah,
        short_context_loss=loss,
        short_context_baseline=baseline,
        short_context_allowed=allowed,
    )
    write_json(folder / f"gate-{round_number}.json", asdict(verdict))
    return verdict


def judge(grid: NiahGrid, needed: float, loss: float, allowed: float) -> tuple[str, ...]:
    """Why the light is red; empty when it is green."""
    reasons: list[str] = []
    short = _lengths_below(grid, needed)
    if short:
        found = ", ".join(f"{share:.1%} at {length:,} tokens" for length, share in short)
        reasons.append(f"needles found: {found}; {needed:.1%} needed at every length")
    if not loss <= allowed:  # also red for a loss that is not a number
        reasons.append(f"short-context loss {loss:.4f}; at most {allowed:.4f} allowed")
    return tuple(reasons)


def _lengths_below(grid: NiahGrid, needed: float) -> Sequence[tuple[int, float]]:
    return [(length, share) for length, share in zip(grid.lengths, grid.by_length, strict=True) if share < needed]
