"""What Slurm's own commands say: our jobs in the queue, how ended ones ended, and cancelling.

Jobs are found by name, so that a login process killed between submitting and noting loses nothing. No accounting
database is needed: only `squeue`, `scancel` and the jobs' own log files. Source: squeue(1), scancel(1).
"""

from __future__ import annotations

import getpass
import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.core.errors import InputError

FORMAT = "%i|%F|%j|%T|%r|%M|%k"
ATTEMPT = "attempt "  # of the comment that we give a job, before the number of the submission
LIVE = ("COMPLETING", "CONFIGURING", "PENDING", "REQUEUED", "REQUEUE_HOLD", "RESIZING", "RUNNING", "STAGE_OUT",
        "STOPPED", "SUSPENDED")  # fmt: skip
CANCELLED, COMPLETED = "CANCELLED", "COMPLETED"
# Written by our own errors, by Python, by the shell or by slurmstepd when it ends a job.
TELLING = re.compile(r"(Error|Exception|error:|CANCELLED|TIME LIMIT|oom|Killed|No space left|: not found)")
SHOWN_CHARACTERS = 300
_RANK = re.compile(r"^\d+: ?")  # `srun --label` puts it before every line


@dataclass(frozen=True)
class Queued:
    """One job, or one task of an array, as `squeue` lists it."""

    id: str  # 17 or 17_3
    array: str  # 17
    name: str
    state: str
    reason: str
    elapsed: str
    comment: str = ""

    @property
    def live(self) -> bool:
        return self.state in LIVE

    def is_of(self, attempt: str) -> bool:
        """Whether it counts for this submission of its step: live, or not ended in an earlier one of ours."""
        return self.live or not self.comment.startswith(ATTEMPT) or self.comment == ATTEMPT + attempt


def queued(names: Sequence[str]) -> list[Queued]:
    """Our jobs of these names, ended ones too while Slurm remembers them (MinJobAge, 5 minutes by default).

    Raises `InputError` when there is no Slurm here, `ConnectionError` when its controller does not answer.
    """
    return _listed([f"--name={','.join(names)}"]) if names else []


def all_queued() -> list[Queued]:
    """Every job of ours, like `queued`."""
    return _listed([])


def _listed(options: Sequence[str]) -> list[Queued]:
    who = f"--user={getpass.getuser()}"
    out = asked(["squeue", "--array", "--noheader", "--states=all", who, f"--format={FORMAT}", *options])
    parts = FORMAT.count("|")
    return [Queued(*line.split("|", parts)) for line in out.splitlines() if line.count("|") >= parts]


def cancel(ids: Sequence[str]) -> None:
    """Cancel jobs by id; those that have ended meanwhile are no error."""
    if ids:
        asked(["scancel", "--quiet", *ids])


def asked(command: list[str]) -> str:
    """What a command of Slurm prints. Raises `InputError` without Slurm, `ConnectionError` without an answer."""
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


def telling_line(logs: Iterable[Path]) -> tuple[Path | None, str]:
    """(log, line) that says why: the last line that names an error, of the first log that has one; else its last.

    What `srun` says of a task's end comes after what the task and slurmstepd have said, and says less.
    """
    fallback: tuple[Path | None, str] = (None, "")
    for log in logs:
        lines = [_RANK.sub("", line).strip() for line in log.read_text("utf-8", "replace").splitlines()]
        lines = [line[:SHOWN_CHARACTERS] for line in lines if line and not line.startswith("+ ")]
        if found := [line for line in lines if TELLING.search(line)]:
            return log, _last_of(found)
        if lines and not fallback[1]:
            fallback = log, lines[-1]
    return fallback


def _last_of(found: Sequence[str]) -> str:
    own = [line for line in found if not line.startswith("srun:")]
    return (own or found)[-1]
