"""The run log: what the trainer did, step by step, for report and trace (contract 5, version 1).

`train.jsonl`   one `StepLine` a training step
`gate-K.json`   the gate after round K of a phase: NIAH grid, short-context losses, verdict
`eval.json`     evaluations asked for with `seodang eval`
`STORE/routing/PHASE-KIND.json`  what `seodang routing` found about a phase's last checkpoint

A line is written and flushed after the step's update. After a kill the log may hold steps beyond the checkpoint that
the run resumes from: `RunLog.open` cuts it back to the resumed step, so that no step ever stands in it twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import orjson

from pipeline.core.errors import InputError

RUNLOG_VERSION = 1
TRAIN_LOG = "train.jsonl"
ROUTING = "routing"  # folder below the store
ROUTING_VERSION = 2  # of its files; those of another are not shown


@dataclass(frozen=True)
class StepLine:
    """One training step. Losses are nats a labelled token."""

    phase: str
    step: int  # 1 is the first update of the phase
    position: int  # plan rows consumed before this step
    rows: int
    tokens: int  # real tokens in the rows (no padding)
    labelled_tokens: int
    loss: float
    mtp_loss: float
    balance_loss: float
    learning_rate: float
    gradient_norm: float
    segment: str  # chain fingerprint
    z: float = 0.0  # mean squared log-sum-exp of the logits
    mtp_acceptance: float = 0.0  # share of the module's first choices that the model makes too, a token later
    router_entropy: float = 0.0  # of the routers' scores over that of equal scores, mean of layers
    gradient_norms: dict[str, float] = field(default_factory=dict)  # by parameter group, before clipping
    update_norms: dict[str, float] = field(default_factory=dict)  # by parameter group, weight decay not counted
    skipped: str = ""  # why the update was not made; empty where it was
    loss_by_source: dict[str, float] = field(default_factory=dict)
    loss_by_language: dict[str, float] = field(default_factory=dict)
    loss_by_domain: dict[str, float] = field(default_factory=dict)
    tokens_by_source: dict[str, int] = field(default_factory=dict)
    load_max_over_mean: float = 0.0  # busiest expert over the mean, worst layer
    dead_experts: int = 0
    seconds: float = 0.0
    tokens_per_second: float = 0.0
    flops_share: float = 0.0  # MFU: the model's multiplications over the device's peak; 0 where the peak is not known
    memory_bytes: int = 0  # largest so far, of any process: resident, or allocated on the accelerator


class RunLog:
    """Append-only writer of `train.jsonl`."""

    def __init__(self, path: Path, handle: IO[bytes]) -> None:
        self.path = path
        self._handle = handle

    @classmethod
    def open(cls, path: Path, *, keep_steps: int) -> RunLog:
        """Open for appending after step `keep_steps`; later and half-written lines are cut off."""
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = 0
        if path.is_file():
            with path.open("rb") as handle:
                for raw in handle:
                    if not raw.endswith(b"\n") or orjson.loads(raw)["step"] > keep_steps:
                        break
                    kept += len(raw)
        handle = path.open("ab", buffering=0)
        handle.truncate(kept)
        return cls(path, handle)

    def write(self, line: StepLine) -> None:
        """Raises `InputError` when the line cannot be written; half of one is cut off at the next opening."""
        data = orjson.dumps(line, option=orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE)
        try:
            while data:  # unbuffered, so that nothing is left to write at closing: a write may be short
                data = data[self._handle.write(data) :]
        except OSError as error:
            raise InputError(
                f"step {line.step} could not be written to the run log: {error}",
                where=str(self.path),
                fix="make room or mend the disk, then train again: it goes on from the last checkpoint",
            ) from error

    def close(self) -> None:
        self._handle.close()


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The complete lines of a run log, as mappings."""
    if not path.is_file():
        return
    with path.open("rb") as handle:
        for raw in handle:
            if raw.endswith(b"\n"):
                yield orjson.loads(raw)
