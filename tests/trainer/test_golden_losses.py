"""Golden losses: the first steps of a tiny run at full precision, so that a refactor that moves a bit is seen.

Bits belong to a processor's kernels and a torch version: on the machines that the file knows they must be equal, on
others close: a router's near tie falls the other way there. After a change that is meant, and to add a machine:
`python tests/trainer/test_golden_losses.py`; runs of other machines whose losses are no longer close are dropped.
"""

from __future__ import annotations

import json
import platform
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
CLOSE = {"float32": 2e-3, "bfloat16": 1e-2, "float8": 2e-2}  # relative, on another processor or torch version


def machine() -> str:
    """What decides the bits: the kernels' instruction set, the kind of processor and torch's version."""
    kernels = f"{torch.backends.cpu.get_cpu_capability()} amx={torch.cpu._is_amx_tile_supported()}"
    return f"{kernels} {_processor()} torch {torch.__version__}"


def _processor() -> str:
    """For example `AuthenticAMD 26.2`: maker, family and model, where Linux tells them."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.is_file() else []
    known = dict(line.replace("\t", "").split(": ") for line in lines if line.count(": ") == 1)
    if "vendor_id" not in known:
        return platform.machine()
    return f"{known['vendor_id']} {known['cpu family']}.{known['model']}"


def losses(plan: Plan, folder: Path, precision: str) -> dict[str, list[str]]:
    """Every logged number of every step, as hexadecimal floats: no digit is rounded away."""
    train(plan, folder, phase=PHASE.replaced(precision=precision))
    return {key: [float(line[key]).hex() for line in lines(folder)] for key in LOGGED}


@pytest.mark.parametrize("precision", list(CLOSE))
def test_the_losses_are_the_golden_ones(plan: Plan, tmp_path: Path, precision: str) -> None:
    golden = json.loads(GOLDEN.read_text())
    found = losses(plan, tmp_path, precision)
    if machine() in golden:
        assert found == golden[machine()][precision]
    for known in golden.values():
        assert_close(found, known[precision], CLOSE[precision])


def assert_close(found: dict[str, list[str]], expected: dict[str, list[str]], relative: float) -> None:
    for key in LOGGED:
        numbers = [[float.fromhex(value) for value in own[key]] for own in (found, expected)]
        assert numbers[0] == pytest.approx(numbers[1], rel=relative)


def is_close(found: dict[str, Any], expected: dict[str, Any]) -> bool:
    try:
        for precision, relative in CLOSE.items():
            assert_close(found[precision], expected[precision], relative)
    except AssertionError:
        return False
    return True


def renew() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        store = Path(name)
        write_tokens(store, "alpha", "en", [7, 12, 9, 15, 4, 11, 8], masked=False)
        write_tokens(store, "beta", "ko", [10, 6, 13, 5, 9], masked=True)
        plan = make_segment(store, "p", None)
        found = {precision: losses(plan, store / precision, precision) for precision in CLOSE}
    kept = {name: one for name, one in json.loads(GOLDEN.read_text()).items() if is_close(found, one)}
    GOLDEN.write_text(json.dumps(kept | {machine(): found}, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    renew()
