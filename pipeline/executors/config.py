"""How to run: which executor, how many tasks, what each step needs. Execution only: no field here is identity."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Literal

from pydantic import Field

from pipeline.core.config import Config, Located
from pipeline.core.errors import unknown_name

DEFAULT = "default"
EXECUTORS = ("local", "ray", "slurm")


class Resources(Config):
    """What one task of a step needs. Entries of later patterns change only the fields they name."""

    cpus: int = Field(default=1, gt=0)
    memory_gib: float = Field(default=1.0, gt=0)
    minutes: int = Field(default=240, gt=0)  # time limit of a Slurm job
    partition: str = ""  # of Slurm; empty: the cluster's default
    tasks: int = Field(default=0, ge=0)  # of this step; 0: `execution.tasks`


class SlurmConfig(Config):
    """What a site wants of every job."""

    setup: str = ""  # shell lines before the job's own command, for example `module load python`
    account: str = ""
    qos: str = ""
    max_array_size: int = Field(default=1001, gt=0)  # Slurm's MaxArraySize; larger steps are several arrays
    workers: int = Field(default=-1, ge=-1)  # tasks of one array that run at once; -1: as many as fit
    arguments: dict[str, str] = Field(default={})  # further sbatch options, for example {constraint: "cpu"}
    poll_seconds: float = Field(default=2.0, gt=0)  # between looks at the queue


class RayConfig(Config):
    """Which Ray cluster."""

    address: str = ""  # empty: a cluster on this machine, for as long as the command runs


class ExecutionConfig(Config):
    """How to run; never part of any identity."""

    executor: Literal["local", "ray", "slurm"] = "local"
    tasks: int = Field(default=0, ge=0)  # at once (local: 0 = one a core) or array tasks of a step (Slurm: 0 = 16)
    resources: dict[str, Resources] = Field(default={})  # `default` and patterns of step names, later ones win
    slurm: SlurmConfig = SlurmConfig()
    ray: RayConfig = RayConfig()
    rows_per_microbatch: int | None = Field(default=None, gt=0)  # of training; None: the whole batch at once

    def resources_of(self, step: str) -> Resources:
        """The default, then what every matching pattern sets, in the file's order."""
        entries = [self.resources.get(DEFAULT, Resources())]
        entries += [one for pattern, one in self.resources.items() if pattern != DEFAULT and fnmatchcase(step, pattern)]
        return Resources(**{name: getattr(one, name) for one in entries for name in one.model_fields_set})

    def source_of(self, step: str, field: str) -> tuple[str, ...]:
        """(pattern, field) of the entry that gives a step's resource; empty where the file leaves it out."""
        patterns = [name for name in self.resources if name != DEFAULT and fnmatchcase(step, name)]
        for pattern in [*reversed(patterns), DEFAULT]:
            if pattern in self.resources and field in self.resources[pattern].model_fields_set:
                return pattern, field
        return ()


def check_patterns(config: ExecutionConfig, steps: Iterable[str], located: Located) -> None:
    """Every pattern of `resources` names a step. Raises `ConfigError`."""
    names = list(steps)
    for pattern in config.resources:
        if pattern != DEFAULT and not any(fnmatchcase(name, pattern) for name in names):
            where = located.where(("execution", "resources", pattern))
            raise unknown_name("step", pattern, [DEFAULT, *names], where=where)
