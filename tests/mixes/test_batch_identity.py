"""A global batch is the same whoever loads it: any number of ranks and workers, changed mid-run, after any kill."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mixes.loader import Batch, MixLoader

BATCH_ROWS = 24
STEPS = 10
CODE = """
import hashlib, sys
from pathlib import Path
from mixes.loader import MixLoader
from pipeline.core.plans import read_plan

store, first, ranks, ahead = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
plan = read_plan(store, store / "mix.0")
loader, part = MixLoader(plan, ahead=ahead), 24 // ranks
for step in range(first, plan.rows // 24):
    digest = hashlib.sha256()
    for rank in range(ranks):
        batch = loader.batch(step * 24 + rank * part, part)
        for row in range(part):
            for array in (batch.token_ids_RT, batch.loss_mask_RT, batch.document_ids_RT, batch.source_ids_RT):
                digest.update(array[row].tobytes())
    print(digest.hexdigest(), flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(scope="module")
def planned(new_house: Callable[[], Any], documents_of: Callable[..., Any]) -> Any:
    house, random = new_house(), np.random.default_rng(3)
    house.encode("web", documents_of("web", random.integers(2, 150, 300).tolist()), masked=True)
    house.encode("made", documents_of("made", random.integers(2, 60, 400).tolist(), maker="m"))
    mix = {"web": {"from": ("web",), "weight": 0.6}, "made": {"from": ("made",), "weight": 0.4}}
    house.append(mix, budget_tokens=64 * BATCH_ROWS * STEPS, rows_per_batch=BATCH_ROWS)
    return house


def digest_of(parts: list[Batch]) -> str:
    digest = hashlib.sha256()
    for batch in parts:
        for row in range(batch.token_ids_RT.shape[0]):
            for array in (batch.token_ids_RT, batch.loss_mask_RT, batch.document_ids_RT, batch.source_ids_RT):
                digest.update(array[row].tobytes())
    return digest.hexdigest()


@pytest.fixture(scope="module")
def expected(planned: Any) -> list[str]:
    loader = MixLoader(planned.plan)
    return [digest_of([loader.batch(step * BATCH_ROWS, BATCH_ROWS)]) for step in range(STEPS)]


def loaded(planned: Any, step: int, ranks: int, loaders: list[MixLoader]) -> str:
    """One step by `ranks` ranks, each with as many workers as there are loaders, which take steps in turn."""
    part, loader = BATCH_ROWS // ranks, loaders[step % len(loaders)]
    return digest_of([loader.batch(step * BATCH_ROWS + rank * part, part) for rank in range(ranks)])


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 6, 8])
@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("ahead", [0, 2])
def test_ranks_and_workers(planned: Any, expected: list[str], ranks: int, workers: int, ahead: int) -> None:
    loaders = [MixLoader(planned.plan, ahead=ahead) for _ in range(workers)]
    assert [loaded(planned, step, ranks, loaders) for step in range(STEPS)] == expected
    for loader in loaders:
        loader.close()


def test_ranks_and_workers_that_change_mid_run(planned: Any, expected: list[str]) -> None:
    found = []
    for step, (ranks, workers) in enumerate([(1, 1), (8, 2), (3, 4), (6, 1), (2, 3), (4, 4), (12, 1), (24, 2)] * 2):
        if step < STEPS:
            found.append(loaded(planned, step, ranks, [MixLoader(planned.plan) for _ in range(workers)]))
    assert found == expected


def test_steps_in_any_order(planned: Any, expected: list[str]) -> None:
    loader = MixLoader(planned.plan)
    for step in np.random.default_rng(0).permutation(STEPS).tolist():
        assert loaded(planned, step, 2, [loader]) == expected[step]


@pytest.mark.kill
def test_killed_and_resumed_by_other_ranks(planned: Any, expected: list[str]) -> None:
    found: list[str] = []
    for ranks, ahead, steps in ((2, 0, 3), (6, 2, 4), (1, 1, STEPS)):
        command = [sys.executable, "-c", CODE, str(planned.store), str(len(found)), str(ranks), str(ahead)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            for _ in range(min(steps, STEPS - len(found))):
                found.append(process.stdout.readline().strip())
                process.stdin.write("\n")
                process.stdin.flush()
            process.send_signal(signal.SIGKILL)
    assert found == expected
