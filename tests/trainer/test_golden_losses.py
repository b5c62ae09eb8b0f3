"""Golden losses: the first steps of a tiny run at full precision, so that a refactor that moves a bit is seen.

Bits belong to a processor's kernels and a torch version: there they must be equal, elsewhere close. To renew after a
change that is meant: `python tests/trainer/test_golden_losses.py`.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "helpers"))

from hand_plan import PHASE, lines, make_segment, train, write_tokens
from pipeline.core.plans import Plan

GOLDEN = Path(__file__).with_name("golden_losses.json")
LOGGED = ("loss", "mtp_loss", "balance_loss", "gradient_norm")
CLOSE = {"float32": 1e-3, "bfloat16": 1e-2, "float8": 2e-2}  # relative, on another processor or torch version


def machine() -> dict[str, Any]:
    capability = torch.backends.cpu.get_cpu_capability()
    return {"kernels": f"{capability} amx={torch.cpu._is_amx_tile_supported()}", "torch": torch.__version__}


def losses(plan: Plan, folder: Path, precision: str) -> dict[str, list[str]]:
    """Every logged number of every step, as hexadecimal floats: no digit is rounded away."""
    train(plan, folder, phase=PHASE.replaced(precision=precision))
    return {key: [float(line[key]).hex() for line in lines(folder)] for key in LOGGED}


@pytest.mark.parametrize("precision", list(CLOSE))
def test_the_losses_are_the_golden_ones(plan: Plan, tmp_path: Path, precision: str) -> None:
    golden = json.loads(GOLDEN.read_text())
    found = losses(plan, tmp_path, precision)
    if golden["machine"] == machine():
        assert found == golden["losses"][precision]
    for key in LOGGED:
        expected = [float.fromhex(value) for value in golden["losses"][precision][key]]
        assert [float.fromhex(value) for value in found[key]] == pytest.approx(expected, rel=CLOSE[precision])


def renew() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        store = Path(name)
        write_tokens(store, "alpha", "en", [7, 12, 9, 15, 4, 11, 8], masked=False)
        write_tokens(store, "beta", "ko", [10, 6, 13, 5, 9], masked=True)
        plan = make_segment(store, "p", None)
        found = {precision: losses(plan, store / precision, precision) for precision in CLOSE}
    GOLDEN.write_text(json.dumps({"machine": machine(), "losses": found}, indent=1) + "\n")


if __name__ == "__main__":
    renew()
