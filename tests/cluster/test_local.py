"""The local executor: killed workers, errors from workers, memory, resources, and what is left of a failure."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.core.config import Located
from pipeline.core.errors import ConfigError, InputError, UserError
from pipeline.executors import ExecutionConfig, LocalExecutor, Resources, executor_for
from pipeline.executors.config import check_patterns
from pipeline.executors.local import fitting
from pipeline.executors.slurm_limits import Partition, check_limits, minutes_of, read_partitions
from pipeline.executors.slurm_queue import Queued, queued, telling_line
from pipeline.executors.work import Failure, read_failures
from tests.cluster.conftest import Chain, await_

CommandLine = Callable[..., subprocess.CompletedProcess[str]]
SECOND_SHARD = 1


def test_a_killed_worker_is_noticed_and_its_shards_are_made_again(chain: Chain, made_here: dict[str, str]) -> None:
    chain.hold(SECOND_SHARD)

    def kill_once() -> None:
        chain.kill(SECOND_SHARD)
        chain.release()

    killer = threading.Thread(target=kill_once)
    killer.start()
    chain.run(LocalExecutor(2))
    killer.join()
    assert chain.outputs() == made_here


def test_a_worker_that_is_killed_every_time_ends_the_run_with_what_to_do(chain: Chain) -> None:
    chain.hold(SECOND_SHARD)
    stop = threading.Event()

    def kill_always() -> None:
        while not stop.is_set():
            path = chain.control / f"first.pid-{SECOND_SHARD}"
            if path.is_file() and path.read_text():
                process = int(path.read_text())
                path.unlink()
                if process != os.getpid():
                    os.kill(process, signal.SIGKILL)
            stop.wait(0.05)

    killer = threading.Thread(target=kill_always)
    killer.start()
    with pytest.raises(
        InputError, match=r"step `first`: the worker that made shard \d or a later one was killed"
    ) as caught:
        chain.run(LocalExecutor(2))
    stop.set()
    killer.join()
    assert "memory_gib" in caught.value.fix
    chain.release()
    chain.run(LocalExecutor(2))
    assert chain.made("second") == {0, 1, 2, 3}


def test_the_error_of_a_shard_reaches_the_caller_and_stays_noted_until_it_is_made(chain: Chain) -> None:
    chain.fail(2)
    with pytest.raises(RuntimeError, match="step `first`, shard 2: OSError.*no space left for shard 2"):
        chain.run(LocalExecutor(2))
    logs = chain.graph().job(chain.graph().node("first")).logs
    failures = read_failures(logs)
    assert list(failures) == ["00002"]
    assert failures["00002"].what == "OSError('no space left for shard 2')"
    assert "make_shard" in failures["00002"].traceback
    chain.release()
    chain.run(LocalExecutor(2))
    assert read_failures(logs) == {}


def test_workers_end_with_the_process_that_started_them(chain: Chain) -> None:
    chain.hold(0)
    process = chain.started("local", 2)
    worker = chain.process_of(0)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    await_(lambda: not Path(f"/proc/{worker}").exists() or _ended(worker), "the orphaned worker to end")
    assert 0 not in chain.made()


def _ended(process: int) -> bool:
    """Whether it is a zombie: nobody collects the children of a killed process here."""
    return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"


def test_a_failure_becomes_the_error_it_was() -> None:
    told = Failure("no file", "c.yaml:3", "give one", "node7", "").error()
    assert isinstance(told, UserError)
    assert (told.what, told.where, told.fix) == ("no file", "c.yaml:3", "give one")
    assert isinstance(Failure("OSError()", "step `a`, shard 1", "", "node7", "Traceback…").error(), RuntimeError)


def test_memory_bounds_the_workers() -> None:
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    assert fitting(memory_gib * 10) == 1
    assert fitting(0.01) >= fitting(0.02) > 1


def test_resources_are_merged_field_by_field_in_the_files_order() -> None:
    config = ExecutionConfig(
        resources={
            "default": Resources(memory_gib=2.0, partition="cpu"),
            "clean.*": Resources(memory_gib=8.0, cpus=2),
            "clean.web": Resources(minutes=600),
        }
    )
    assert config.resources_of("split") == Resources(memory_gib=2.0, partition="cpu")
    assert config.resources_of("clean.web") == Resources(memory_gib=8.0, cpus=2, minutes=600, partition="cpu")


def test_a_pattern_that_names_no_step_is_a_mistake() -> None:
    config = ExecutionConfig(resources={"default": Resources(), "clean.wbe": Resources()})
    located = Located({}, {("execution", "resources", "clean.wbe"): "c.yaml:9"})
    with pytest.raises(ConfigError, match="unknown step `clean.wbe`") as caught:
        check_patterns(config, ["clean.web", "split"], located)
    assert caught.value.where == "c.yaml:9"
    assert "did you mean `clean.web`?" in caught.value.fix


def test_an_unknown_executor_names_the_known() -> None:
    with pytest.raises(ConfigError, match="unknown executor `slrm`") as caught:
        executor_for(ExecutionConfig(), "slrm", 0)
    assert "did you mean `slurm`?" in caught.value.fix


def test_without_slurm_the_error_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="there is no Slurm here: no command `squeue`"):
        queued(["any"])


@pytest.mark.parametrize(
    ("limit", "minutes"),
    [
        ("1:00:00", 60),
        ("30:00", 30),
        ("2-12:30:00", 3630),
        ("1-00", 1440),
        ("infinite", float("inf")),
        ("n/a", float("inf")),
    ],
)
def test_slurms_time_limits(limit: str, minutes: float) -> None:
    assert minutes_of(limit) == minutes


def test_partitions_with_several_kinds_of_nodes() -> None:
    listing = "cpu*|1-00:00:00|64|257000\ncpu*|1-00:00:00|128|515000\nbig|infinite|96|2000000+\n"
    assert read_partitions(listing) == [
        Partition("cpu", True, 1440, ((64, 257000), (128, 515000))),
        Partition("big", False, float("inf"), ((96, 2000000),)),
    ]


CPU = Partition("cpu", True, 60, ((64, 4096),))
HIDDEN_FROM_US: tuple[Partition, ...] = ()
ALLOWED = [
    ({"resources": {"default": {"minutes": 60, "memory_gib": 4.0, "cpus": 64}}}, (CPU,)),
    ({"resources": {"default": {"minutes": 61}}, "slurm": {"qos": "long"}}, (CPU,)),
    ({"resources": {"default": {"partition": "any"}}}, HIDDEN_FROM_US),
    (
        {"resources": {"default": {"partition": "wrong", "minutes": 60}}, "slurm": {"arguments": {"partition": "cpu"}}},
        (CPU,),
    ),
    (
        {"resources": {"default": {"partition": "cpu,big", "minutes": 90}}},
        (CPU, Partition("big", False, 120, ((1, 9999),))),
    ),
]


@pytest.mark.parametrize(("config", "known"), ALLOWED)
def test_what_a_partition_gives_is_not_refused(config: dict[str, object], known: tuple[Partition, ...]) -> None:
    check_limits(["split"], ExecutionConfig.model_validate({"slurm": {}, **config}), known, Located({}))


def test_ended_jobs_count_for_their_own_submission_only() -> None:
    def ended(comment: str, state: str = "FAILED") -> Queued:
        return Queued("17_3", "17", "clean", state, "None", "0:10", comment)

    assert ended("attempt 0001").is_of("0001")
    assert not ended("attempt 0000").is_of("0001")
    assert ended("attempt 0000", "RUNNING").is_of("0001")  # taken over
    assert ended("(null)").is_of("0001")
    assert ended("the site's own comment").is_of("0001")


def test_where_a_resource_was_asked_for() -> None:
    config = ExecutionConfig(
        resources={"clean.*": Resources(cpus=2), "clean.web": Resources(minutes=9), "default": Resources(cpus=1)}
    )
    assert config.source_of("clean.web", "cpus") == ("clean.*", "cpus")
    assert config.source_of("clean.web", "minutes") == ("clean.web", "minutes")
    assert config.source_of("split", "cpus") == ("default", "cpus")
    assert config.source_of("split", "partition") == ()


LOGS = [
    ("Starting\n+ srun x\nslurmstepd: error: *** JOB 9 ON n1 CANCELLED AT 2026 DUE TO TIME LIMIT ***\n", "slurmstepd: error: *** JOB 9 ON n1 CANCELLED AT 2026 DUE TO TIME LIMIT ***"),
    ("slurmstepd: error: *** STEP 9.0 ON n1 CANCELLED AT 2026 DUE TO TIME LIMIT ***\nsrun: error: n1: task 0: Terminated\n", "slurmstepd: error: *** STEP 9.0 ON n1 CANCELLED AT 2026 DUE TO TIME LIMIT ***"),
    ("0: INFO fine\n0: ValueError: no tokens\n0: bye\n", "ValueError: no tokens"),
    ("/bin/sh: line 9: launch_pickled_pipeline: command not found\n", "/bin/sh: line 9: launch_pickled_pipeline: command not found"),
    ("one\ntwo\n", "two"),
    ("", ""),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line"), LOGS)
def test_the_telling_line_of_a_log(tmp_path: Path, text: str, line: str) -> None:
    (tmp_path / "log").write_text(text)
    assert telling_line([tmp_path / "log"])[1] == line


def test_a_log_that_names_an_error_goes_before_one_that_does_not(tmp_path: Path) -> None:
    (tmp_path / "quiet").write_text("0: all is well\n0:\n")
    (tmp_path / "loud").write_text("srun: error: node7: task 0: Killed\n")
    logs = [tmp_path / "quiet", tmp_path / "loud"]
    assert telling_line(logs) == (tmp_path / "loud", "srun: error: node7: task 0: Killed")
    assert telling_line(logs[:1]) == (tmp_path / "quiet", "all is well")


def test_the_base_install_needs_no_ray() -> None:
    code = "import sys; sys.modules['ray'] = None; import pipeline.cli, pipeline.executors.ray, pipeline.graph"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_nothing_to_cancel_asks_nobody(command_line: CommandLine, tmp_path: Path) -> None:
    done = command_line("cancel", "tests/mini.yaml", "--set", f"store={tmp_path}")
    assert (done.returncode, done.stderr) == (0, "no jobs to cancel\n")


def test_a_queue_that_cannot_be_asked_is_no_empty_queue(
    command_line: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that a cluster works in, looked at from a machine without Slurm."""
    (tmp_path / "logs" / "clean.web-12345678" / "slurm" / "0000").mkdir(parents=True)
    monkeypatch.setenv("PATH", str(tmp_path))
    cancelled = command_line("cancel", "tests/mini.yaml", "--set", f"store={tmp_path}")
    assert cancelled.returncode == 2
    assert "there is no Slurm here: no command `squeue`" in cancelled.stderr
    shown = command_line("status", "tests/mini.yaml", "--set", f"store={tmp_path}")
    assert shown.returncode == 0
    assert "the queue is not known: there is no Slurm here" in shown.stderr
