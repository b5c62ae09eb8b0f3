"""The loss of a training in eight bits beside the same in bfloat16: same weights, rows and order, several seeds.

Contract: products in eight bits are emulated exactly on a processor (`trainer/model/float8.py`). The figure is the mean
loss of the last steps; the gap's spread over seeds stands in the notes. Both sides update with Muon.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import mean

import numpy as np

from benchmarks.byte_training import ROW_TOKENS, ROWS, byte_rows, new_model, train
from benchmarks.inputs import documents
from benchmarks.result import Comparison, Found, Spread
from benchmarks.settings import Settings, SizeName
from trainer.config import Precision
from trainer.presets import PRESETS

NAME = "float8-gap"


@dataclass(frozen=True)
class Load:
    steps: int
    last_steps: int  # whose losses count
    seeds: int
    text_bytes: int
    layers: int
    width: int


LOADS: dict[SizeName, Load] = {"full": Load(240, 40, 3, 1_000_000, 4, 256), "quick": Load(4, 2, 1, 50_000, 2, 64)}


def run(settings: Settings) -> Iterator[Found]:
    """One row: mean losses of all seeds, and the gap of each."""
    load = LOADS[settings.size]
    corpus = documents(load.text_bytes, ["en"])
    rows_RT = byte_rows(corpus)
    losses: dict[Precision, list[float]] = {"float8": [], "bfloat16": []}
    for seed in range(load.seeds):
        for precision, found in losses.items():
            found.append(_last_loss(load, rows_RT, seed, precision))
    ours, theirs = (Spread.of(losses[precision]) for precision in ("float8", "bfloat16"))
    gaps = [100 * (eight / sixteen - 1) for eight, sixteen in zip(losses["float8"], losses["bfloat16"], strict=True)]
    yield Comparison(
        NAME,
        f"mean loss of steps {load.steps - load.last_steps + 1} to {load.steps}",
        "nats",
        ours,
        theirs,
        "the same training in bfloat16",
        f"{load.layers} layers of width {load.width}, {ROWS} x {ROW_TOKENS} bytes a step; {corpus.label}",
        quality_ours=mean(gaps),
        quality="mean gap in percent",
        notes={"gaps_percent": gaps, "losses": losses},
    )


def _last_loss(load: Load, rows_RT: np.ndarray, seed: int, precision: Precision) -> float:
    config = PRESETS["small"].replaced(num_layers=load.layers, hidden_size=load.width)
    found = list(train(new_model(config, seed, precision), rows_RT, load.steps))
    return mean(found[-load.last_steps :])
