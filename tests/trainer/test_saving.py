"""Saving beside training: the loop waits for the copy only, one save at a time, and a kill leaves nothing whole-looking."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hand_plan import lines, same_end, train
from pipeline.core.files import PARTIAL
from pipeline.core.plans import Plan
from trainer import saving
from trainer.checkpoint import CheckpointInfo, checkpoints, load, read_info, remove_partial
from trainer.config import TrainExecution
from trainer.parallel.ranks import ALONE
from trainer.saving import CheckpointSaver, SaveError
from trainer.tensor_hash import PartHash, hash_part, hash_tensor, join_hashes

ROOT = Path(__file__).resolve().parents[2]
INFO = CheckpointInfo(
    phase="p", step=1, position=4, tokens=9, plan="f", seed=0, model={}, vocabulary_size=4, tokenizer="t", parent="",
)  # fmt: skip
NO_TREE = {"pairs": []}


class Gate:
    """Stands before DCP's writing; `open` lets it through."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open, self.entered = threading.Event(), 0
        write = saving._Writer.write_data

        def held(writer, plan, planner):
            self.entered += 1
            assert self.open.wait(60)
            return write(writer, plan, planner)

        monkeypatch.setattr(saving._Writer, "write_data", held)


def state(value: float) -> dict[str, torch.Tensor]:
    return {"model.w": torch.full((6, 3), value), "rng.cpu": torch.get_rng_state()}


def test_training_goes_on_and_cannot_change_what_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    with CheckpointSaver(tmp_path, ALONE, keep=2) as saver:
        tensors = state(1.0)
        place = saver.start(INFO, tensors, NO_TREE)  # returns while nothing is written yet
        tensors["model.w"].fill_(2.0)
        saver.check()
        assert not place.exists()
        gate.open.set()
        saver.wait()
        assert load(place).model["w"].unique().tolist() == [1.0]


def test_one_save_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    with CheckpointSaver(tmp_path, ALONE, keep=2) as saver:
        first = saver.start(INFO, state(1.0), NO_TREE)
        waits, wait = threading.Event(), saver.wait

        def seen() -> None:
            waits.set()
            wait()

        monkeypatch.setattr(saver, "wait", seen)
        second = threading.Thread(target=saver.start, args=(replace(INFO, step=2), state(2.0), NO_TREE))
        second.start()
        assert waits.wait(60)  # the second is at the place where it waits for the first, which the gate holds
        assert gate.entered <= 1
        assert not list((tmp_path / "checkpoints").glob("*step-00000002"))
        gate.open.set()
        second.join()
        assert first.is_dir()
    assert [read_info(place).step for place in checkpoints(tmp_path)] == [1, 2]


def leave(saver: CheckpointSaver) -> None:
    with saver:
        pass


def check(saver: CheckpointSaver) -> None:
    while True:
        saver.check()


ASKED = {
    "check": check,
    "wait": CheckpointSaver.wait,
    "start": lambda saver: saver.start(replace(INFO, step=2), state(2.0), NO_TREE),
    "leave": leave,
}


@pytest.mark.parametrize("how", list(ASKED))
def test_an_error_of_the_background_surfaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    def full(writer, plan, planner):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(saving._Writer, "write_data", full)
    saver = CheckpointSaver(tmp_path, ALONE, keep=1)
    saver.start(INFO, state(1.0), NO_TREE)
    with pytest.raises(SaveError, match=r"after step 1 was not written: .*No space left"):
        ASKED[how](saver)
    assert checkpoints(tmp_path) == []


def test_a_phase_whose_disk_is_full_stops_and_goes_on_later(
    plan: Plan, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = saving._Writer.write_data

    def full(writer, plan, planner):
        if "step-00000004" in str(writer.path):
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(writer, plan, planner)

    with monkeypatch.context() as patch:
        patch.setattr(saving._Writer, "write_data", full)
        with pytest.raises(SaveError, match="after step 4"):
            train(plan, tmp_path)
    assert [read_info(place).step for place in checkpoints(tmp_path)] == [2]
    train(plan, tmp_path)
    same_end(tmp_path, whole)


def save_steps(folder: Path, *steps: int) -> None:
    """Save after each of `steps` and wait; what is warned of in the background is warned of within this call."""
    with CheckpointSaver(folder, ALONE, keep=1) as saver:
        for step in steps:
            saver.start(replace(INFO, step=step), state(float(step)), NO_TREE)


def test_a_checkpoint_half_removed_has_no_final_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remove = shutil.rmtree

    def stopped(path: Path, ignore_errors: bool = False) -> None:
        if ignore_errors:
            return remove(path, ignore_errors=True)
        next(path.glob("*.distcp")).unlink()
        raise OSError(errno.EBUSY, "Device or resource busy", str(path))

    monkeypatch.setattr(saving.shutil, "rmtree", stopped)
    with pytest.warns(UserWarning, match=r"not removed: .*busy.*remove .*step-00000001") as told:
        save_steps(tmp_path, 1, 2)
    # torch warns too, of saving without processes.
    assert len([one for one in told if "not removed" in str(one.message)]) == 1
    assert [load(place).info.step for place in checkpoints(tmp_path)] == [2]
    monkeypatch.undo()
    remove_partial(tmp_path)
    assert [place.name for place in (tmp_path / "checkpoints").iterdir()] == ["step-00000002"]


def test_an_old_checkpoint_that_cannot_be_removed_ends_no_run(
    plan: Plan, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def refused(path: Path, target: Path) -> Path:
        if path.name == "step-00000002":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.warns(UserWarning, match=r"Permission denied: .*step-00000002'. Training goes on; remove "):
        train(plan, tmp_path, execution=TrainExecution(checkpoint_every_steps=2, keep_checkpoints=1))
    assert [read_info(place).step for place in checkpoints(tmp_path)] == [2, 6]
    assert lines(tmp_path) == lines(whole)


def test_what_is_left_of_a_save_and_cannot_be_removed_ends_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    left = tmp_path / "checkpoints" / f"{PARTIAL}step-00000002"
    left.mkdir(parents=True)
    monkeypatch.setattr(shutil, "rmtree", refused)
    with pytest.warns(UserWarning, match=r"Permission denied: .* remove .*step-00000002 by hand"):
        remove_partial(tmp_path)


def test_an_old_checkpoint_that_cannot_be_read_ends_no_run(tmp_path: Path) -> None:
    save_steps(tmp_path, 1)
    (tmp_path / "checkpoints" / "step-00000001" / "checkpoint.json").write_text('{"version": 2, "phase"')
    with pytest.warns(UserWarning, match=r"not removed: .*step-00000001/checkpoint.json.*not JSON"):
        save_steps(tmp_path, 2)
    assert (tmp_path / "checkpoints" / "step-00000002").is_dir()


KILLED = """
import os, signal, sys, threading
from pathlib import Path
import torch
torch.set_num_threads(1)
from hand_plan import train
from pipeline.core.plans import read_plan
from trainer import saving
store, folder, moment = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
def steps(line, done, steps):
    if done == 3 and moment == "while it is written":
        die()
if moment == "while it is written":  # the background never gets to write; training goes on to step 3
    saving._Writer.write_data = lambda *_: threading.Event().wait()
elif moment == "before checkpoint.json":
    saving.write_json = die
elif moment == "before the last name":
    Path.rename = die
train(read_plan(store, store / "mix.p"), folder, on_step=steps)
"""


@pytest.mark.parametrize("moment", ["while it is written", "before checkpoint.json", "before the last name"])
def test_killed_in_the_background_leaves_nothing_that_looks_finished(
    plan: Plan, whole: Path, tmp_path: Path, moment: str
) -> None:
    environment = {
        **os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests' / 'helpers'}",
    }  # fmt: skip
    command = [sys.executable, "-c", KILLED, str(plan.store), str(tmp_path), moment]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    assert list((tmp_path / "checkpoints").glob(f"{PARTIAL}*"))
    assert checkpoints(tmp_path) == []
    assert 2 <= len(lines(tmp_path)) <= 4  # the step before the next save may be made
    train(plan, tmp_path)
    same_end(tmp_path, whole)
    assert not list(tmp_path.rglob(f"{PARTIAL}*"))


def part_of(tensor: torch.Tensor, first: int, last: int) -> PartHash:
    """What a process with the rows [first, last) of `tensor` hashes."""
    own = hash_part(tensor[first:last])
    digest = sum(hash_part(tensor[: row + 1]).digest - hash_part(tensor[:row]).digest for row in range(first, last))
    return PartHash(f"{tensor.dtype} {tuple(tensor.shape)}", first, own.rows, digest % 2**128)


@given(
    rows=st.integers(1, 9),
    width=st.integers(1, 3),
    cuts=st.lists(st.integers(0, 9), max_size=4),
    seed=st.integers(0, 99),
)
def test_hashes_do_not_depend_on_who_has_which_rows(rows: int, width: int, cuts: list[int], seed: int) -> None:
    tensor = torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)).bfloat16()
    edges = sorted({0, rows, *(cut for cut in cuts if cut < rows)})
    processes = [{"w": part_of(tensor, *edge)} for edge in pairwise(edges)]
    assert join_hashes([*processes, processes[0]]) == {"w": hash_tensor(tensor)}
    if len(processes) > 1:
        with pytest.raises(AssertionError, match="in no process|no one has row"):
            join_hashes(processes[1:])
        other = processes[0]["w"]._replace(digest=1)
        with pytest.raises(AssertionError, match="other copies"):
            join_hashes([*processes, {"w": other}])


def test_hashes_tell_tensors_apart() -> None:
    tensors = [
        torch.zeros(2, 3), torch.zeros(3, 2), torch.zeros(6), torch.zeros(2, 3, dtype=torch.int32), torch.zeros(()),
        torch.zeros(0), torch.tensor([[0.0, 1.0], [2.0, 3.0]]), torch.tensor([[2.0, 3.0], [0.0, 1.0]]),
    ]  # fmt: skip
    assert len({hash_tensor(tensor) for tensor in tensors}) == len(tensors)
