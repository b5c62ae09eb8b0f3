"""What the first training step would refuse is refused before anything is made, and every verb keeps to the device."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pipeline.commands import model as model_commands
from pipeline.commands import routing as routing_commands
from pipeline.commands.train import train_curriculum
from pipeline.core.errors import UserError
from pipeline.curriculum import Phase, Surroundings
from trainer.config import ParallelConfig, TrainExecution
from trainer.devices import check_device
from trainer.parallel.ranks import start_ranks

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the root, since the curriculum's paths lead from there; no accelerator, no torchrun, no W&B."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setitem(sys.modules, "wandb", None)


def steps_of(store: Path) -> list[str]:
    """Folders of steps; what opening a curriculum keeps of its sources' hashes is none."""
    return [path.name for path in store.iterdir() if path.is_dir() and "-" in path.name]


REFUSED = {
    "parallel": (["training.parallel.data=2"], "wants 2 .*nothing was made"),
    "context": (["training.parallel.context=2"], "wants 2 .*nothing was made"),
    "device": (["training.device=cuda"], "no CUDA device"),
    "monitor": (["training.monitors=[wandb]"], "package `wandb` is not installed"),
    "compiler": (
        ["training.compile=blocks", "training.algorithms=fastest", "phases.1.precision=float8"],
        "no eight-bit products on a processor",
    ),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_train_refuses_before_anything_is_made(tmp_path: Path, name: str) -> None:
    overrides, message = REFUSED[name]
    with pytest.raises(UserError, match=message):
        train_curriculum(Path("tests/mini.yaml"), "", 0, [f"store={tmp_path / 'store'}", *overrides])
    assert not steps_of(tmp_path / "store")


@pytest.mark.parametrize("data", [1, 2, 3])
def test_train_under_torchrun_is_told_what_to_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: int) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    overrides = [f"store={tmp_path / 'store'}", f"training.parallel.data={data}"]
    with pytest.raises(UserError, match="runs in one process, torchrun started 2 of them") as error:
        train_curriculum(Path("tests/mini.yaml"), "", 0, overrides)
    assert "-m pipeline.cli train-segment tests/mini.yaml " in error.value.fix
    assert not steps_of(tmp_path / "store")


def test_another_number_of_processes_is_told_before_any_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(UserError, match="3 processes were started, training.parallel wants 2"):
        start_ranks(ParallelConfig(data=2), "cpu")


def test_a_device_beyond_those_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check_device("cuda:1")
    with pytest.raises(UserError, match="torch finds 2") as error:
        check_device("cuda:2")
    assert "cuda:0 to cuda:1" in error.value.fix


def on_cuda() -> Any:
    """A trained phase whose file says `training.device: cuda`; nothing of it is read before the device is looked for."""
    opened = SimpleNamespace(curriculum=SimpleNamespace(training=TrainExecution(device="cuda")))
    return SimpleNamespace(opened=opened, checkpoint=Path("nowhere"))


@pytest.mark.parametrize("verb", ["routing", "generate", "baseline", "judge"])
def test_what_reads_a_checkpoint_keeps_to_the_device(monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    monkeypatch.setattr(model_commands, "trained", lambda *_: on_cuda())
    monkeypatch.setattr(routing_commands, "trained", lambda *_: on_cuda())
    phase: Any = object.__new__(Phase)
    phase.around = Surroundings(training=TrainExecution(device="cuda"))
    phase.parent = lambda: Path("nowhere")
    unused: Any = None
    asked = {
        "routing": lambda: routing_commands.show_routing(Path("c"), "", "languages", 1, "last", []),
        "generate": lambda: model_commands.continue_text(Path("c"), "text", "", {}, 0, []),
        "baseline": lambda: phase.baseline(unused),
        "judge": lambda: phase.judge(unused, Path("nowhere"), "mix", unused, 0.0, 0),
    }
    with pytest.raises(UserError, match="no CUDA device"):
        asked[verb]()
