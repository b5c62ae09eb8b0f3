"""Several processes against one: FSDP2, experts, context and their products give the same losses and gradients."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.filesystem import FileSystemReader

from hand_plan import MODEL, PHASE, VOCABULARY, lines, train
from pipeline.core.plans import Plan
from trainer.checkpoint import checkpoint_place, checkpoints, load, read_info
from trainer.config import LearningRate, TrainExecution
from trainer.model.model import build_model
from trainer.phase import load_model

SCRIPT = Path(__file__).with_name("run_ranks.py")
ROOT = Path(__file__).resolve().parents[3]
STEPS = 20
GRIDS = [  # data, expert, context
    (2, 1, 1),  # FSDP2
    (2, 2, 1),  # experts
    (1, 1, 2),  # context
    (4, 2, 1),  # experts within FSDP2
    (2, 2, 2),  # experts and context
    (1, 1, 4),
    (4, 4, 1),
]
pytestmark = pytest.mark.slow


def run(plan: Plan, out: Path, grid: tuple[int, int, int], dtype: str, steps: int) -> None:
    out.mkdir()
    data, _, context = grid
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(data * context)]
    arguments = [str(SCRIPT), str(plan.store), str(out), *map(str, grid), dtype, str(steps)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*launcher, *arguments], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]


def found(out: Path, rank: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    return torch.load(out / f"gradients-{rank}.pt"), json.loads((out / f"log-{rank}.json").read_text())


@pytest.fixture(scope="module")
def alone(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    outs = {}
    for dtype in ("float64", "float32"):
        outs[dtype] = tmp_path_factory.mktemp("alone") / dtype
        run(plan, outs[dtype], (1, 1, 1), dtype, STEPS)
    return outs


@pytest.mark.parametrize("grid", GRIDS)
def test_one_pass_in_float64(plan: Plan, alone: dict[str, Path], tmp_path: Path, grid: tuple[int, int, int]) -> None:
    """Five rows, so that they do not go round; the routers and tables alone are float32 sums."""
    run(plan, tmp_path / "out", grid, "float64", 1)
    expected, _ = found(alone["float64"], 0)
    for rank in range(grid[0] * grid[2]):
        got, _ = found(tmp_path / "out", rank)
        assert got["first"] == pytest.approx(expected["first"], rel=1e-10)
        torch.testing.assert_close(got["tokens"], expected["tokens"], rtol=1e-10, atol=1e-10)
        for name, gradient in expected["gradients"].items():
            error = (got["gradients"][name] - gradient).norm() / gradient.norm().clamp(min=1e-12)
            assert error <= 1e-10, f"{name} of process {rank}: {error}"


@pytest.mark.parametrize("grid", GRIDS)
def test_twenty_steps_in_float32(
    plan: Plan, alone: dict[str, Path], tmp_path: Path, grid: tuple[int, int, int]
) -> None:
    """The first step's loss to 1e-5; later ones within 1%, since Muon's bfloat16 iteration magnifies the last bits."""
    run(plan, tmp_path / "out", grid, "float32", STEPS)
    _, expected = found(alone["float32"], 0)
    logs = [found(tmp_path / "out", rank)[1] for rank in range(grid[0] * grid[2])]
    assert all(log == logs[0] for log in logs), "processes disagree"
    assert logs[0][0]["loss"] == pytest.approx(expected[0]["loss"], rel=1e-5)
    assert logs[0][0]["norm"] == pytest.approx(expected[0]["norm"], rel=1e-4)
    assert logs[0][0]["updates"] == pytest.approx(expected[0]["updates"], rel=1e-2)
    assert logs[0][0]["load"] == expected[0]["load"]
    for ours, theirs in zip(logs[0], expected, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-2)


SEGMENT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
from hand_plan import train
from pipeline.core.plans import read_plan
from trainer.config import ParallelConfig, TrainExecution
folder, store, stop = Path(sys.argv[2]), Path(sys.argv[6]), int(sys.argv[7])
def told(line, done, steps):
    if done == stop:
        import os
        os._exit(0)
data, expert, context = map(int, sys.argv[3:6])
train(read_plan(store, store / "mix.p"), folder, on_step=told, execution=TrainExecution(
    checkpoint_every_steps=2, parallel=ParallelConfig(data=data, expert=expert, context=context)))
"""
RESAVE = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
torch.manual_seed(0)  # as training does: processes have one random state
from hand_plan import MODEL, VOCABULARY
from trainer.checkpoint import CheckpointInfo
from trainer.config import OptimizerConfig, ParallelConfig
from trainer.optim import build_optimizer
from trainer.parallel.ranks import start_ranks
from trainer.parallel.sharding import build_sharded
from trainer.parallel.state import named_state
from trainer.phase import restore
from trainer.saving import CheckpointSaver
data, expert, context = map(int, sys.argv[3:6])
INFO = CheckpointInfo(
    phase="p", step=6, position=21, tokens=9, plan="f", seed=0, model={}, vocabulary_size=64, tokenizer="t", parent="")
ranks = start_ranks(ParallelConfig(data=data, expert=expert, context=context), "cpu")
model = build_sharded(MODEL, VOCABULARY, 5, "cpu", ranks)
optimizer = build_optimizer(model, OptimizerConfig())
if len(sys.argv) == 7:
    restore(Path(sys.argv[6]), model, optimizer, ranks)
with CheckpointSaver(Path(sys.argv[2]), ranks, keep=1) as saver:
    saver.start(INFO, *named_state(model, optimizer, ranks))
"""


def torchrun(
    text: str, folder: Path, grid: tuple[int, int, int], *more: str, succeeds: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run a script in as many processes as the grid has: HELPERS FOLDER DATA EXPERT CONTEXT ..."""
    processes = str(grid[0] * grid[2])
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", processes]
    script = folder.with_suffix(".py")
    script.write_text(text)
    arguments = [str(script), str(ROOT / "tests" / "helpers"), str(folder), *map(str, grid), *more]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*launcher, *arguments], env=environment, capture_output=True, text=True, timeout=300)
    assert (done.returncode == 0) or not succeeds, done.stderr[-4000:]
    return done


def read_metadata(place: Path) -> dict[str, Any]:
    return FileSystemReader(place).read_metadata().state_dict_metadata


def read_metadata_info(place: Path, file: str) -> int:
    """A byte of tensor data in the middle of one process's file."""
    storage = FileSystemReader(place).read_metadata().storage_data
    largest = max((info for info in storage.values() if info.relative_path == file), key=lambda info: info.length)
    return largest.offset + largest.length // 2


def segment(plan: Plan, folder: Path, grid: tuple[int, int, int], stop: int = 0) -> None:
    torchrun(SEGMENT, folder, grid, str(plan.store), str(stop), succeeds=not stop)


def test_any_grid_goes_on_from_any_other(plan: Plan, whole: Path, tmp_path: Path) -> None:
    """Begun by four processes and killed, finished by two, read by one: every row once and the losses of one process."""
    folder = tmp_path / "run"
    segment(plan, folder, (2, 2, 2), stop=5)
    # The save after step 2 was waited for before that after step 4, which may be cut off.
    begun = checkpoints(folder)
    assert [read_info(place).step for place in begun] in ([2], [2, 4])
    assert {path.name for path in begun[0].glob("*.distcp")} == {f"__{rank}_0.distcp" for rank in range(4)}
    expert = read_metadata(begun[0])["model.layers.1.feed_forward.experts.gate_up"].chunks
    assert sorted(tuple(chunk.offsets) for chunk in expert) == [(0, 0, 0), (2, 0, 0)]
    segment(plan, folder, (2, 1, 1))
    log, expected = lines(folder), lines(whole)
    assert [line["position"] for line in log] == [line["position"] for line in expected]
    for ours, theirs in zip(log, expected, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-2)
        assert ours["tokens_by_source"] == theirs["tokens_by_source"]
        assert ours["loss_by_source"] == pytest.approx(theirs["loss_by_source"], rel=1e-2)
    stored = load(checkpoints(folder)[-1])
    assert {name: t.shape for name, t in stored.model.items()} == {
        name: t.shape for name, t in load(checkpoints(whole)[-1]).model.items()
    }
    assert load_model(checkpoints(folder)[-1])[1].identity == stored.info.identity


def test_a_checkpoint_is_the_same_state_on_every_grid(plan: Plan, whole: Path, tmp_path: Path) -> None:
    """Read and written again by four processes, then by two of another grid: the tensors of one process, bit for bit."""
    place = checkpoints(whole)[-1]
    for name, grid in (("four", (4, 2, 1)), ("two", (1, 1, 2))):
        torchrun(RESAVE, tmp_path / name, grid, str(place))
        (again,) = checkpoints(tmp_path / name)
        assert read_info(again).tensors == read_info(place).tensors
        place = again


def test_first_weights_are_those_of_one_process(tmp_path: Path) -> None:
    torchrun(RESAVE, tmp_path / "new", (4, 2, 1))
    (place,) = checkpoints(tmp_path / "new")
    expected = build_model(MODEL, VOCABULARY, seed=5).state_dict()
    stored = load(place).model
    assert stored.keys() == expected.keys()
    assert all(torch.equal(stored[name], tensor) for name, tensor in expected.items())


def test_a_flipped_bit_in_one_shard_is_an_error_in_every_process(plan: Plan, whole: Path, tmp_path: Path) -> None:
    torchrun(RESAVE, tmp_path / "four", (4, 2, 1), str(checkpoints(whole)[-1]))
    (place,) = checkpoints(tmp_path / "four")
    shard = place / "__3_0.distcp"
    content = bytearray(shard.read_bytes())
    middle = read_metadata_info(place, "__3_0.distcp")
    content[middle] ^= 1
    shard.write_bytes(content)
    done = torchrun(RESAVE, tmp_path / "again", (2, 1, 1), str(place), succeeds=False)
    assert done.stderr.count("is changed") >= 2
    assert checkpoints(tmp_path / "again") == []


BRANCH_AND_EVAL = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
from hand_plan import CONTEXT, PHASE
from pipeline.core.plans import read_plan
from trainer.config import LearningRate, OptimizerConfig, ParallelConfig, TrainExecution
from trainer.evals.niah import Haystack, score_haystacks
from trainer.evals.short_context import HeldOutRows, short_context_loss
from trainer.parallel.ranks import start_ranks
from trainer.phase import load_model, train_branch
from dataclasses import asdict
import numpy as np
folder, store, place = (Path(sys.argv[i]) for i in (2, 6, 7))
data, expert, context = map(int, sys.argv[3:6])
parallel = ParallelConfig(data=data, expert=expert, context=context)
stable = PHASE.replaced(learning_rate=LearningRate(peak=1e-2, warmup_steps=1, floor_fraction=0.1))
end = train_branch(checkpoint=place, optimizer_config=OptimizerConfig(), phase=stable, plan=read_plan(store, store / "mix.p"),
    tokens=8 * CONTEXT, folder=folder, execution=TrainExecution(checkpoint_every_steps=1, parallel=parallel))
ranks = start_ranks(parallel, "cpu")
model, info = load_model(place, "cpu", ranks)
generator = np.random.default_rng(0)
stacks = [Haystack(i // 6, i % 2, "en", tuple(map(int, generator.integers(1, 60, 24 * (1 + i // 6)))), 3) for i in range(12)]
grid = score_haystacks(model, stacks, (24, 48), (0.0, 1.0), ranks)
held_out = HeldOutRows(generator.integers(1, 60, (7, 9000)), np.zeros((7, 9000), np.int32))
loss = short_context_loss(model, held_out, ranks)
(folder / f"eval-{ranks.rank}.json").write_text(json.dumps({"grid": asdict(grid), "loss": loss, "end": end.name}))
"""


def test_a_branch_and_needles_in_several_processes(plan: Plan, tmp_path: Path) -> None:
    stable = PHASE.replaced(learning_rate=LearningRate(peak=1e-2, warmup_steps=1, floor_fraction=0.1))
    train(
        plan, tmp_path / "trunk", phase=stable, execution=TrainExecution(checkpoint_every_steps=2, keep_checkpoints=9)
    )
    place = str(checkpoint_place(tmp_path / "trunk", 2))
    for name, grid in (("one", (1, 1, 1)), ("two", (2, 2, 1))):
        torchrun(BRANCH_AND_EVAL, tmp_path / name, grid, str(plan.store), place)
    one, *two = (
        json.loads((tmp_path / name).read_text()) for name in ("one/eval-0.json", "two/eval-0.json", "two/eval-1.json")
    )
    assert two[0] == two[1]
    assert two[0]["end"] == one["end"] == "step-00000002"
    assert two[0]["loss"] == pytest.approx(one["loss"], rel=1e-6)
    assert two[0]["grid"]["exact"] == one["grid"]["exact"]
    for row, expected in zip(two[0]["grid"]["log_probability"], one["grid"]["log_probability"], strict=True):
        assert row == pytest.approx(expected, rel=1e-5)
    for ours, expected in zip(lines(tmp_path / "two"), lines(tmp_path / "one"), strict=True):
        assert (ours["position"], ours["learning_rate"]) == (expected["position"], expected["learning_rate"])
        assert ours["loss"] == pytest.approx(expected["loss"], rel=1e-2)
