"""kill -9 at any moment: the re-run finishes, and every output is byte for byte that of an uninterrupted run."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stores import outputs

ROOT = Path(__file__).resolve().parents[2]
MOMENTS = 12


def command(store: Path) -> list[str]:
    return [sys.executable, "-m", "pipeline.cli", "train", "tests/mini.yaml", "--set", f"store={store}"]


def started(store: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command(store),
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def written(store: Path) -> int:
    """Files of steps, whole or half-written. A re-run takes away some that a kill left, and writes them again."""
    return sum(len(files) for folder, _, files in os.walk(store) if Path(folder) != store)


def run_until(process: subprocess.Popen[bytes], store: Path, files: int) -> None:
    """Until there are so many files: a moment that is the same work on any machine."""
    while written(store) < files:
        assert process.poll() is None, (
            f"ended by itself with {written(store)} files of {files}: {process.communicate()}"
        )
        time.sleep(0.005)


@pytest.mark.kill
@pytest.mark.timeout(1500)
def test_killed_at_random_moments_the_rerun_gives_the_same_bytes(
    mini_store: Path, tmp_path: Path, record_property: pytest.RecordProperty
) -> None:
    uninterrupted = outputs(mini_store)
    seed = int(os.environ.get("SEODANG_KILL_SEED", "20260101"))
    record_property("seed", seed)
    moments = random.Random(seed)
    store = tmp_path / "killed"
    # Twelve kills over the first half of the files at most: however fast the machine, there is a run left to kill.
    most = written(mini_store) // (2 * MOMENTS)
    for _ in range(MOMENTS):
        process = started(store)
        run_until(process, store, written(store) + moments.randint(1, most))
        os.killpg(process.pid, signal.SIGKILL)
        _, errors = process.communicate()
        assert process.returncode == -signal.SIGKILL, errors.decode()
    process = started(store)
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()
    assert outputs(store) == uninterrupted


@pytest.mark.kill
@pytest.mark.timeout(600)
def test_ctrl_c_ends_with_130_and_the_rerun_finishes(mini_store: Path, tmp_path: Path) -> None:
    store = tmp_path / "interrupted"
    process = started(store)
    run_until(process, store, written(mini_store) // 4)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130, errors.decode()
    assert b"run the same command again" in errors
    again = subprocess.run(command(store), cwd=ROOT, capture_output=True, check=False)
    assert again.returncode == 0, again.stderr.decode()
    assert outputs(store) == outputs(mini_store)
