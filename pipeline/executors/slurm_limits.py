"""What the partitions of a Slurm allow, and what a step asks for beyond it, said before anything is submitted.

Slurm itself refuses an unknown partition at submission, but a job over its partition's time limit waits in the queue
for ever (`PartitionTimeLimit`) unless the site has set EnforcePartLimits. Nothing is checked where the site shows no
partitions (PrivateData), nor the time where a quality of service is asked for, which may lift it. Source: sinfo(1),
slurm.conf(5).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from pipeline.core.config import Loc, Located
from pipeline.core.errors import ConfigError, unknown_name
from pipeline.executors.config import ExecutionConfig
from pipeline.executors.slurm_queue import asked

FORMAT = "%P|%l|%c|%m"  # partition, time limit, CPUs and MiB of a node


@dataclass(frozen=True)
class Partition:
    """The most that one task may have there."""

    name: str
    is_default: bool
    minutes: float  # infinite where there is no limit
    nodes: tuple[tuple[int, int], ...]  # (CPUs, MiB) of each kind of node


def partitions() -> list[Partition]:
    """Every partition, hidden ones too. Raises like `slurm_queue.queued`."""
    return read_partitions(asked(["sinfo", "--all", "--noheader", "--exact", f"--format={FORMAT}"]))


def read_partitions(listing: str) -> list[Partition]:
    """`sinfo`'s lines, one for each partition and kind of node."""
    found: dict[str, Partition] = {}
    for line in listing.splitlines():
        name, limit, cpus, memory_mib = line.strip().split("|")
        plain = name.rstrip("*")
        nodes = (*(found[plain].nodes if plain in found else ()), (_number(cpus), _number(memory_mib)))
        found[plain] = Partition(plain, name.endswith("*"), minutes_of(limit), nodes)
    return list(found.values())


def minutes_of(limit: str) -> float:
    """Slurm's `[days-]hours:minutes:seconds`, `minutes:seconds`, or a word for no limit."""
    if not re.fullmatch(r"[\d:-]+", limit):
        return float("inf")
    days, dash, clock = limit.rpartition("-")
    fields = [int(part) for part in clock.split(":")]
    fields = fields + [0] * (3 - len(fields)) if dash else [0] * (3 - len(fields)) + fields
    hours, minutes, seconds = fields
    return int(days or 0) * 1440 + hours * 60 + minutes + seconds / 60


def check_limits(steps: Iterable[str], config: ExecutionConfig, known: Sequence[Partition], located: Located) -> None:
    """Every step asks for a partition that there is, and for what it gives. Raises `ConfigError` with the place."""
    by_name = {one.name: one for one in known}
    site = config.slurm
    for step in steps if known else ():
        resources = config.resources_of(step)
        wanted = site.arguments.get("partition", resources.partition)
        minutes = 0 if site.qos or "qos" in site.arguments else resources.minutes

        def where(field: str, step: str = step) -> str:
            loc: Loc = ("execution", "resources", *config.source_of(step, field))
            return located.where(loc) or ".".join(map(str, loc))

        asked_for = [name for name in wanted.split(",") if name]
        if unknown := [name for name in asked_for if name not in by_name]:
            raise unknown_name("partition", unknown[0], by_name, where=where("partition"))
        usable = [by_name[name] for name in asked_for] or [one for one in known if one.is_default]
        if usable:
            _check_fit(step, resources.cpus, resources.memory_gib, minutes, usable, where)


def _check_fit(
    step: str, cpus: int, memory_gib: float, minutes: int, usable: Sequence[Partition], where: Callable[[str], str]
) -> None:
    names = ", ".join(one.name for one in usable)
    longest = max(one.minutes for one in usable)
    if minutes > longest:
        what = f"step `{step}` asks for {minutes} minutes, partition `{names}` gives {longest:g}"
        fix = f"`minutes: {longest:.0f}` with more `tasks` (each then has fewer shards), or another `partition`"
        raise ConfigError(what, where=where("minutes"), fix=fix)
    nodes = [node for one in usable for node in one.nodes]
    most_cpus, most_mib = max(node[0] for node in nodes), max(node[1] for node in nodes)
    if memory_gib * 1024 > most_mib:
        has = f"the largest node of partition `{names}` has {most_mib / 1024:.1f} GiB"
        fix = f"`memory_gib: {most_mib // 102.4 / 10:g}` at most, or another `partition`"
        what = f"a task of step `{step}` asks for {memory_gib:g} GiB, {has}"
        raise ConfigError(what, where=where("memory_gib"), fix=fix)
    if cpus > most_cpus:
        what = f"a task of step `{step}` asks for {cpus} CPUs, the largest node of partition `{names}` has {most_cpus}"
        raise ConfigError(what, where=where("cpus"), fix=f"`cpus: {most_cpus}` at most, or another `partition`")


def _number(text: str) -> int:
    return int(text.rstrip("+"))
