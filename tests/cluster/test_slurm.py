"""On a real Slurm: same bytes, chains that need nobody to wait, resume of what is missing only, requeue, cancel.

Run by `.ci/slurm`, which starts a Slurm of one machine with the partitions `all` and `short`; with SLURM_NODES=2 it has
two nodes.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.commands.status import status
from pipeline.core.config import Located
from pipeline.core.errors import ConfigError, InputError
from pipeline.executors import ExecutionConfig, Executor, Resources, executor_for
from pipeline.executors.slurm import attempts, jobs_in_queue, jobs_in_store, jobs_of, live_ids
from pipeline.executors.work import Job
from stores import outputs
from tests.cluster.conftest import TASK_COUNTS, Chain, await_, toy_chain

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(1200)]
CommandLine = Callable[..., subprocess.CompletedProcess[str]]
SMALL = Resources(memory_gib=0.25, minutes=10)


def slurm(tasks: int, resources: Resources = SMALL, **site: object) -> Executor:
    config = {"resources": {"default": resources}, "slurm": {"poll_seconds": 0.5, **site}}
    return executor_for(ExecutionConfig.model_validate(config), "slurm", tasks)


def look(chain: Chain, step: str) -> dict[str, Any]:
    """The step's line of `seodang status`."""
    graph = chain.graph()
    node = graph.node(step)
    return status(graph, node, jobs_of(graph.job(node), jobs_in_store(chain.store)))


def nothing_lives(chain: Chain) -> bool:
    graph = chain.graph()
    return not live_ids([graph.job(node) for node in graph.nodes.values()])


def submissions(chain: Chain, step: str) -> int:
    graph = chain.graph()
    return len(attempts(graph.job(graph.node(step))))


@pytest.fixture(scope="module", autouse=True)
def overtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Chain, subprocess.Popen[str]]]:
    """A run whose task stays at its third shard for more than its minute, beside the other tests."""
    with pytest.MonkeyPatch.context() as patch:
        chain = toy_chain(tmp_path_factory.mktemp("overtime"), patch)
        chain.hold(2)
        process = chain.started("slurm", 1, minutes=1)
    yield chain, process
    process.kill()
    process.wait()


def test_the_data_steps_of_the_curriculum_give_the_same_bytes(
    command_line: CommandLine, mini_here: dict[str, str], tmp_path: Path
) -> None:
    store = tmp_path / "store"
    setting = ("--set", f"store={store}", "--set", TASK_COUNTS)
    done = command_line("run", "tests/mini.yaml", "--executor", "slurm", *setting)
    assert done.returncode == 0, done.stderr
    assert outputs(store) == mini_here
    status = json.loads(command_line("status", "tests/mini.yaml", "--json", "--set", f"store={store}").stdout)
    by_step = {row["step"]: row for row in status}
    assert by_step["clean.web"]["state"] == "finished"
    assert by_step["clean.web"]["documents_per_second"] > 0
    assert by_step["clean.web"]["megabytes_per_second"] > 0
    assert "no jobs to cancel" in command_line("cancel", "tests/mini.yaml", "--set", f"store={store}").stderr


@pytest.mark.parametrize("tasks", [1, 3, 7])
def test_any_task_count_gives_the_same_bytes(chain: Chain, made_here: dict[str, str], tasks: int) -> None:
    chain.run(slurm(tasks))
    assert chain.outputs() == made_here
    chain.run(slurm(tasks))
    assert submissions(chain, "first") == submissions(chain, "second") == 1


def test_tasks_on_several_nodes_give_the_same_bytes_also_when_one_is_lost(
    chain: Chain, made_here: dict[str, str]
) -> None:
    nodes = set(_said("sinfo", "--noheader", "--Node", "--partition=all", "--format=%N").split())
    if len(nodes) < 2:
        pytest.skip("one node: `SLURM_NODES=2 .ci/slurm` starts two")
    for shard in range(chain.shards):
        chain.hold(shard)
    process = chain.started("slurm", 4, cpus=2)  # a node has four
    job = chain.graph().job(chain.graph().node("first"))
    await_(lambda: set(_places(job)) == nodes, "tasks on every node")
    lost = max(nodes)
    _said("scontrol", "update", f"NodeName={lost}", "State=DOWN", "Reason=lost")
    try:
        await_(lambda: lost not in _places(job), "the lost node's tasks to leave it")
        chain.release()
        _, errors = process.communicate(timeout=180)
    finally:
        back(lost)
    assert process.returncode == 0, errors
    assert chain.outputs() == made_here


def _places(job: Job) -> list[str]:
    """The nodes of a job's running tasks."""
    arrays = [one for own in live_ids([job]).values() for one in own]
    if not arrays:
        return []
    return _said(
        "squeue", "--noheader", "--array", "--states=running", f"--jobs={','.join(arrays)}", "--format=%N"
    ).split()


def test_jobs_go_on_without_the_process_that_submitted_them(chain: Chain, made_here: dict[str, str]) -> None:
    chain.hold(3)
    process = chain.started("slurm", 4)
    chain.process_of(3)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    await_(lambda: chain.made() == {0, 1, 2}, "the other shards")
    row = look(chain, "first")
    assert (row["state"], row["shards"], row["in"], row["dropped"], row["out"]) == ("running", "3 of 4", 30, 3, 27)
    assert row["documents_per_second"] > 0
    assert row["megabytes_per_second"] == pytest.approx(row["documents_per_second"] / 10, rel=0.05)
    await_(lambda: look(chain, "first")["jobs"] == {"completed": 3, "pending": 1, "running": 1}, "their jobs to end")
    assert row["trouble"] == {}
    assert re.fullmatch(r"\d+:\d\d", row["running_for"])
    waiting = look(chain, "second")
    assert (waiting["state"], waiting["waiting_for"]) == ("queued", ["Dependency"])
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
    row = look(chain, "first")
    assert (row["state"], row["shards"]) == ("failed", "3 of 4")
    assert row["trouble"]["line"] == "step `first`, shard 2: OSError('no space left for shard 2')"
    assert "make_shard" in Path(row["trouble"]["log"]).read_text()
    assert (look(chain, "second")["state"], look(chain, "second")["trouble"]) == ("cancelled", {})
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


def requeue(job: str) -> None:
    subprocess.run(["scontrol", "requeue", job], check=True)


def lose_the_node(job: str) -> None:
    """To Slurm the node is lost, with what ran on it; then it is back."""
    (node,) = _said("squeue", "--noheader", f"--jobs={job}", "--format=%N").split()
    _said("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=lost")
    back(node)


def back(node: str) -> None:
    """Use a node that was set down again; refused, and not needed, when its daemon has reported it back meanwhile."""
    subprocess.run(["scontrol", "update", f"NodeName={node}", "State=RESUME"], check=False, capture_output=True)
    state = ("sinfo", "--noheader", "--partition=all", f"--nodes={node}", "--format=%T")
    await_(lambda: _said(*state).strip() in ("idle", "mixed", "allocated", "completing"), f"{node} to be back")


def _said(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("undone_by", [requeue, lose_the_node])
def test_a_requeued_task_goes_on_where_it_was(
    chain: Chain, made_here: dict[str, str], undone_by: Callable[[str], None]
) -> None:
    """One task makes shards 0 to 3 in turn, and is undone during the third."""
    chain.hold(2)
    process = chain.started("slurm", 1)
    chain.process_of(2)
    first = chain.graph().node("first").folder / "out" / "0.txt"
    before = first.stat().st_mtime_ns
    graph = chain.graph()
    (job,) = [one for one in jobs_in_queue([graph.job(graph.node("first"))]) if one.state == "RUNNING"]
    undone_by(job.id)
    chain.release()
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert first.stat().st_mtime_ns == before
    assert submissions(chain, "first") == 1
    assert chain.outputs() == made_here


def test_a_job_that_somebody_cancels_is_reported(chain: Chain, made_here: dict[str, str]) -> None:
    chain.hold(0)
    process = chain.started("slurm", 1)
    chain.process_of(0)
    graph = chain.graph()
    (job,) = [one for one in jobs_in_queue([graph.job(graph.node("first"))]) if one.state == "RUNNING"]
    _said("scancel", job.id)
    _, errors = process.communicate(timeout=180)
    assert process.returncode == 1
    assert "step `first` ended on the cluster without its record (cancelled)" in errors
    chain.release()
    chain.run(slurm(1))
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
    assert _state(command_line, store)["jobs"] == {"pending": 1}
    here = command_line("run", "tests/mini.yaml", "clean.notes", "--executor", "local", "--set", f"store={store}")
    assert here.returncode == 2
    assert "Slurm is at work on clean.notes" in here.stderr
    edited = ("--set", f"store={store}", "--set", "sources.notes.read.shard_bytes=12345")
    stranger = json.loads(command_line("status", "tests/mini.yaml", "--json", *edited).stdout)[-1]
    assert (stranger["state"], stranger["jobs"]) == ("not in the file", {"pending": 1})
    other = command_line("cancel", "tests/mini.yaml", "clean.*", *edited)
    assert "no jobs to cancel" in other.stderr
    cancelled = command_line("cancel", "tests/mini.yaml", "clean.*", "--set", f"store={store}")
    assert cancelled.returncode == 0, cancelled.stderr
    assert "of clean.notes" in cancelled.stderr
    assert _state(command_line, store)["state"] == "cancelled"
    again = command_line("cancel", "tests/mini.yaml", "--set", f"store={store}")
    assert "no jobs to cancel" in again.stderr


def _state(command_line: CommandLine, store: Path) -> dict[str, object]:
    done = command_line("status", "tests/mini.yaml", "--json", "--set", f"store={store}")
    assert done.returncode == 0, done.stderr
    return next(row for row in json.loads(done.stdout) if row["step"] == "clean.notes")


def test_what_slurm_refuses_is_said_with_its_own_words(chain: Chain) -> None:
    with pytest.raises(InputError, match="Slurm refused step `first`:.*Invalid feature specification"):
        chain.run(slurm(2, arguments={"constraint": "nowhere"}))
    assert nothing_lives(chain)


LIMITS = [
    (Resources(partition="shrot"), "unknown partition `shrot`", "did you mean `short`? known: all, short"),
    (Resources(partition="short", minutes=61), "asks for 61 minutes, partition `short` gives 60", "`minutes: 60`"),
    (Resources(memory_gib=1e6), "asks for 1e+06 GiB, the largest node of partition `all` has", "at most"),
    (Resources(cpus=1000), "asks for 1000 CPUs, the largest node of partition `all` has", "at most"),
]


@pytest.mark.parametrize(("resources", "what", "fix"), LIMITS)
def test_what_no_partition_gives_is_refused_with_the_line(
    chain: Chain, resources: Resources, what: str, fix: str
) -> None:
    config = ExecutionConfig(resources={"fir*": resources})
    located = Located({}, {("execution", "resources", "fir*"): "c.yaml:7"})
    with pytest.raises(ConfigError) as caught:
        chain.run(executor_for(config, "slurm", 1, located))
    assert caught.value.where == "c.yaml:7"
    assert what in caught.value.what
    assert fix in caught.value.fix
    assert nothing_lives(chain)
    assert submissions(chain, "first") == 0


def test_resources_reach_slurm(chain: Chain) -> None:
    chain.run(slurm(2, Resources(cpus=2, memory_gib=0.5, minutes=7, partition="short")), ["first"])
    graph = chain.graph()
    (script,) = graph.job(graph.node("first")).logs.glob("slurm/0000/make/launch_script.slurm")
    lines = script.read_text().splitlines()
    wanted = ("cpus-per-task=2", "mem-per-cpu=256M", "partition=short", "time=7", "array=0-1", "requeue")
    assert {f"#SBATCH --{option}" for option in wanted} <= set(lines)


def test_more_tasks_than_an_array_may_have_are_several_arrays(chain: Chain, made_here: dict[str, str]) -> None:
    chain.run(slurm(4, max_array_size=3))
    assert chain.outputs() == made_here


def test_a_task_over_its_time_is_reported_with_what_to_do(
    overtime: tuple[Chain, subprocess.Popen[str]], made_here: dict[str, str]
) -> None:
    """Last, for Slurm looks at limits every 30 s."""
    chain, process = overtime
    _, errors = process.communicate(timeout=180)
    assert process.returncode == 1
    assert re.search(r"step `first` ended on the cluster without its record \(timeout\): .*DUE TO TIME LIMIT", errors)
    assert "more `minutes`" in errors
    assert chain.made() == {0, 1}
    chain.release()
    again = chain.started("slurm", 1)  # this module is another one here by now
    _, errors = again.communicate(timeout=120)
    assert again.returncode == 0, errors
    assert chain.outputs() == made_here
