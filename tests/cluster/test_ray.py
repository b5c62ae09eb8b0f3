"""On a real Ray cluster of this machine: same bytes, and workers killed in flight."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.core.config import Located
from pipeline.core.errors import InputError, UserError
from pipeline.executors import ExecutionConfig, Executor, Resources, executor_for
from stores import outputs
from tests.cluster.conftest import TASK_COUNTS, Chain

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]
CommandLine = Callable[..., subprocess.CompletedProcess[str]]
SMALL = Resources(memory_gib=0.25)


@pytest.fixture
def on_ray() -> Iterator[Callable[[int], Executor]]:
    """Executors on a cluster of this test: workers take the import path from when it starts."""
    import ray

    yield lambda tasks: executor_for(ExecutionConfig(resources={"default": SMALL}), "ray", tasks)
    ray.shutdown()


def test_the_data_steps_of_the_curriculum_give_the_same_bytes(
    command_line: CommandLine, mini_here: dict[str, str], tmp_path: Path
) -> None:
    arguments = ("--executor", "ray", "--set", f"store={tmp_path}", "--set", TASK_COUNTS)
    done = command_line("run", "tests/mini.yaml", *arguments)
    assert done.returncode == 0, done.stderr
    assert outputs(tmp_path) == mini_here


@pytest.mark.parametrize("tasks", [1, 3])
def test_any_task_count_gives_the_same_bytes(
    chain: Chain, made_here: dict[str, str], on_ray: Callable[[int], Executor], tasks: int
) -> None:
    chain.run(on_ray(tasks))
    assert chain.outputs() == made_here


def test_a_worker_killed_in_flight_is_replaced(
    chain: Chain, made_here: dict[str, str], on_ray: Callable[[int], Executor]
) -> None:
    """The one task has made shard 0 and holds shard 1 when its process dies."""
    chain.hold(1)
    kept: list[int] = []

    def kill() -> None:
        chain.process_of(1)
        kept.append((chain.graph().node("first").folder / "out" / "0.txt").stat().st_mtime_ns)
        chain.kill(1)
        chain.release()

    killer = threading.Thread(target=kill)
    killer.start()
    chain.run(on_ray(1))
    killer.join()
    assert [(chain.graph().node("first").folder / "out" / "0.txt").stat().st_mtime_ns] == kept
    assert chain.outputs() == made_here


def test_the_error_of_a_shard_reaches_the_caller_and_the_rerun_finishes(
    chain: Chain, made_here: dict[str, str], on_ray: Callable[[int], Executor]
) -> None:
    chain.fail(2)
    with pytest.raises(RuntimeError, match="step `first`, shard 2: OSError.*no space left for shard 2"):
        chain.run(on_ray(2))
    chain.release()
    chain.run(on_ray(2))
    assert chain.outputs() == made_here


def test_the_waiting_process_may_be_killed(
    chain: Chain, made_here: dict[str, str], on_ray: Callable[[int], Executor]
) -> None:
    chain.hold(3)
    process = chain.started("ray", 1)
    chain.process_of(3)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    chain.release()
    chain.run(on_ray(2))
    assert chain.outputs() == made_here


def test_a_task_over_its_time_is_ended_and_the_rerun_makes_only_what_is_missing(
    chain: Chain, made_here: dict[str, str], on_ray: Callable[[int], Executor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A minute of ten seconds, which a slow machine needs to start a worker; the one task has made shards 0 and 1 when its time is over."""
    chain.hold(2)
    monkeypatch.setattr("pipeline.executors.ray.MINUTE_SECONDS", 10.0)
    resources = {"default": Resources(memory_gib=0.25, minutes=3)}
    brief = executor_for(ExecutionConfig(resources=resources), "ray", 1)
    with pytest.raises(UserError, match="step `first`: task-00000 was ended after 3 minutes, its time limit") as caught:
        chain.run(brief)
    assert "more `minutes`" in caught.value.fix
    assert chain.made() == {0, 1}
    chain.release()
    chain.run(on_ray(1))
    assert chain.outputs() == made_here


def test_asking_for_more_than_the_cluster_has_is_refused(chain: Chain, on_ray: Callable[[int], Executor]) -> None:
    del on_ray
    greedy = ExecutionConfig(resources={"default": Resources(cpus=10_000)})
    located = Located({}, {("execution", "resources"): "c.yaml:9"})
    with pytest.raises(InputError, match="c.yaml:9: .*asks for 10000 CPUs.*the Ray cluster has"):
        chain.run(executor_for(greedy, "ray", 1, located))


def test_no_cluster_at_the_address(chain: Chain) -> None:
    config = ExecutionConfig.model_validate({"ray": {"address": "127.0.0.1:1"}})
    with pytest.raises(InputError, match="no Ray cluster at `127.0.0.1:1`"):
        chain.run(executor_for(config, "ray", 1))
