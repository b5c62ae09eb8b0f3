"""The gate: red for who finds nothing or has forgotten, green for who retrieves; the file repeats byte for byte."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from trainer.config import GateConfig, ModelConfig
from trainer.evals.gate import GateVerdict, HeldOut, judge, run_gate
from trainer.evals.niah import NiahGrid
from trainer.evals.short_context import pack_held_out, short_context_loss
from trainer.model.model import build_model

BYTES = 256
TEXT = "Snow fell on the pass all week. The mule train waited below! Nobody complained about the rest.\n"
HELD_OUT = HeldOut((TEXT, TEXT[::-1]), pack_held_out([np.frombuffer(TEXT.encode(), np.uint8)], 64, 4))
CONFIG = GateConfig(lengths=2, depths=2, needles_per_cell=3)


def encode(text: str) -> list[int]:
    return list(text.encode())


class Oracle(nn.Module):
    """Looks back for the same ten ids and repeats what followed them."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(BYTES, BYTES, bias=False)
        nn.init.eye_(self.head.weight)

    def forward(self, token_ids_BT: Tensor, document_ids_BT: Tensor):
        hidden = torch.zeros(*token_ids_BT.shape, BYTES)
        for row, ids in enumerate(token_ids_BT.tolist()):
            seen: dict[tuple[int, ...], int] = {}
            for index in range(9, len(ids) - 1):
                key = tuple(ids[index - 9 : index + 1])
                if key in seen:
                    hidden[row, index, seen[key]] = 20.0
                seen[key] = ids[index + 1]
        return type("Output", (), {"hidden_BTC": hidden})()

    def logits(self, hidden: Tensor) -> Tensor:
        return self.head(hidden)


def gate(model: nn.Module, baseline: float, folder: Path, round_number: int = 0) -> GateVerdict:
    return run_gate(
        model, encode, CONFIG, HELD_OUT, phase="extend-1", round_number=round_number, checkpoint="step-00000010",
        plan="f" * 64, context_tokens=512, baseline=baseline, seed=3, folder=folder,
    )  # fmt: skip


def test_who_retrieves_gets_green(tmp_path: Path) -> None:
    model = Oracle()
    verdict = gate(model, short_context_loss(model, HELD_OUT.short_rows), tmp_path)
    assert verdict.green
    assert verdict.reasons == ()
    assert verdict.niah_mean == verdict.niah_worst_length == 1.0
    assert verdict.short_context_loss <= verdict.short_context_allowed


def test_retrieving_is_not_enough_when_short_context_is_lost(tmp_path: Path) -> None:
    model = Oracle()
    loss = short_context_loss(model, HELD_OUT.short_rows)
    verdict = gate(model, loss / 1.02, tmp_path)
    assert not verdict.green
    assert len(verdict.reasons) == 1
    assert verdict.reasons[0].startswith("short-context loss")
    assert verdict.short_context_allowed == pytest.approx(loss / 1.02 * 1.01)


def test_an_untrained_model_is_red(tmp_path: Path) -> None:
    config = ModelConfig(
        hidden_size=32, num_layers=4, num_attention_heads=2, num_key_value_heads=1, head_dim=16, window_tokens=8,
        intermediate_size=48, num_experts=4, experts_per_token=2, expert_intermediate_size=16,
    )  # fmt: skip
    verdict = gate(build_model(config, BYTES, seed=0), 100.0, tmp_path, round_number=2)
    assert not verdict.green
    assert verdict.niah_mean == 0.0
    assert verdict.reasons == ("needles found: 0.0% at 256 tokens, 0.0% at 512 tokens; 99.0% needed at every length",)
    assert (tmp_path / "gate-2.json").is_file()


def test_the_file_holds_the_verdict_and_repeats(tmp_path: Path) -> None:
    model = Oracle()
    verdict = gate(model, 6.0, tmp_path / "one")
    gate(model, 6.0, tmp_path / "two")
    first, second = ((tmp_path / name / "gate-0.json").read_bytes() for name in ("one", "two"))
    assert first == second
    stored = json.loads(first)
    assert stored["green"] is verdict.green is True
    assert stored["niah"]["lengths"] == [256, 512]
    assert stored["niah"]["depths"] == [0.0, 1.0]
    assert stored["niah"]["exact"] == [[1.0, 1.0], [1.0, 1.0]]
    assert stored["niah"]["n"] == 3
    assert stored["plan"] == "f" * 64
    assert not any("second" in key or "time" in key for key in stored)


def grid(*exact: tuple[float, ...]) -> NiahGrid:
    return NiahGrid((128, 256), (0.0, 1.0), exact, exact, 4, {})


@pytest.mark.parametrize(
    ("exact", "loss", "reasons"),
    [
        (((1.0, 1.0), (1.0, 0.98)), 1.0, 0),  # 0.99 at the longer length: just enough
        (((1.0, 1.0), (1.0, 0.97)), 1.0, 1),  # 0.9925 in the mean does not help the longer length
        (((1.0, 1.0), (1.0, 1.0)), 1.0001, 1),
        (((0.0, 0.0), (0.0, 0.0)), float("nan"), 2),
    ],
)
def test_thresholds(exact: tuple[tuple[float, ...], ...], loss: float, reasons: int) -> None:
    assert len(judge(grid(*exact), 0.99, loss, 1.0)) == reasons
