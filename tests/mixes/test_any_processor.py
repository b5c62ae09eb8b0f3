"""The same plan and the same batches on another processor: kernels compiled for the plainest one give the same bytes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import hashlib, sys, tempfile
from pathlib import Path
import numpy as np
sys.path.insert(0, "tests/mixes")
from conftest import House, simple
from mixes.loader import MixLoader

with tempfile.TemporaryDirectory() as folder:
    house = House(Path(folder))
    random = np.random.default_rng(5)
    house.encode("web", simple("web", random.integers(2, 200, 300).tolist(), lang="ko"), masked=True)
    house.encode("made", simple("made", random.integers(2, 60, 300).tolist(), maker="m"))
    mix = {"web": {"from": ("web",), "weight": 0.6}, "made": {"from": ("*",), "weight": 0.4, "max_repeats": 2.5}}
    plan = house.append(mix, budget_tokens=64 * 96, rows_per_batch=8, synthetic_cap=0.5)
    digest = hashlib.sha256()
    for path in sorted((house.store / "mix.0").iterdir()):
        digest.update(path.name.encode() + path.read_bytes())
    for position in range(0, 96, 8):
        batch = MixLoader(plan).batch(position, 8)
        for array in (batch.token_ids_RT, batch.loss_mask_RT, batch.document_ids_RT, batch.source_ids_RT):
            digest.update(array.tobytes())
    print(digest.hexdigest())
"""


@pytest.mark.slow
def test_plans_and_batches_do_not_depend_on_the_processor(tmp_path: Path) -> None:
    plain = {
        "NUMBA_CPU_NAME": "generic",
        "NUMBA_CPU_FEATURES": "",
        "NUMBA_CACHE_DIR": str(tmp_path / "kernels"),
        "NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3 AVX512F AVX512_SKX",
    }
    found = [
        subprocess.run(
            [sys.executable, "-c", CODE],
            env={**os.environ, **extra, "PYTHONPATH": f"{Path.cwd()}:{Path.cwd() / 'tests/helpers'}"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for extra in ({}, plain)
    ]
    assert found[0] == found[1]
