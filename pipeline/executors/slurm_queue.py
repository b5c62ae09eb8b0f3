"""What Slurm's own commands say: our jobs in the queue, how ended ones ended, and cancelling.

Jobs are found by name, so that a login process killed between submitting and noting loses nothing. No accounting
database is needed: only `squeue`, `scancel` and the jobs' own log files. Source: squeue(1), scancel(1).
"""

from __future__ import annotations

import getpass
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.core.errors import InputError

FORMAT = "%i|%F|%j|%T|%r|%M"
LIVE = ("COMPLETING", "CONFIGURING", "PENDING", "REQUEUED", "REQUEUE_HOLD", "RESIZING", "RUNNING", "STAGE_OUT",
        "STOPPED", "SUSPENDED")  # fmt: skip
# Written by our own errors, by Python, by the shell or by slurmstepd when it ends a job.
TELLING = re.compile(r"(Error|Exception|error:|CANCELLED|TIME LIMIT|oom|Killed|No space left|srun: |: not found)")
SHOWN_CHARACTERS = 300


@dataclass(frozen=True)
class Queued:
    """One job, or one task of an array, as `squeue` lists it."""

    id: str  # 17, 17_3 or 17_[4-9]
    array: str  # 17
    name: str
    state: str
    reason: str
    elapsed: str

    @property
    def live(self) -> bool:
        return self.state in LIVE


def queued(names: Sequence[str]) -> list[Queued]:
    """Our jobs of these names, ended ones too while Slurm remembers them (MinJobAge, 5 minutes by default).

    Raises `InputError` when there is no Slurm here, `ConnectionError` when its controller does not answer.
    """
    if not names:
        return []
    who = f"--user={getpass.getuser()}"
    out = _asked(["squeue", "--noheader", "--states=all", who, f"--format={FORMAT}", f"--name={','.join(names)}"])
    return [Queued(*line.split("|")) for line in out.splitlines() if line.count("|") == FORMAT.count("|")]


def cancel(ids: Sequence[str]) -> None:
    """Cancel jobs by id; those that have ended meanwhile are no error."""
    if ids:
        _asked(["scancel", "--quiet", *ids])


def _asked(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except FileNotFoundError:
        raise no_slurm(command[0]) from None
    except subprocess.TimeoutExpired:
        raise ConnectionError(f"`{command[0]}` did not answer within 60 s") from None
    if done.returncode != 0:
        raise ConnectionError(f"`{' '.join(command)}`: {done.stderr.strip()}")
    return done.stdout


def no_slurm(command: str) -> InputError:
    fix = "run this on a login node of the cluster, or use --executor local"
    return InputError(f"there is no Slurm here: no command `{command}`", fix=fix)


def telling_line(log: Path) -> str:
    """The log line that says why: the last one that names an error, else the last one."""
    if not log.is_file():
        return ""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    lines = [line for line in lines if line and not line.startswith("+ ")]
    found = [line for line in lines if TELLING.search(line)] or lines
    return found[-1][:SHOWN_CHARACTERS] if found else ""
