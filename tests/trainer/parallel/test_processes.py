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

from hand_plan import lines
from pipeline.core.plans import Plan
from trainer.checkpoint import checkpoints, load, read_info

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
sys.path.insert(0, sys.argv[4])
import torch
torch.set_num_threads(1)
from hand_plan import train
from pipeline.core.plans import read_plan
from trainer.config import ParallelConfig, TrainExecution
store, folder, stop = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
def told(line, done, steps):
    if done == stop:
        import os
        os._exit(0)
data, expert, context = map(int, sys.argv[5:8])
train(read_plan(store, store / "mix.p"), folder, on_step=told, execution=TrainExecution(
    checkpoint_every_steps=2, parallel=ParallelConfig(data=data, expert=expert, context=context)))
"""


def segment(plan: Plan, folder: Path, grid: tuple[int, int, int], stop: int = 0) -> None:
    launcher = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        str(grid[0] * grid[2]),
    ]
    script = folder.with_suffix(".py")
    script.write_text(SEGMENT)
    arguments = [str(script), str(plan.store), str(folder), str(stop), str(ROOT / "tests" / "helpers"), *map(str, grid)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*launcher, *arguments], env=environment, capture_output=True, text=True, timeout=300)
    assert stop or done.returncode == 0, done.stderr[-4000:]


def test_any_grid_goes_on_from_any_other(plan: Plan, whole: Path, tmp_path: Path) -> None:
    """Begun by four processes and killed, finished by two, read by one: every row once and the losses of one process."""
    folder = tmp_path / "run"
    segment(plan, folder, (2, 2, 2), stop=3)
    assert [read_info(place).step for place in checkpoints(folder)] == [2]
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
