"""The labels of reasoning-gym's families, worked out a second way.

A verifier that scores its library's answer 1.0 says nothing about a wrong label: every family that we let in has a
solver of ours (`tests/helpers/gym_solvers.py`) or a way whose equations are recomputed (`synth/gym/ways.py`).
"""

from __future__ import annotations

import pytest
from gym_solvers import SOLVERS, Entry

from synth.gym.config import GYM_FAMILIES, GymConfig, GymFamily
from synth.gym.ways import WAYS
from synth.gym.work import draw, fault

pytest.importorskip("reasoning_gym", reason="the optional package reasoning-gym is not installed")


def entries(family: GymFamily, count: int) -> list[Entry]:
    config = GymConfig(kind="gym", documents=count, families=(family,), seed=3)
    found = [draw(config, index)[1] for index in range(count)]
    return [entry for entry in found if not fault(family, entry)[0]]


def test_every_family_has_a_second_way() -> None:
    assert set(SOLVERS) | set(WAYS) == set(GYM_FAMILIES)
    assert set(WAYS) - set(SOLVERS) == {
        "basic_arithmetic", "chain_sum", "count_bits", "gsm_symbolic", "products", "simple_equations",
    }  # fmt: skip


@pytest.mark.parametrize("family", sorted(SOLVERS))
def test_a_second_way_gives_the_same_answer(family: GymFamily) -> None:
    found = entries(family, 8 if family in ("countdown", "sudoku", "game_of_life") else 40)
    assert found
    assert not [(one["question"], one["answer"]) for one in found if not SOLVERS[family](one)]


@pytest.mark.parametrize("family", sorted(SOLVERS))
def test_the_second_way_takes_no_other_answer(family: GymFamily) -> None:
    """Another entry's answer, so that a solver that always agrees is found out."""
    found = entries(family, 8)
    refused = 0
    for one, other in zip(found, [*found[1:], found[0]], strict=True):
        try:
            refused += not SOLVERS[family]({**one, "answer": other["answer"]})
        except (AssertionError, KeyError, IndexError, ValueError):  # a move that cannot be made, a grid of another size
            refused += 1
    assert refused >= 1
