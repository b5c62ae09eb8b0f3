"""One worker process a core on this machine, as many as its memory holds.

A single shard, or a single worker, runs in this process. Otherwise a process pool of the standard library is used: it
notices a killed worker, where `multiprocessing` pools (and executors built on them) wait for ever. What the killed
worker was making is made again with half as many workers, because the usual cause is memory; a pool of one that is
killed again is an error. Workers write to STORE/logs/STEP/workers.log and end with the process that started them.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path
from typing import ClassVar

from pipeline.core.errors import InputError, UserError
from pipeline.core.files import clear_partials
from pipeline.core.record import Record, shard_done
from pipeline.executors.config import ExecutionConfig
from pipeline.executors.work import Job, begin, clear_failures, commit, make_and_record

CGROUP_MEMORY = Path("/sys/fs/cgroup/memory.max")


class LocalExecutor:
    """Worker processes on this machine; `workers` 0 means one a core."""

    outlives_us: ClassVar[bool] = False

    def __init__(self, workers: int = 0, config: ExecutionConfig | None = None) -> None:
        self.workers = workers or len(os.sched_getaffinity(0))
        self.config = config or ExecutionConfig()

    def queue(self, chain: Sequence[Job]) -> None:
        del chain  # steps are made one after the other

    def complete(self, job: Job, shards: Sequence[int], done: Callable[[int], None]) -> Record:
        begin(job)
        clear_partials(job.task.folder)
        clear_failures(job.logs)
        workers = min(self.workers, fitting(self.config.resources_of(job.task.name).memory_gib), len(shards))
        if workers <= 1:
            for count, shard in enumerate(shards, start=1):
                make_and_record(job, shard)
                done(count)
        else:
            make_in_processes(job, shards, workers, done)
        return commit(job, "local")


def fitting(memory_gib: float) -> int:
    """How many workers of this size fit into the memory of the machine, or of the container."""
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if CGROUP_MEMORY.is_file() and (limit := CGROUP_MEMORY.read_text().strip()).isdigit():
        memory_bytes = min(memory_bytes, int(limit))
    return max(1, int(memory_bytes / (memory_gib * 2**30)))


def make_in_processes(job: Job, shards: Sequence[int], workers: int, done: Callable[[int], None]) -> None:
    """Make `shards`, each in one of `workers` processes. Raises the first error; what a kill undid is made again."""
    while missing := [shard for shard in shards if not shard_done(job.task.folder, shard)]:
        made = len(shards) - len(missing)
        try:
            _through_pool(job, missing, workers, partial(_told, done, made))
        except BrokenProcessPool:
            if workers == 1:
                raise _killed(job, shards) from None
            workers //= 2


def _through_pool(job: Job, shards: Sequence[int], workers: int, done: Callable[[int], None]) -> None:
    log = job.logs / "workers.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    others = set(multiprocessing.active_children())
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(str(log),)) as pool:
        try:
            futures = [pool.submit(_make, job, shard) for shard in shards]
            for count, future in enumerate(as_completed(futures), start=1):
                future.result()
                done(count)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in set(multiprocessing.active_children()) - others:
                child.kill()
            raise


def _told(done: Callable[[int], None], before: int, count: int) -> None:
    done(before + count)


def _start_worker(log: str) -> None:
    """Runs first in each worker: its output into the log, Ctrl-C left to the parent, no life without the parent."""
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.close(handle)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


def _make(job: Job, shard: int) -> None:
    try:
        make_and_record(job, shard)
    except UserError:
        raise
    except Exception as error:
        # Not every error type survives the way between processes: say it in the message too.
        raise RuntimeError(f"step `{job.task.name}`, shard {shard}: {error!r}") from error


def _killed(job: Job, shards: Sequence[int]) -> InputError:
    first = next(shard for shard in shards if not shard_done(job.task.folder, shard))
    needed = f"execution.resources.'{job.task.name}'.memory_gib"
    return InputError(
        f"step `{job.task.name}`: the worker that made shard {first} or a later one was killed, even alone",
        where=str(job.logs / "workers.log"),
        fix=f"memory is the usual cause (see `dmesg`): raise {needed}, or make its input shards smaller",
    )
