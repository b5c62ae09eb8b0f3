"""Where shards are made: in this process, or in worker processes through datatrove's local executor.

Contract: `executor.make(step, task, shards)` returns when every shard in `shards` has left its result, and raises the
first error otherwise. Nothing here is identity: any executor, with any number of workers, leaves the same bytes.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from pipeline.core.config import Config
from pipeline.core.errors import UserError, unknown_name
from pipeline.core.record import shard_done, write_shard_result
from pipeline.core.steps import Step, StepTask, Work

POLL_SECONDS = 0.2


EXECUTORS = ("local",)


class Resources(Config):
    """What one task of a data step needs."""

    memory_gib: float = Field(default=1.0, gt=0)


class ExecutionConfig(Config):
    """How to run; never part of any identity."""

    executor: Literal["local"] = "local"
    tasks: int = Field(default=0, ge=0)  # worker processes at once; 0 = one a core
    resources: Resources = Resources()
    rows_per_microbatch: int | None = Field(default=None, gt=0)  # of training; None: the whole batch at once


def executor_for(config: ExecutionConfig, executor: str, workers: int) -> LocalExecutor:
    """The executor of the file, with what the command line changes. Raises `ConfigError` for an unknown one."""
    name = executor or config.executor
    if name not in EXECUTORS:
        raise unknown_name("executor", name, EXECUTORS, where="--executor")
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    fitting = max(1, int(memory_bytes / (config.resources.memory_gib * 2**30)))
    asked = workers or config.tasks or len(os.sched_getaffinity(0))
    return LocalExecutor(min(asked, fitting))


def load_work(path: str) -> Work:
    """The work object at `module:attribute`."""
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)


def make_and_record(work_path: str, task: StepTask, shard: int) -> None:
    """Make one shard and, last, its result file."""
    result = load_work(work_path).make_shard(task, shard)
    write_shard_result(task.folder, shard, result)


@dataclass(frozen=True)
class ShardRunner:
    """A datatrove pipeline step: task `rank` of `world_size` makes its slice of the pending shards."""

    work_path: str
    task: StepTask
    shards: tuple[int, ...]

    def __call__(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        for shard in self.shards[rank::world_size]:
            try:
                make_and_record(self.work_path, self.task, shard)
            except Exception as error:
                # The pool's own traceback pickling loses our error types' fields: say it in the message too.
                if isinstance(error, UserError):
                    raise
                message = f"step `{self.task.name}`, shard {shard}: {error!r}"
                raise RuntimeError(message) from error
        return iter(())


class LocalExecutor:
    """One worker process a core; a single shard, or a single worker, runs in this process."""

    def __init__(self, workers: int = 0) -> None:
        self.workers = workers or len(os.sched_getaffinity(0))

    def make(self, step: Step, task: StepTask, shards: Sequence[int], done: Callable[[int], None]) -> None:
        """Make `shards`; `done(count)` is told how many are finished as time goes by."""
        if len(shards) == 1 or self.workers == 1:
            for count, shard in enumerate(shards, start=1):
                make_and_record(step.work, task, shard)
                done(count)
            return
        with _watched(task.folder, shards, done):
            self._through_datatrove(step, task, tuple(shards))

    def _through_datatrove(self, step: Step, task: StepTask, shards: tuple[int, ...]) -> None:
        from datatrove.executor.local import LocalPipelineExecutor
        from loguru import logger

        logging_dir = task.store / "logs" / task.folder.name
        logging_dir.mkdir(parents=True, exist_ok=True)
        tasks = min(self.workers, len(shards))
        executor = LocalPipelineExecutor(
            pipeline=[ShardRunner(step.work, task, shards)],
            tasks=tasks,
            workers=tasks,
            logging_dir=str(logging_dir),
            skip_completed=False,
            start_method="forkserver",
        )
        logger.remove()  # this process shows progress; each task's own log lies in `logging_dir`
        with _stderr_into(logging_dir / "workers.log"):
            executor.run()


@contextlib.contextmanager
def _stderr_into(path: Path) -> Generator[None]:
    """Send what worker processes print on stderr to a file: they inherit the descriptor."""
    saved = os.dup(2)
    target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.dup2(target, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(target)


@contextlib.contextmanager
def _watched(folder: Path, shards: Sequence[int], done: Callable[[int], None]) -> Generator[None]:
    """Report finished shards while the workers run."""
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(POLL_SECONDS):
            done(sum(shard_done(folder, shard) for shard in shards))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        done(sum(shard_done(folder, shard) for shard in shards))
