"""Processes that are not there are told, with what would start them."""

from __future__ import annotations

import pytest
import torch

from pipeline.core.errors import UserError
from trainer.config import ParallelConfig, TrainExecution
from trainer.parallel.ranks import ALONE, start_ranks


def test_processes_that_nobody_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(UserError, match="wants 4 ") as error:
        start_ranks(ParallelConfig(data=2, context=2), "cpu")
    assert "torchrun --nproc-per-node 4" in str(error.value)
    assert "training.parallel.data=1" in str(error.value)
    assert start_ranks(ParallelConfig(), "cpu") is ALONE


def test_a_device_that_is_not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="no CUDA device") as error:
        start_ranks(ParallelConfig(), "cuda:1")
    assert "training.device=cpu" in str(error.value)


@pytest.mark.parametrize("device", ["mps", "gpu", "cuda:", ""])
def test_a_device_of_another_kind(device: str) -> None:
    with pytest.raises(ValueError, match="device"):
        TrainExecution(device=device)
    assert TrainExecution(device="cuda:3").device == "cuda:3"
