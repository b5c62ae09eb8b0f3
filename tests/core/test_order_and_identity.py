"""Permutations, seeds and fingerprints: the same everywhere, for ever."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.fingerprint import canonical, fingerprint
from pipeline.core.rng import Permutation, derive_seed


@given(size=st.integers(1, 3000), seed=st.integers(0, 2**62))
@settings(max_examples=60, deadline=None)
def test_a_permutation_is_a_bijection(size: int, seed: int) -> None:
    assert sorted(Permutation(size, seed).all().tolist()) == list(range(size))


@pytest.mark.parametrize("size", [4, 5, 16, 17, 64, 65, 2**16, 2**16 + 1, 2**18 + 1])
def test_a_permutation_is_a_bijection_around_powers_of_four(size: int) -> None:
    assert np.array_equal(np.sort(Permutation(size, 1).all()), np.arange(size))


@given(size=st.integers(1, 2**62), seed=st.integers(0, 2**62), places=st.lists(st.integers(0, 2**62), max_size=20))
@settings(max_examples=60, deadline=None)
def test_a_permutation_runs_backwards(size: int, seed: int, places: list[int]) -> None:
    positions = np.array([place % size for place in places], np.int64)
    order = Permutation(size, seed)
    assert order.positions(order.take(positions)).tolist() == positions.tolist()


def test_images_of_a_huge_range_are_inside_and_distinct() -> None:
    images = Permutation(10**13, 7).take(np.arange(10_000, dtype=np.int64))
    assert len(set(images.tolist())) == 10_000
    assert images.min() >= 0
    assert images.max() < 10**13


def test_golden_order() -> None:
    """These numbers are written into every plan's meaning: if they change, ORDER_VERSION must."""
    assert Permutation(10, 3).all().tolist() == GOLDEN_ORDER
    assert derive_seed("mix", 1, "web") == GOLDEN_SEED


GOLDEN_ORDER = [1, 7, 0, 9, 8, 5, 3, 2, 6, 4]
GOLDEN_SEED = 6140502853977828838


def test_low_bits_do_not_follow_the_position() -> None:
    """Half of the neighbours differ in the low bit: no bit of the position shows through the order."""
    low = Permutation(2**20, 11).all() & 1
    assert abs(float(np.mean(low[1:] != low[:-1])) - 0.5) < 0.01


def test_equal_values_have_equal_fingerprints_in_another_process() -> None:
    here = fingerprint({"b": (1, 2.0), "a": "é"}, None)
    code = "from pipeline.core.fingerprint import fingerprint; print(fingerprint({'a': 'é', 'b': [1, 2]}, None))"
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert here == there


def test_a_value_without_canonical_form_is_refused() -> None:
    with pytest.raises(TypeError, match="no canonical form"):
        canonical({"x": object()})
    with pytest.raises(TypeError, match="text keys"):
        canonical({1: "x"})
