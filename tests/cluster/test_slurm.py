"""On a real Slurm: same bytes, chains that need nobody to wait, resume of what is missing only, requeue, cancel.

Run by `.ci/slurm`, which starts a Slurm of one machine with the partitions `all` and `short`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.core.errors import InputError
from pipeline.executors import ExecutionConfig, Executor, Resources, executor_for
from pipeline.executors.slurm import attempts, jobs_in_queue, live_ids
from tests.cluster.conftest import Chain, await_, outputs

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(1200)]
CommandLine = Callable[..., subprocess.CompletedProcess[str]]
SMALL = Resources(memory_gib=0.25, minutes=10)


def slurm(tasks: int, resources: Resources = SMALL) -> Executor:
    return executor_for(ExecutionConfig(resources={"default": resources}), "slurm", tasks)


def nothing_lives(chain: Chain) -> bool:
    graph = chain.graph()
    return not live_ids([graph.job(node) for node in graph.nodes.values()])


def submissions(chain: Chain, step: str) -> int:
    graph = chain.graph()
    return len(attempts(graph.job(graph.node(step))))


def test_the_data_steps_of_the_curriculum_give_the_same_bytes(
    command_line: CommandLine, mini_here: dict[str, str], tmp_path: Path
) -> None:
    store = tmp_path / "store"
    small = "execution.resources.default={memory_gib: 0.5, minutes: 20}"
    arguments = ("--executor", "slurm", "--workers", "3", "--set", f"store={store}", "--set", small)
    done = command_line("run", "tests/mini.yaml", *arguments)
    assert done.returncode == 0, done.stderr
    assert outputs(store) == mini_here
    status = json.loads(command_line("status", "tests/mini.yaml", "--json", "--set", f"store={store}").stdout)
    by_step = {row["step"]: row for row in status}
    assert by_step["clean.web"]["state"] == "finished"
    assert by_step["clean.web"]["documents_per_second"] > 0


@pytest.mark.parametrize("tasks", [1, 3, 7])
def test_any_task_count_gives_the_same_bytes(chain: Chain, made_here: dict[str, str], tasks: int) -> None:
    chain.run(slurm(tasks))
    assert chain.outputs() == made_here
    chain.run(slurm(tasks))
    assert submissions(chain, "first") == submissions(chain, "second") == 1


def test_jobs_go_on_without_the_process_that_submitted_them(chain: Chain, made_here: dict[str, str]) -> None:
    chain.hold(3)
    process = chain.started("slurm", 4)
    chain.process_of(3)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    chain.release()
    await_(lambda: chain.graph().node("second").finished, "the chain to end by itself")
    assert chain.outputs() == made_here


def test_a_second_run_takes_over_live_jobs(chain: Chain, made_here: dict[str, str]) -> None:
    chain.hold(3)
    process = chain.started("slurm", 4)
    chain.process_of(3)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    again = chain.started("slurm", 2)
    chain.release()
    _, errors = again.communicate(timeout=120)
    assert again.returncode == 0, errors
    assert submissions(chain, "first") == submissions(chain, "second") == 1
    assert chain.outputs() == made_here


def test_a_failing_shard_ends_the_wait_and_the_chain_and_the_rerun_makes_only_what_is_missing(
    chain: Chain, made_here: dict[str, str]
) -> None:
    chain.fail(2)
    with pytest.raises(RuntimeError, match="step `first`, shard 2: OSError.*no space left for shard 2"):
        chain.run(slurm(4))
    await_(lambda: nothing_lives(chain), "what depended on the failure to be cancelled")
    kept = {path: path.stat().st_mtime_ns for path in (chain.graph().node("first").folder / "out").iterdir()}
    assert chain.made() == {0, 1, 3}
    chain.release()
    chain.run(slurm(4))
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert chain.outputs() == made_here


def test_a_killed_task_is_reported_with_its_log_and_the_rerun_finishes(chain: Chain, made_here: dict[str, str]) -> None:
    chain.hold(1)
    process = chain.started("slurm", 4)
    chain.kill(1)
    _, errors = process.communicate(timeout=180)
    assert process.returncode == 1
    assert "step `first` ended on the cluster without its record" in errors
    assert "Killed" in errors
    assert "slurm_logs" in errors
    chain.release()
    chain.run(slurm(4))
    assert chain.outputs() == made_here


def test_a_requeued_task_goes_on_where_it_was(chain: Chain, made_here: dict[str, str]) -> None:
    """One task makes shards 0 to 3 in turn; its node is lost, so to say, during the third."""
    chain.hold(2)
    process = chain.started("slurm", 1)
    chain.process_of(2)
    first = chain.graph().node("first").folder / "out" / "0.txt"
    before = first.stat().st_mtime_ns
    graph = chain.graph()
    (job,) = [one for one in jobs_in_queue([graph.job(graph.node("first"))]) if one.state == "RUNNING"]
    chain.release()
    chain.hold(3)
    subprocess.run(["scontrol", "requeue", job.id], check=True)
    chain.release()
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert first.stat().st_mtime_ns == before
    assert chain.outputs() == made_here


def test_ctrl_c_leaves_the_jobs_and_cancel_ends_them(command_line: CommandLine, tmp_path: Path) -> None:
    """Through the command line, on a step that waits behind one that cannot start: Slurm's own hold."""
    store = tmp_path / "store"
    setting = ("--set", f"store={store}", "--set", "execution.slurm.arguments={hold: ''}")
    command = ["-m", "pipeline.cli", "run", "tests/mini.yaml", "clean.notes", "--executor", "slurm", *setting]
    process = subprocess.Popen([sys.executable, *command], stderr=subprocess.PIPE, text=True)
    await_(lambda: len(list(store.glob("logs/clean.notes-*/slurm/0000/finish/launch_script.slurm"))) == 1, "submission")
    await_(lambda: _state(command_line, store)["state"] == "queued", "the queue to know")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the jobs go on: seodang status" in errors
    assert _state(command_line, store)["jobs"] == {"pending": 2}
    here = command_line("run", "tests/mini.yaml", "clean.notes", "--executor", "local", "--set", f"store={store}")
    assert here.returncode == 2
    assert "Slurm is at work on clean.notes" in here.stderr
    cancelled = command_line("cancel", "tests/mini.yaml", "clean.*", "--set", f"store={store}")
    assert cancelled.returncode == 0, cancelled.stderr
    assert "of clean.notes" in cancelled.stderr
    row = _state(command_line, store)
    assert row["state"] == "failed"
    assert "CANCELLED" in row["trouble"]["line"]
    again = command_line("cancel", "tests/mini.yaml", "--set", f"store={store}")
    assert "no jobs to cancel" in again.stderr


def _state(command_line: CommandLine, store: Path) -> dict[str, object]:
    done = command_line("status", "tests/mini.yaml", "--json", "--set", f"store={store}")
    assert done.returncode == 0, done.stderr
    return next(row for row in json.loads(done.stdout) if row["step"] == "clean.notes")


def test_what_slurm_refuses_is_said_with_its_own_words(chain: Chain) -> None:
    with pytest.raises(InputError, match="Slurm refused step `first`:.*invalid partition"):
        chain.run(slurm(2, Resources(partition="nowhere")))
    assert nothing_lives(chain)


def test_resources_reach_slurm(chain: Chain) -> None:
    chain.run(slurm(2, Resources(cpus=2, memory_gib=0.5, minutes=7, partition="short")), ["first"])
    graph = chain.graph()
    (script,) = graph.job(graph.node("first")).logs.glob("slurm/0000/make/launch_script.slurm")
    lines = script.read_text().splitlines()
    wanted = ("cpus-per-task=2", "mem-per-cpu=256M", "partition=short", "time=7", "array=0-1", "requeue")
    assert {f"#SBATCH --{option}" for option in wanted} <= set(lines)


def test_more_tasks_than_an_array_may_have_are_several_arrays(chain: Chain, made_here: dict[str, str]) -> None:
    config = ExecutionConfig.model_validate({"slurm": {"max_array_size": 3}, "resources": {"default": SMALL}})
    chain.run(executor_for(config, "slurm", 4))
    assert chain.outputs() == made_here
