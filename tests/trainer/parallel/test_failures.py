"""What fails in one process fails in all, at the same step: nobody waits for one that has gone."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.core.errors import InputError
from pipeline.core.runlog import RunLog, StepLine
from trainer.parallel.ranks import ALONE

ROOT = Path(__file__).resolve().parents[3]

START = """
import json, os, shutil, sys, threading
from pathlib import Path
import torch
torch.set_num_threads(1)
from trainer import saving
from trainer.checkpoint import CheckpointInfo
from trainer.config import ParallelConfig
from trainer.parallel.ranks import start_ranks
from trainer.saving import CheckpointSaver, SaveError
out = Path(sys.argv[1])
ranks = start_ranks(ParallelConfig(data=2), "cpu")
info = CheckpointInfo(
    phase="p", step=1, position=4, tokens=9, plan="f", seed=0, model={}, vocabulary_size=4, tokenizer="t", parent="")
state = {"model.w": torch.full((6, 3), 1.0), "rng.cpu": torch.get_rng_state()}
saver = CheckpointSaver(out / "run", ranks, keep=1)
def tell(**found):
    (out / f"{ranks.rank}.json").write_text(json.dumps(found))
"""

A_STEP_APART = """
LATE = 5
released, loops = threading.Event(), 0
if ranks.is_first:  # learns of the failure, but is done with the save five steps later
    close = saving._Stager.close
    def late(stager):
        released.wait()
        close(stager)
    saving._Stager.close = late
def full(*_):
    raise OSError(28, "No space left on device")
if ranks.rank == 1:
    saving._Writer.write_data = full
saver.start(info, state, {"pairs": []})
if ranks.rank == 1:
    try:
        saver._pending.exception()
    except SaveError:
        pass
try:
    while True:
        loops += 1
        if loops == LATE:
            released.set()
        ranks.wait()  # stands for a step
        saver.check()
except SaveError as error:
    tell(step=loops, error=str(error))
"""

NO_FOLDER = """
(out / "run").mkdir(exist_ok=True)
if ranks.is_first:
    (out / "run" / "checkpoints").write_text("a file where the folder should be")
try:
    saver.start(info, state, {"pairs": []})
except SaveError as error:
    tell(error=str(error))
"""

FIRST_ONLY = """
def work():
    raise SaveError("no room", where="here", fix="make some")
ranks.first_does(lambda: None)
try:
    ranks.first_does(work)
except SaveError as error:
    tell(error=str(error), all_say=[ranks.all_say(ranks.is_first), ranks.all_say(True)])
"""


def two_processes(text: str, out: Path) -> list[dict[str, object]]:
    script = out / "script.py"
    script.write_text(START + text)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*launcher, str(script), str(out)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads((out / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.slow
def test_a_failed_save_is_seen_by_all_processes_at_one_step(tmp_path: Path) -> None:
    first, second = two_processes(A_STEP_APART, tmp_path)
    assert first["step"] == second["step"] >= 5
    for each in (first, second):
        assert "after step 1 was not written" in str(each["error"])
        assert "No space left" in str(each["error"])


@pytest.mark.slow
@pytest.mark.parametrize("text", [NO_FOLDER, FIRST_ONLY], ids=["no folder", "first only"])
def test_what_fails_in_the_first_process_fails_in_all(tmp_path: Path, text: str) -> None:
    first, second = two_processes(text, tmp_path)
    assert first == second
    assert first.get("all_say", [False, True]) == [False, True]


def test_one_process_is_all() -> None:
    with pytest.raises(InputError, match="told"):
        ALONE.first_does(lambda: (_ for _ in ()).throw(InputError("told")))
    assert ALONE.all_say(True)
    assert not ALONE.all_say(False)


def test_a_log_that_cannot_be_written_says_where_and_is_cut_at_the_next_opening(tmp_path: Path) -> None:
    line = StepLine("p", 1, 0, 1, 1, 1, 1.0, 1.0, 1.0, 1.0, 1.0, "s")
    log = RunLog.open(tmp_path / "train.jsonl", keep_steps=0)
    log.write(line)
    whole = (tmp_path / "train.jsonl").read_bytes()
    handle = log._handle

    class Full:
        """A disk with room for three bytes."""

        room = 3

        def write(self, data: bytes) -> int:
            if not self.room:
                raise OSError(errno.ENOSPC, "No space left on device")
            written, self.room = handle.write(data[: self.room]), 0
            return written

        close = handle.close

    log._handle = Full()
    with pytest.raises(InputError, match=r"train.jsonl: step 1 could not be written .*No space left") as error:
        log.write(line)
    assert "make room" in error.value.fix
    log.close()
    assert (tmp_path / "train.jsonl").read_bytes() != whole
    RunLog.open(tmp_path / "train.jsonl", keep_steps=1).close()
    assert (tmp_path / "train.jsonl").read_bytes() == whole
