"""Steps as Slurm jobs, through datatrove's Slurm executor.

Each unfinished step is one job array, whose tasks pick shards, and one small finishing job that writes the record; a
step of one task does both in one job. All steps are submitted at once, chained by job id, so the whole graph runs on
when the submitting process is gone. A task takes every n-th shard; where the inputs are not finished at submission it
counts the shards when it starts. Jobs are known by their names alone (STEP-FINGERPRINT.make@STORE), so a second run
finds the live ones and submits only what is missing; a requeued task skips what it has made. Files:
STORE/logs/STEP/slurm/ATTEMPT/{make,finish}/.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any, ClassVar

from datatrove.executor.slurm import SlurmPipelineExecutor
from datatrove.utils.logging import logger

from pipeline.core.config import Located
from pipeline.core.errors import InputError
from pipeline.core.files import clear_partials
from pipeline.core.fingerprint import SHORT, fingerprint
from pipeline.core.record import Record, finished, read_record, shard_done
from pipeline.core.steps import StepTask
from pipeline.executors.config import ExecutionConfig, Resources
from pipeline.executors.slurm_limits import check_limits, partitions
from pipeline.executors.slurm_queue import ATTEMPT, COMPLETED, Queued, all_queued, no_slurm, queued, telling_line
from pipeline.executors.work import FINISH, FinishRunner, Job, ShardRunner, clear_failures, read_failures

MAKE = "make"
DEFAULT_TASKS = 16
SETTLING_SECONDS = 10.0  # a shared file system may show a job's last files after the queue forgets the job
PATIENCE_SECONDS = 900.0  # without an answer of the controller


@dataclass(frozen=True)
class Part:
    """One submission of a step: its array (`make`) or its finishing job."""

    name: str
    attempt: Path  # log folder of this attempt
    resources: Resources
    after: Sequence[str]  # ids of jobs that must have succeeded


class SlurmExecutor:
    """Submits what is missing and waits; the jobs need nobody to wait for them."""

    outlives_us: ClassVar[bool] = True

    def __init__(self, tasks: int, config: ExecutionConfig, located: Located) -> None:
        self.tasks = tasks or DEFAULT_TASKS
        self.config = config
        self.located = located
        self.known: dict[str, Job] = {}  # by step name: unfinished steps that have jobs

    def queue(self, chain: Sequence[Job]) -> None:
        """Submit the steps that have no live jobs, each after those of its inputs.

        Raises:
            ConfigError: A step asks for what no node or partition gives.
            InputError: Slurm is not here, does not answer or refuses a job.
        """
        try:
            check_limits([job.task.name for job in chain], self.config, partitions(), self.located)
            live = live_ids(chain)
        except ConnectionError as error:
            raise _silent(error) from error
        last: dict[str, str] = {}  # step name -> id of its finishing job
        for job in chain:
            after = [last[one.name] for one in job.task.inputs.values() if one.name in last]
            last[job.task.name] = self.submitted(job, after, live)
            self.known[job.task.name] = job

    def submitted(self, job: Job, after: Sequence[str], live: Mapping[str, Sequence[str]]) -> str:
        """Submit what the step lacks of array and finishing job; returns the finishing job's id."""
        finishing, arrays = live.get(job_name(job.task, FINISH), ()), live.get(job_name(job.task, MAKE), ())
        if finishing:
            return finishing[0]
        ready = all(finished(one.folder) for one in job.task.inputs.values())
        missing = tuple(job.missing()) if ready else None
        attempt = attempts(job)[-1] if arrays else next_attempt(job)
        resources = self.config.resources_of(job.task.name)
        last: list[Any] = [FinishRunner(job, os.getcwd(), "slurm")]
        if arrays:
            after = arrays
        elif missing != ():
            clear_partials(job.task.folder)
            clear_failures(job.logs)
            runner = ShardRunner(job, missing, os.getcwd(), time.time())
            tasks = resources.tasks or self.tasks
            tasks = tasks if missing is None else min(tasks, len(missing))
            if tasks == 1:
                last.insert(0, runner)
            else:
                after = [self.launched(job.task, [runner], tasks, Part(MAKE, attempt, resources, after))]
        return self.launched(job.task, last, 1, Part(FINISH, attempt, resources, after))

    def launched(self, task: StepTask, runners: list[Any], tasks: int, part: Part) -> str:
        """Submit one array through datatrove; returns its id."""
        resources = part.resources
        site = self.config.slurm
        executor = StepJobs(
            pipeline=runners,
            tasks=tasks,
            time=str(resources.minutes),
            partition=resources.partition,
            cpus_per_task=resources.cpus,
            workers=site.workers,
            job_name=job_name(task, part.name),
            qos=site.qos,
            env_command=environment(site.setup),
            sbatch_args={
                "mem-per-cpu": f"{math.ceil(resources.memory_gib * 1024 / resources.cpus)}M",
                "kill-on-invalid-dep": "yes",  # else what waits for a failed job stays in the queue for ever
                "chdir": os.getcwd(),
                "comment": f'"{ATTEMPT}{part.attempt.name}"',
                **({"account": site.account} if site.account else {}),
                **site.arguments,
            },
            srun_args={"cpus-per-task": resources.cpus},
            max_array_size=site.max_array_size,
            depends_job_id=":".join(part.after) or None,
            logging_dir=str((part.attempt / part.name).resolve()),
            skip_completed=False,  # shards say what is done, not datatrove's marks
            mail_type="NONE",
        )
        logger.remove()  # this process shows progress itself
        with _submission(task.name):
            executor.launch_job()
        return str(executor.job_id)

    def complete(self, job: Job, shards: Sequence[int], done: Callable[[int], None]) -> Record:
        """Wait for the step; any failure among all that were submitted ends the waiting."""
        if job.task.name not in self.known:
            self.queue([job])
        heard = time.monotonic()
        while not finished(job.task.folder):
            done(sum(shard_done(job.task.folder, shard) for shard in shards))
            try:
                self.raise_failures()
                heard = time.monotonic()
            except ConnectionError as error:
                if time.monotonic() - heard > PATIENCE_SECONDS:
                    raise _silent(error) from error
            time.sleep(self.config.slurm.poll_seconds)
        return read_record(job.task.folder)

    def raise_failures(self) -> None:
        """Raise the error of the first step that has neither record nor live jobs."""
        self.known = {name: job for name, job in self.known.items() if not finished(job.task.folder)}
        queue = jobs_in_queue(self.known.values())
        for job in self.known.values():
            own = jobs_of(job, queue)
            ended_badly = any(one.state != COMPLETED for one in own)
            if not any(one.live for one in own) and (ended_badly or not _settled(job.task.folder)):
                raise failure_of(job, own)


class StepJobs(SlurmPipelineExecutor):
    """datatrove's executor without its job that merges statistics (the record has the counts)."""

    def launch_merge_stats(self) -> None:
        pass

    def get_sbatch_args(self, max_array: int = 1) -> dict[str, Any]:
        arguments = super().get_sbatch_args(max_array)
        return {name: value for name, value in arguments.items() if name != "partition" or value}


def store_mark(store: Path) -> str:
    return fingerprint(str(store.resolve()))[:SHORT]


def job_name(task: StepTask, part: str) -> str:
    """Name of the step's array (`make`) or finishing job, unique on the cluster for this user."""
    return f"{task.folder.name}.{part}@{store_mark(task.store)}"


def step_of(jobs: Iterable[Job]) -> dict[str, str]:
    """Job name -> step name."""
    return {job_name(job.task, part): job.task.name for job in jobs for part in (MAKE, FINISH)}


def jobs_in_queue(jobs: Iterable[Job]) -> list[Queued]:
    """What `squeue` has of these steps, live or lately ended."""
    return queued(list(step_of(jobs)))


def jobs_in_store(store: Path) -> list[Queued]:
    """What `squeue` has of any step of a store, also of steps that the curriculum file no longer has."""
    return [one for one in all_queued() if one.name.endswith(f"@{store_mark(store)}")]


def jobs_of(job: Job, queue: Iterable[Queued]) -> list[Queued]:
    """Those of `queue` that are of the step's last submission, or live."""
    names = step_of([job])
    last = [folder.name for folder in attempts(job)[-1:]]
    return [one for one in queue if one.name in names and all(one.is_of(attempt) for attempt in last)]


def live_ids(jobs: Iterable[Job]) -> dict[str, list[str]]:
    """Job name -> ids of live jobs, an array once."""
    found: dict[str, list[str]] = {}
    for one in jobs_in_queue(jobs):
        if one.live and one.array not in found.setdefault(one.name, []):
            found[one.name].append(one.array)
    return {name: ids for name, ids in found.items() if ids}


def attempts(job: Job) -> list[Path]:
    """Log folders of each submission, oldest first."""
    return sorted((job.logs / "slurm").glob("[0-9]*"))


def next_attempt(job: Job) -> Path:
    return job.logs / "slurm" / f"{len(attempts(job)):04d}"


def failure_of(job: Job, own: Sequence[Queued]) -> Exception:
    """Why a step without live jobs is not finished: its own note, else what Slurm and the last log say."""
    for failure in read_failures(job.logs).values():
        return failure.error()
    states = sorted({one.state for one in own if one.state != COMPLETED})
    log, line = last_words(job)
    fixes = {"TIMEOUT": "more `minutes`", "OUT_OF_MEMORY": "more `memory_gib`"}
    wanted = " and ".join(fixes[state] for state in states if state in fixes)
    give = f"give it {wanted} in execution.resources; " if wanted else ""
    ended = f" ({', '.join(states).lower().replace('_', ' ')})" if states else ""
    what = f"step `{job.task.name}` ended on the cluster without its record{ended}: {line or 'it left no log'}"
    return InputError(what, where=str(log or job.logs), fix=f"{give}run again: only what is missing is made")


def last_words(job: Job) -> tuple[Path | None, str]:
    """(log file, the line that says why) of the last submission, the log written last first."""
    logs = [log for folder in attempts(job)[-1:] for log in folder.glob("*/slurm_logs/*.out")]
    return telling_line(sorted(logs, key=lambda path: path.stat().st_mtime_ns, reverse=True))


def environment(setup: str) -> str:
    """Shell lines that give a job this process's Python: compute nodes see the same file system."""
    path = os.environ.get("PYTHONPATH", "")
    lines = [setup, f'export PATH="{Path(sys.executable).parent}:$PATH"', f'export PYTHONPATH="{path}"']
    return "\n".join(line for line in lines if line)


def _silent(error: ConnectionError) -> InputError:
    return InputError(f"Slurm does not answer: {error}", fix="run again when it does: its jobs are as they were")


def _settled(folder: Path) -> bool:
    """Whether the record shows up within the time that a shared file system may take."""
    end = time.monotonic() + SETTLING_SECONDS
    while time.monotonic() < end:
        if finished(folder):
            return True
        os.scandir(folder.parent).close()  # makes NFS look again
        time.sleep(0.5)
    return False


@contextlib.contextmanager
def _submission(step: str) -> Generator[None]:
    """Turn what `sbatch` says on stderr into the message of an `InputError`."""
    saved = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield
        except FileNotFoundError as error:
            raise no_slurm(str(error.filename)) from None
        except CalledProcessError:
            said.seek(0)
            message = said.read().decode(errors="replace").strip()
            fix = "change execution.resources or execution.slurm of the curriculum file"
            raise InputError(f"Slurm refused step `{step}`: {message}", where="sbatch", fix=fix) from None
        finally:
            os.dup2(saved, 2)
            os.close(saved)
