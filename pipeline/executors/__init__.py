"""Where steps are made: on this machine, on Slurm or on Ray.

Contract: `work.Executor`. Nothing here is identity: any executor, with any number of tasks, leaves the same bytes.
Slurm and Ray run through datatrove's executors, imported when they are asked for.
"""

from __future__ import annotations

from pipeline.core.config import Located
from pipeline.core.errors import unknown_name
from pipeline.executors.config import EXECUTORS, ExecutionConfig, Resources
from pipeline.executors.local import LocalExecutor
from pipeline.executors.work import Executor, Job, load_work

__all__ = ["EXECUTORS", "ExecutionConfig", "Executor", "Job", "LocalExecutor", "Resources", "executor_for", "load_work"]


def executor_for(config: ExecutionConfig, executor: str, workers: int, located: Located | None = None) -> Executor:
    """The executor of the file, with what the command line changes. Raises `ConfigError` for an unknown one.

    Args:
        config: How to run.
        executor: Its name; empty: the file's.
        workers: Tasks at once; 0: the file's.
        located: The curriculum file, so that a mistake can be named with its line.
    """
    located = located or Located({})
    name = executor or config.executor
    if name not in EXECUTORS:
        raise unknown_name("executor", name, EXECUTORS, where="--executor")
    tasks = workers or config.tasks
    if name == "slurm":
        from pipeline.executors.slurm import SlurmExecutor

        return SlurmExecutor(tasks, config, located)
    if name == "ray":
        from pipeline.executors.ray import RayExecutor

        return RayExecutor(tasks, config, located)
    return LocalExecutor(tasks, config)
