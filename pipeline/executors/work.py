"""A step as something any machine can make: its job, making one shard of it, finishing it, and what went wrong.

Contract: `make_and_record` leaves a shard's files, then its result; or a failure note below STORE/logs/STEP and the
error. `commit` runs once every shard is there and writes the record last. Both may be repeated after any kill.
"""

from __future__ import annotations

import importlib
import os
import platform
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from pipeline.core.errors import InputError, UserError
from pipeline.core.files import clear_partials, read_json, write_json
from pipeline.core.record import (
    IDENTITY,
    LOGS,
    RECORD_VERSION,
    Record,
    output_hashes,
    read_shard_result,
    shard_done,
    summed,
    write_record,
    write_shard_result,
)
from pipeline.core.steps import StepTask, Work

FAILURES = "failures"
FINISH = "finish"


@dataclass(frozen=True)
class Job:
    """A step to be made, here or elsewhere. Picklable.

    Attributes:
        work: Import path of its work object, `module:attribute`.
        task: What the work gets.
        identity: What `step.json` holds.
    """

    work: str
    task: StepTask
    identity: Mapping[str, Any]

    @property
    def logs(self) -> Path:
        return self.task.store / LOGS / self.task.folder.name

    def shard_count(self) -> int:
        return load_work(self.work).shard_count(self.task)

    def missing(self) -> list[int]:
        """Shards that are not made yet; needs finished inputs."""
        return [shard for shard in range(self.shard_count()) if not shard_done(self.task.folder, shard)]


class Executor(Protocol):
    """Where steps are made. Any executor, with any number of tasks, leaves the same bytes."""

    outlives_us: ClassVar[bool]  # whether what was queued goes on when this process ends

    def queue(self, chain: Sequence[Job]) -> None:
        """Told of all unfinished steps, in running order, before the first `complete`."""
        ...

    def complete(self, job: Job, shards: Sequence[int], done: Callable[[int], None]) -> Record:
        """Return when the step is recorded, or raise its first error; `done(count)` says how many of `shards` are."""
        ...


def load_work(path: str) -> Work:
    """The work object at `module:attribute`."""
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)


def begin(job: Job) -> None:
    """Make the step's folder and say in it what is being made."""
    job.task.folder.mkdir(parents=True, exist_ok=True)
    write_json(job.task.folder / IDENTITY, job.identity)


def make_and_record(job: Job, shard: int) -> None:
    """Make one shard and, last, its result file."""
    try:
        result = load_work(job.work).make_shard(job.task, shard)
        write_shard_result(job.task.folder, shard, result)
    except Exception as error:
        note_failure(job, f"{shard:05d}", error)
        raise
    (job.logs / FAILURES / f"{shard:05d}.json").unlink(missing_ok=True)


def commit(job: Job, executor: str) -> Record:
    """Finish a step all of whose shards are made. Raises `InputError` naming the ones that are not."""
    task = job.task
    if missing := job.missing():
        listed = ", ".join(map(str, missing[:10])) + (", …" if len(missing) > 10 else "")
        what = f"step `{task.name}`: {len(missing)} of {job.shard_count()} shards are not made: {listed}"
        raise InputError(what, where=str(job.logs), fix="run it again: only they are made")
    results = [read_shard_result(task.folder, shard) for shard in range(job.shard_count())]
    facts = load_work(job.work).finish(task, results)
    clear_partials(task.folder)
    counts, dropped, licenses = summed(results)
    record = Record(
        step=task.name,
        kind=job.identity["kind"],
        kind_version=job.identity["kind_version"],
        fingerprint=task.fingerprint,
        config=job.identity["config"],
        inputs=job.identity["inputs"],
        counts=counts,
        dropped=dropped,
        licenses=licenses,
        facts=facts,
        files=output_hashes(task.folder),
        version=RECORD_VERSION,
    )
    seconds = time.time() - (task.folder / IDENTITY).stat().st_mtime
    write_record(task.folder, record, {"seconds": round(seconds, 3), "executor": executor})
    return record


@dataclass(frozen=True)
class Failure:
    """What went wrong with one shard (or with finishing), and where."""

    what: str
    where: str
    fix: str
    host: str
    traceback: str  # empty for a mistake of the user's

    def error(self) -> Exception:
        """The error to raise in the process that waits."""
        if self.traceback:
            return RuntimeError(f"{self.where}: {self.what}\n{self.traceback}")
        return UserError(self.what, where=self.where, fix=self.fix)


def note_failure(job: Job, name: str, error: Exception) -> None:
    """Leave a note that `seodang status` and a waiting process read."""
    if isinstance(error, UserError):
        failure = Failure(error.what, error.where, error.fix, platform.node(), "")
    else:
        place = f"step `{job.task.name}`, {'finishing' if name == FINISH else f'shard {int(name)}'}"
        trace = "".join(traceback.format_exception(error))
        failure = Failure(repr(error), place, "", platform.node(), trace)
    write_json(job.logs / FAILURES / f"{name}.json", asdict(failure))


def read_failures(logs: Path) -> dict[str, Failure]:
    """Failures by shard (`00003`) or `finish`."""
    return {path.stem: Failure(**read_json(path)) for path in sorted((logs / FAILURES).glob("*.json"))}


def clear_failures(logs: Path) -> None:
    for path in (logs / FAILURES).glob("*.json"):
        path.unlink(missing_ok=True)


@dataclass(frozen=True)
class ShardRunner:
    """A datatrove pipeline step: task `rank` of `world_size` makes its share of the shards.

    `shards` is None where the inputs were not finished at submission: the share is then taken of all shards, and those
    already made are skipped. `queued_at` (seconds since 1970) marks the attempt that speeds are counted from.
    """

    job: Job
    shards: tuple[int, ...] | None
    working_folder: str
    queued_at: float

    def __call__(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        os.chdir(self.working_folder)
        identity = self.job.task.folder / IDENTITY
        if not identity.is_file() or identity.stat().st_mtime < self.queued_at:
            begin(self.job)
        shards = self.shards if self.shards is not None else range(self.job.shard_count())
        for shard in shards[rank::world_size]:
            if not shard_done(self.job.task.folder, shard):
                make_and_record(self.job, shard)
        return iter(())


@dataclass(frozen=True)
class FinishRunner:
    """A datatrove pipeline step of one task: writes the record."""

    job: Job
    working_folder: str
    executor: str

    def __call__(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        os.chdir(self.working_folder)
        try:
            commit(self.job, self.executor)
        except Exception as error:
            note_failure(self.job, FINISH, error)
            raise
        (self.job.logs / FAILURES / f"{FINISH}.json").unlink(missing_ok=True)
        return iter(())
