"""Steps on a Ray cluster, through datatrove's Ray executor.

One actor a task; a task takes every n-th of the missing shards. datatrove submits the task of a lost actor again, up to
three times; its shards that are already made are skipped. Steps run one after the other, and the record is written by
the process that waits: when that is killed, its actors end, and a second run makes what is missing.
A task has its step's `cpus`, `memory_gib` and `minutes`; Ray knows no partitions, so `partition` says nothing here.
Needs the extra `ray`. All nodes see the store and the sources under the same paths.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar

from datatrove.executor import ray as datatrove_ray
from datatrove.utils.logging import logger
from datatrove.utils.stats import PipelineStats

from pipeline.core.config import Located
from pipeline.core.errors import InputError
from pipeline.core.files import clear_partials
from pipeline.core.record import Record, shard_done
from pipeline.executors.config import ExecutionConfig, Resources
from pipeline.executors.slurm_queue import telling_line
from pipeline.executors.work import Job, ShardRunner, begin, clear_failures, commit, note_failure, read_failures

POLL_SECONDS = 0.5
MINUTE_SECONDS = 60.0


class RayExecutor:
    """Tasks on the cluster of `execution.ray.address`, or on one started on this machine."""

    outlives_us: ClassVar[bool] = False

    def __init__(self, tasks: int, config: ExecutionConfig, located: Located) -> None:
        self.tasks = tasks
        self.config = config
        self.located = located

    def queue(self, chain: Sequence[Job]) -> None:
        del chain  # steps are made one after the other
        connected(self.config.ray.address)

    def complete(self, job: Job, shards: Sequence[int], done: Callable[[int], None]) -> Record:
        ray = connected(self.config.ray.address)
        begin(job)
        clear_partials(job.task.folder)
        clear_failures(job.logs)
        if shards:
            resources = self.config.resources_of(job.task.name)
            where = self.located.where(("execution", "resources")) or "execution.resources"
            fitting = fitting_tasks(ray.cluster_resources(), resources, job.task.name, where)
            tasks = min(resources.tasks or self.tasks or fitting, len(shards))
            self.make(job, tuple(shards), tasks, resources, done)
            for failure in read_failures(job.logs).values():
                raise failure.error()
            _check_made(job, shards)
        return commit(job, "ray")

    def make(
        self, job: Job, shards: tuple[int, ...], tasks: int, resources: Resources, done: Callable[[int], None]
    ) -> None:
        """Run datatrove's executor in a thread and tell how many shards are there."""
        logger.remove()  # this process shows progress itself
        runner = ShardRunner(job, shards, os.getcwd(), 0.0)
        executor = datatrove_ray.RayPipelineExecutor(
            pipeline=[TimedRunner(runner, resources.minutes, resources.minutes * MINUTE_SECONDS)],
            tasks=tasks,
            cpus_per_task=resources.cpus,
            mem_per_cpu_gb=resources.memory_gib / resources.cpus,
            logging_dir=str((job.logs / "ray").resolve()),
            skip_completed=False,  # shards say what is done, not datatrove's marks
        )
        with _one_process_a_task(), ThreadPoolExecutor(1) as thread:
            future = thread.submit(executor.run)
            while not wait([future], timeout=POLL_SECONDS).done:
                done(sum(shard_done(job.task.folder, shard) for shard in shards))
            future.result()
        done(sum(shard_done(job.task.folder, shard) for shard in shards))


@dataclass(frozen=True)
class TimedRunner:
    """A task that is ended when its time is over, whatever it is doing: its process ends after a note of why.

    datatrove's own limit forgets the task that it ends and then looks it up (0.10.1), and looks every ten seconds only.
    """

    runner: ShardRunner
    minutes: int
    seconds: float  # of all of them

    def __call__(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        os.chdir(self.runner.working_folder)
        name = f"task-{rank:05d}"
        if name in read_failures(self.runner.job.logs):
            raise TimeoutError(f"{name} has had its time")  # the executor takes an ended process for a lost one
        timer = threading.Timer(self.seconds, self.expire, (name,))
        timer.daemon = True
        timer.start()
        try:
            return self.runner(data, rank, world_size)
        finally:
            timer.cancel()

    def expire(self, name: str) -> None:
        """End this process."""
        job = self.runner.job
        what = f"step `{job.task.name}`: {name} was ended after {self.minutes} minutes, its time limit"
        fix = "more `minutes`, or more `tasks`, in execution.resources; run again: what is made is kept"
        note_failure(job, name, InputError(what, where=str(job.logs), fix=fix))
        os._exit(1)


class TaskWorker(datatrove_ray.RankWorker):
    """datatrove's actor, working in its own process.

    datatrove's works in a `multiprocess` pool inside the actor, which waits for ever when the pool's process is killed
    (and lets that process live on when the actor is). With one process a task, Ray itself sees the kill.
    """

    def run_for_rank(
        self,
        executor_ref: Any,  # the executor, whose method of one rank is not public
        ranks: list[int],
        node_ips: list[str],
        node_idx: int,
    ) -> PipelineStats:
        os.environ["RAY_NODELIST"] = ",".join(node_ips)
        os.environ["RAY_NODEID"] = str(node_idx)
        return sum((executor_ref._run_for_rank(rank, rank) for rank in ranks), start=PipelineStats())


@contextlib.contextmanager
def _one_process_a_task() -> Generator[None]:
    """datatrove's executor finds its actor's class in its module and takes no other."""
    theirs = datatrove_ray.RankWorker
    datatrove_ray.RankWorker = TaskWorker
    try:
        yield
    finally:
        datatrove_ray.RankWorker = theirs


def connected(address: str) -> Any:
    """The `ray` module, connected. Raises `InputError` when it is not installed or no cluster answers."""
    try:
        ray: Any = import_module("ray")  # an extra: the type checker of a base install does not have it
    except ImportError:
        raise InputError("Ray is not installed", fix="in the clone: .venv/bin/pip install -e '.[ray]'") from None
    if not ray.is_initialized():
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # else Ray reports its use over the network
        try:
            _knock(address)
            ray.init(address=address or "local", include_dashboard=False, log_to_driver=False, logging_level="warning")
        except ConnectionError as error:
            fix = "start it with `ray start --head`, or leave execution.ray.address empty for one on this machine"
            raise InputError(f"no Ray cluster at `{address}`: {error}", fix=fix) from None
    return ray


def _knock(address: str) -> None:
    """Raise `ConnectionError` when nothing listens there: Ray would try for minutes, then end in its own errors."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except OSError as error:
            raise ConnectionError(str(error)) from None


def fitting_tasks(cluster: dict[str, float], resources: Resources, step: str, where: str) -> int:
    """How many tasks the cluster holds at once. Raises `InputError` when it holds none: Ray would wait for ever."""
    cpus, memory_gib = cluster.get("CPU", 0.0), cluster.get("memory", 0.0) / 2**30
    count = int(min(cpus / resources.cpus, memory_gib / resources.memory_gib))
    if count < 1:
        what = f"a task of step `{step}` asks for {resources.cpus} CPUs and {resources.memory_gib:g} GiB"
        has = f"the Ray cluster has {cpus:g} CPUs and {memory_gib:.1f} GiB"
        raise InputError(f"{what}, {has}", where=where, fix="ask for less, or add nodes")
    return count


def _check_made(job: Job, shards: Sequence[int]) -> None:
    missing = [shard for shard in shards if not shard_done(job.task.folder, shard)]
    if missing:
        log, line = telling_line(sorted((job.logs / "ray" / "logs").glob("*.log")))
        what = f"step `{job.task.name}`: {len(missing)} shards were not made, first {missing[0]}"
        why = f"the last that its workers said: {line or 'nothing'}"
        fix = "a worker that Ray loses four times is out of memory, as a rule: raise `memory_gib`, then run again"
        raise InputError(f"{what}; {why}", where=str(log or job.logs / "ray"), fix=fix)
