"""The sliding-window benchmark: what it compares where there is no accelerator, and its way on one as far as it runs."""

from __future__ import annotations

import pytest
import torch

from benchmarks.measure import Side, interleaved, timed
from benchmarks.result import Comparison, Missing
from benchmarks.settings import Settings
from benchmarks.swa_scaling import BLOCKS, DEVICE_LENGTHS, LENGTHS, Lengths, against_blocks, compare, on_device, run
from trainer.presets import PRESETS

SHORT = Lengths((256, 512), (256, 512), 1)


def test_without_an_accelerator_its_rows_are_told_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setitem(LENGTHS, "quick", SHORT)
    growth, rate, missing = run(Settings("quick"))
    assert isinstance(growth, Comparison)
    assert isinstance(rate, Comparison)
    assert growth.unit == "exponent"
    assert growth.equal
    assert rate.equal
    assert growth.input == "generated: hidden states of 256 to 512 tokens, window 128"
    assert missing == Missing("the variable-length kernel", "needs a CUDA device: there is none here")


def test_the_devices_rows_compare_the_same_weights() -> None:
    """In bfloat16 on the processor, where blocks stand for the kernel: all but the kernel and its clock."""
    layer = on_device("cpu", timed)
    assert layer.config.head_dim == PRESETS["moe-30b"].head_dim == 128
    short = Lengths((144, 288), (144, 288), 1)  # beyond the window
    for found in (*compare(layer, short), against_blocks(layer, short)):
        assert found.equal, found
        assert "bfloat16 on the device" in found.what
    assert found.peer_name == BLOCKS
    assert found.ours.low > 0


def test_a_clock_of_ones_own() -> None:
    calls: list[str] = []

    def clock(side: Side) -> float:
        side()
        return float(len(calls))

    assert interleaved([lambda: calls.append("a"), lambda: calls.append("b")], 2, 1, clock) == [[3.0, 5.0], [4.0, 6.0]]


@pytest.mark.gpu
def test_on_an_accelerator() -> None:
    found = list(run(Settings("quick")))
    assert len(found) == 5
    assert all(isinstance(one, Comparison) and one.equal for one in found)
    assert DEVICE_LENGTHS["full"].peer == DEVICE_LENGTHS["full"].ours[:3]
