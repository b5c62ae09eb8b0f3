"""The step graph: plan it, run what is missing, resume after any kill, say why a step would run again.

Contract: a step's folder is STORE/NAME-FINGERPRINT8. A folder with a record is finished and is never written again; a
folder without one holds finished shards that are kept and the rest is made anew. Fingerprints need no run: they follow
from configs and content hashes alone.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from pipeline.core.config import Config
from pipeline.core.errors import InputError, unknown_name
from pipeline.core.files import read_json
from pipeline.core.fingerprint import canonical
from pipeline.core.record import IDENTITY, Record, finished, read_record
from pipeline.core.steps import Step, StepOutput, StepTask, folder_name
from pipeline.executors.work import Executor, Job


class Progress(Protocol):
    """Told what happens; the terminal view and the silent one of tests."""

    def step_started(self, name: str, shards: int, done: int) -> None: ...

    def shards_done(self, name: str, done: int) -> None: ...

    def step_finished(self, name: str, record: Record, seconds: float, *, was_there: bool) -> None: ...


class Silent:
    """No progress shown."""

    def step_started(self, name: str, shards: int, done: int) -> None:
        del name, shards, done

    def shards_done(self, name: str, done: int) -> None:
        del name, done

    def step_finished(self, name: str, record: Record, seconds: float, *, was_there: bool) -> None:
        del name, record, seconds, was_there


@dataclass(frozen=True)
class Node:
    """A step with its fingerprint and folder."""

    step: Step
    fingerprint: str
    folder: Path

    @property
    def finished(self) -> bool:
        return finished(self.folder)


class Graph:
    """Steps in running order below one store."""

    def __init__(self, store: Path, steps: Iterable[Step]) -> None:
        self.store = store
        self.nodes: dict[str, Node] = {}
        for step in steps:
            self.add(step)

    def add(self, step: Step) -> Node:
        """Add a step whose inputs are already there."""
        assert step.name not in self.nodes, f"two steps named {step.name}"
        fingerprints = {role: self.nodes[name].fingerprint for role, name in sorted(step.inputs.items())}
        own = step.fingerprint(fingerprints)
        node = Node(step, own, self.store / folder_name(step.name, own))
        self.nodes[step.name] = node
        return node

    def adopt(self, output: StepOutput) -> Node:
        """Take in a finished step by its record, as an input of steps added later."""
        record = output.record
        step = Step(output.name, record.kind, record.kind_version, Config(), {}, "")
        self.nodes[output.name] = Node(step, record.fingerprint, output.folder)
        return self.nodes[output.name]

    def node(self, name: str) -> Node:
        if name not in self.nodes:
            raise unknown_name("step", name, self.nodes)
        return self.nodes[name]

    def needed(self, names: Sequence[str]) -> list[Node]:
        """The named steps and everything they need, in running order."""
        wanted: set[str] = set()
        stack = [self.node(name).step.name for name in names]
        while stack:
            name = stack.pop()
            if name not in wanted:
                wanted.add(name)
                stack.extend(self.nodes[name].step.inputs.values())
        return [node for name, node in self.nodes.items() if name in wanted]

    def task(self, node: Node) -> StepTask:
        inputs = {role: StepOutput(name, self.nodes[name].folder) for role, name in sorted(node.step.inputs.items())}
        step = node.step
        return StepTask(step.name, node.fingerprint, step.config, inputs, node.folder, self.store, step.paths)

    def job(self, node: Node) -> Job:
        """The step as any machine can make it."""
        return Job(node.step.work, self.task(node), _identity(node, self))

    def run(self, names: Sequence[str], executor: Executor, progress: Progress) -> list[Record]:
        """Run what is missing of the named steps and their needs; returns their records in order."""
        nodes = self.needed(names)
        executor.queue([self.job(node) for node in nodes if not node.finished])
        return [self.run_node(node, executor, progress) for node in nodes]

    def run_node(self, node: Node, executor: Executor, progress: Progress) -> Record:
        """Run one step whose inputs are finished, unless it is finished itself."""
        name = node.step.name
        if node.finished:
            record = _checked(node)
            progress.step_finished(name, record, 0.0, was_there=True)
            return record
        started = time.monotonic()
        job = self.job(node)
        count, pending = job.shard_count(), job.missing()
        already = count - len(pending)
        progress.step_started(name, count, already)
        record = executor.complete(job, pending, lambda done: progress.shards_done(name, already + done))
        progress.step_finished(name, record, time.monotonic() - started, was_there=False)
        return record

    def why(self, name: str) -> list[str]:
        """Why a step is not finished: each field in which it differs from the newest folder of the same step."""
        node = self.node(name)
        if node.finished:
            return [f"`{name}` is finished: {node.folder}"]
        others = [p for p in self.store.glob(f"{name}-*/{IDENTITY}") if p.parent != node.folder and finished(p.parent)]
        if not others:
            return [f"`{name}` has never been finished in {self.store}"]
        newest = max(others, key=lambda path: path.stat().st_mtime_ns)
        return list(differences(read_json(newest), _identity(node, self)))


def _identity(node: Node, graph: Graph) -> dict[str, Any]:
    step = node.step
    return {
        "kind": step.kind,
        "kind_version": step.version,
        "fingerprint": node.fingerprint,
        "config": canonical(step.config),
        "inputs": {role: graph.nodes[name].fingerprint for role, name in sorted(step.inputs.items())},
        "content": dict(sorted(step.content.items())),
    }


def _checked(node: Node) -> Record:
    record = read_record(node.folder)
    if record.fingerprint != node.fingerprint:
        raise InputError("record is of another step", where=str(node.folder), fix="move the folder away")
    return record


def differences(old: Any, new: Any, path: str = "") -> Iterator[str]:
    """`path: old → new` for every leaf that differs."""
    if path == "fingerprint":
        return
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*old, *new}):
            yield from differences(old.get(key), new.get(key), f"{path}.{key}" if path else str(key))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (before, after) in enumerate(zip(old, new, strict=True)):
            yield from differences(before, after, f"{path}.{index}")
    elif old != new:
        yield f"{path}: {old!r} → {new!r}"


@contextmanager
def locked(store: Path) -> Generator[IO[str]]:
    """Hold the store for one writing process; a second one is refused, a dead one's lock is gone with it."""
    store.mkdir(parents=True, exist_ok=True)
    handle = (store / ".lock").open("w")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.close()
        message = "another seodang process is writing here"
        raise InputError(message, where=str(store), fix="wait for it to end") from None
    try:
        yield handle
    finally:
        handle.close()
