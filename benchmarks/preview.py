"""What a mix would become: our packing of length histograms against packing the documents themselves.

Contract: web-like lengths (lognormal, mean about 1,010 tokens: ours). The peer packs a sample of documents one by one,
OLMo-core's packer where it is installed, ours otherwise; the histogram stands for 10^9 documents. `equal`: on the
sample, the histogram gives the same number of rows as packing each document. Nothing else that we know previews a
packing, so the ratio is documents a second, and `notes` has the milliseconds for the 10^9.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from benchmarks.measure import interleaved, timed
from benchmarks.pack import web_lengths
from benchmarks.result import Comparison, Found, Spread
from benchmarks.settings import Settings, SizeName
from mixes.histogram import pack_histogram
from mixes.packing import pack
from mixes.preview import Lengths, preview
from mixes.spec import PlanConfig

NAME = "preview"
DOCUMENTS = 1_000_000_000


@dataclass(frozen=True)
class Load:
    sample: int
    rounds: int
    rows_tokens: tuple[int, ...]


LOADS: dict[SizeName, Load] = {
    "full": Load(1_000_000, 5, (8192, 32_768, 262_144)),
    "quick": Load(20_000, 1, (8192,)),
}


def run(settings: Settings) -> Iterator[Found]:
    """One comparison a row length."""
    load = LOADS[settings.size]
    for row_tokens in load.rows_tokens:
        yield _compared(row_tokens, load)


def _compared(row_tokens: int, load: Load) -> Comparison:
    sample = web_lengths(load.sample, 1_000_000)
    pieces = np.minimum(sample, row_tokens)
    length_H, count_H = np.unique(sample, return_counts=True)
    scaled = [Lengths("web", "web", length_H, count_H * (DOCUMENTS // load.sample))]
    config = PlanConfig.model_validate(
        {
            "phase": "one",
            "context_tokens": row_tokens,
            "budget_tokens": int(scaled[0].tokens) * 9 // 10,
            "rows_per_batch": 16,
            "seed": 0,
            "mix": {"components": {"web": {"from": ("web",), "weight": 1.0}}},
        }
    )
    seconds = interleaved([lambda: preview(scaled, config, {}), lambda: pack(pieces, row_tokens)], load.rounds)
    rows, _ = pack_histogram(np.bincount(pieces, minlength=row_tokens + 1), row_tokens)
    milliseconds = [1000 * timed(lambda: preview(scaled, config, {})) for _ in range(load.rounds)]
    return Comparison(
        NAME,
        f"rows of {row_tokens:,} tokens",
        "documents/s",
        Spread.rate(DOCUMENTS, seconds[0]),
        Spread.rate(load.sample, seconds[1]),
        "packing each document (ours)",
        f"generated: histogram of {DOCUMENTS:,} lognormal lengths, {length_H.shape[0]:,} distinct",
        equal=rows == pack(pieces, row_tokens)[1],
        notes={"preview_ms": [round(value, 2) for value in sorted(milliseconds)]},
    )
