"""A chain of two toy steps whose shards can be held, made to fail, and killed; and the mini run made locally."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from pipeline.core.record import SHARDS
from pipeline.executors import ExecutionConfig, Executor, Resources, executor_for
from pipeline.executors.config import SlurmConfig
from pipeline.graph import Graph, Silent
from stores import outputs

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 120

# One task, fewer tasks than shards, as many, and more, in one run of `tests/mini.yaml`.
TASK_COUNTS = (
    "execution.resources={default: {memory_gib: 0.5, minutes: 20, tasks: 1}, "
    "'clean.*': {tasks: 7}, 'dedup.*': {tasks: 3}, 'encode.reason': {tasks: 3}}"
)

TOY = '''
"""Shards that wait while CONTROL/hold-N exists, fail while CONTROL/fail-N does, and leave their process id."""

import os, sys, time
from pathlib import Path
from pipeline.core.config import Config
from pipeline.core.files import write_text
from pipeline.core.record import ShardResult
from pipeline.core.steps import Step
from pipeline.executors import ExecutionConfig, executor_for
from pipeline.graph import Graph, Silent


class ToyConfig(Config):
    word: str
    shards: int = 0  # 0: as many as the first step has made


class Toy:
    def shard_count(self, task):
        return task.config.shards or len(list((task.inputs["documents"].folder / "out").glob("*.txt")))

    def make_shard(self, task, shard):
        control = Path(task.paths["control"][0])
        write_text(control / f"{task.name}.pid-{shard}", str(os.getpid()))
        while (control / f"hold-{shard}").exists():
            time.sleep(0.05)
        if (control / f"fail-{shard}").exists():
            raise OSError(f"no space left for shard {shard}")
        write_text(task.folder / "out" / f"{shard}.txt", f"{task.config.word} {shard}\\n")
        return ShardResult(counts={"documents_in": 10, "documents_out": 9, "bytes_in": 1_000_000}, dropped={"toy.one": 1})

    def finish(self, task, results):
        return {"shards": len(results)}


WORK = Toy()


def graph(store, control, shards):
    paths = {"control": (str(control),)}
    first = Step("first", "toy", 1, ToyConfig(word="a", shards=shards), {}, "toy_chain:WORK", paths=paths)
    second = Step("second", "toy", 1, ToyConfig(word="b"), {"documents": "first"}, "toy_chain:WORK", paths=paths)
    return Graph(Path(store), [first, second])


if __name__ == "__main__":
    name, store, control, shards, tasks, config = sys.argv[1:]
    sys.modules["toy_chain"] = sys.modules["__main__"]
    import toy_chain
    toy_chain.ToyConfig.__module__ = "toy_chain"
    executor = executor_for(ExecutionConfig.model_validate_json(config), name, int(tasks))
    graph(store, control, int(shards)).run(["second"], executor, Silent())
'''


@dataclass(frozen=True)
class Chain:
    """Two steps, `second` after `first`, each of `shards` shards."""

    module: ModuleType
    store: Path
    control: Path
    shards: int = 4

    def graph(self) -> Graph:
        return self.module.graph(self.store, self.control, self.shards)

    def run(self, executor: Executor, names: Sequence[str] = ("second",)) -> None:
        self.graph().run(names, executor, Silent())

    def started(self, name: str, tasks: int, minutes: int = 10, cpus: int = 1) -> subprocess.Popen[str]:
        """The same run in a process of its own."""
        resources = {"default": Resources(memory_gib=0.25, minutes=minutes, cpus=cpus)}
        config = ExecutionConfig(resources=resources, slurm=SlurmConfig(poll_seconds=0.5))
        command = [sys.executable, "-m", "toy_chain", name, str(self.store), str(self.control)]
        return subprocess.Popen(
            [*command, str(self.shards), str(tasks), config.model_dump_json(exclude_unset=True)],
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": import_path(Path(str(self.module.__file__)).parent)},
        )

    def hold(self, shard: int) -> None:
        (self.control / f"hold-{shard}").touch()

    def fail(self, shard: int) -> None:
        (self.control / f"fail-{shard}").touch()

    def release(self) -> None:
        for path in [*self.control.glob("hold-*"), *self.control.glob("fail-*")]:
            path.unlink()

    def process_of(self, shard: int, step: str = "first") -> int:
        """The process that makes (or made) the shard, waited for."""
        path = self.control / f"{step}.pid-{shard}"
        await_(path.is_file, f"shard {shard} of {step} to start")
        return int(path.read_text())

    def kill(self, shard: int, step: str = "first") -> None:
        os.kill(self.process_of(shard, step), signal.SIGKILL)
        (self.control / f"{step}.pid-{shard}").unlink()

    def made(self, step: str = "first") -> set[int]:
        return {int(path.stem) for path in (self.graph().node(step).folder / SHARDS).glob("[0-9]*.json")}

    def outputs(self) -> dict[str, str]:
        return outputs(self.store)


def await_(happened: Callable[[], bool], what: str) -> None:
    """Wait for something that another process does."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not happened():
        assert time.monotonic() < end, f"waited {PATIENCE_SECONDS} s for {what}"
        time.sleep(0.1)


def import_path(lib: Path) -> str:
    return os.pathsep.join([str(lib), str(ROOT), os.environ.get("PYTHONPATH", "")])


def toy_chain(folder: Path, patch: pytest.MonkeyPatch) -> Chain:
    """The chain below a folder, its module on the import path of this process and of those it starts."""
    lib, control = folder / "lib", folder / "control"
    lib.mkdir()
    control.mkdir()
    (lib / "toy_chain.py").write_text(TOY)
    patch.syspath_prepend(str(lib))
    patch.setenv("PYTHONPATH", import_path(lib))
    sys.modules.pop("toy_chain", None)
    return Chain(importlib.import_module("toy_chain"), folder / "store", control)


@pytest.fixture
def chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Chain:
    return toy_chain(tmp_path, monkeypatch)


@pytest.fixture
def made_here(chain: Chain, tmp_path: Path) -> dict[str, str]:
    """Outputs of the same chain, made in this process."""
    alone = Chain(chain.module, tmp_path / "alone", tmp_path / "nothing-held")
    alone.control.mkdir()
    alone.run(executor_for(ExecutionConfig(), "local", 1))
    return alone.outputs()


@pytest.fixture(scope="session")
def mini_here(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Outputs of the data steps of `tests/mini.yaml`, made locally by one worker."""
    store = tmp_path_factory.mktemp("mini-here") / "store"
    command = [sys.executable, "-m", "pipeline.cli", "run", "tests/mini.yaml", "--workers", "1"]
    subprocess.run([*command, "--set", f"store={store}"], cwd=ROOT, check=True, capture_output=True)
    made = outputs(store)
    assert len(made) > 100
    return made
