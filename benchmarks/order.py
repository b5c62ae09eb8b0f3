"""Which row is served at a position: a keyed permutation that is computed, against indexes that are stored.

Contract: all give the rows of positions 0 to n-1. Ours holds nothing a row; numpy holds 8 bytes, Megatron's blending
index (10 sources) 10 bytes. They are different orders, so `equal` says nothing; the quality is bytes held a row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from benchmarks.measure import Side, interleaved
from benchmarks.peers import against, peer
from benchmarks.result import Comparison, Found, Spread
from benchmarks.settings import Settings, SizeName
from pipeline.core.rng import Permutation

NAME = "order"
SOURCES = 10
SEED = 0


@dataclass(frozen=True)
class Load:
    rows: int
    rounds: int


LOADS: dict[SizeName, Load] = {"full": Load(10_000_000, 3), "quick": Load(200_000, 1)}


def run(settings: Settings) -> Iterator[Found]:
    """Against numpy and, where it is installed, Megatron-core."""
    load = LOADS[settings.size]
    yield _compared(load, lambda: np.random.default_rng(SEED).permutation(load.rows), "numpy Generator.permutation", 8)
    yield from against(
        "Megatron build_blending_indices",
        ("megatron",),
        lambda: _compared(load, _megatron(load.rows), f"Megatron build_blending_indices, {SOURCES} sources", 10),
    )


def _compared(load: Load, theirs: Side, peer_name: str, peer_bytes: int) -> Comparison:
    positions = np.arange(load.rows)
    seconds = interleaved([lambda: Permutation(load.rows, SEED).take(positions), theirs], load.rounds)
    return Comparison(
        NAME,
        "all rows in order",
        "rows/s",
        Spread.rate(load.rows, seconds[0]),
        Spread.rate(load.rows, seconds[1]),
        peer_name,
        f"generated: {load.rows:,} rows",
        quality_ours=0,
        quality_peer=peer_bytes,
        quality="bytes held a row",
    )


def _megatron(rows: int) -> Side:
    build = peer("megatron.core.datasets.helpers_cpp").build_blending_indices
    weights = np.full(SOURCES, 1 / SOURCES)
    source_of_row, sample_of_row = np.zeros(rows, np.int16), np.zeros(rows, np.int64)
    return lambda: build(source_of_row, sample_of_row, weights, SOURCES, rows, False)
