"""What a step is, for the rooms that do the work (stages, synth, mixes) and for the graph that runs it.

A step's identity is (kind, version, config, fingerprints of its inputs). Its work is an object with three methods:

`shard_count(task)`          how many output shards there are: a function of config and inputs only, never of workers
`make_shard(task, shard)`    makes one shard's files below `task.folder`, atomically, and returns its `ShardResult`
`finish(task, results)`      runs once after all shards; may write summary files; returns facts for the record

`make_shard` may run in another process, several at a time, and again after a kill: it must not read what other shards
of the same step write. Byte-identical outputs for any number of tasks follow from that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pipeline.core.config import Config
from pipeline.core.fingerprint import SHORT, fingerprint
from pipeline.core.record import Record, ShardResult, read_record


@dataclass(frozen=True)
class Step:
    """One node of the graph.

    Attributes:
        name: Unique in the curriculum, for example `clean.web-ko`; also the name of its output folder.
        kind: What it does, for example `stages.clean`.
        version: Bumped by hand when the same config would write other bytes.
        config: Identity only; nothing about paths, workers, hosts.
        inputs: Role -> name of the step that provides it.
        work: Import path of its work object, `module:attribute`.
        content: Fingerprints of files outside the store that the step reads (sources, models, cards), by role.
        paths: Where those files lie; execution, not identity.
    """

    name: str
    kind: str
    version: int
    config: Config
    inputs: Mapping[str, str]
    work: str
    content: Mapping[str, str] = field(default_factory=dict)
    paths: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def fingerprint(self, input_fingerprints: Mapping[str, str]) -> str:
        return fingerprint(self.kind, self.version, self.config, dict(input_fingerprints), dict(self.content))


def folder_name(step: str, step_fingerprint: str) -> str:
    return f"{step}-{step_fingerprint[:SHORT]}"


@dataclass(frozen=True)
class StepOutput:
    """A finished step, as another step's input."""

    name: str
    folder: Path

    @property
    def record(self) -> Record:
        return read_record(self.folder)


@dataclass(frozen=True)
class StepTask:
    """What the work gets: identity, finished inputs and where to write. Picklable."""

    name: str
    fingerprint: str
    config: Any  # the step's own Config class
    inputs: Mapping[str, StepOutput]
    folder: Path
    store: Path
    paths: Mapping[str, tuple[str, ...]]


class Work(Protocol):
    """The three methods of a step's work."""

    def shard_count(self, task: StepTask) -> int: ...

    def make_shard(self, task: StepTask, shard: int) -> ShardResult: ...

    def finish(self, task: StepTask, results: Sequence[ShardResult]) -> Mapping[str, Any]: ...
