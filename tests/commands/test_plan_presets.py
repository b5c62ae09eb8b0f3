"""`seodang plan` of every preset: counts, groups, memory and time, whatever is here to run it on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.commands.plan import show_plan
from trainer.config import PRESETS, count_parameters

ROOT = Path(__file__).resolve().parents[2]
VOCABULARY = 1024  # of tests/mini.yaml


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], preset: str
) -> None:
    monkeypatch.chdir(ROOT)
    overrides = [
        f"store={tmp_path / 'store'}", f"model={{preset: {preset}}}", "training.peak_tflops=100", "training.device=cuda",
        "phases.0.precision=bfloat16", "phases.1.precision=bfloat16",
    ]  # fmt: skip
    show_plan(Path("tests/mini.yaml"), overrides, as_json=True)
    shown = json.loads(capsys.readouterr().out)
    assert shown["model"]["preset"] == preset
    config = PRESETS[preset]
    weights = count_parameters(config, VOCABULARY).total - config.num_experts * (config.num_layers - 1)
    assert sum(group["parameters"] for group in shown["model"]["groups"]) == weights
    for launch in shown["launch"]:
        memory = launch["memory"]
        assert launch["parameters_of_process"] == weights
        assert memory["weights"] == memory["gradients"] == 4 * weights
        assert launch["memory_bytes"] > sum(memory[name] for name in ("weights", "gradients", "optimizer"))
        assert launch["tokens_per_second"] > 0
        assert launch["days"] > 0
