"""Packing pieces into rows: ours against OLMo-core's best-fit-decreasing packer.

Contract: the same lengths, as a web corpus has them (lognormal, mean about 1,010 tokens: ours), at rows of 8,192 and
262,144 tokens; both are best fit, so `equal` is the same number of rows. Quality is the share of the rows that is
tokens, ours in windows of 100,000 pieces as in a plan.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from benchmarks.measure import interleaved
from benchmarks.peers import against, peer
from benchmarks.result import Comparison, Found, Spread
from benchmarks.settings import Settings, SizeName
from mixes.packing import pack

NAME = "pack"
LOG_MEAN, LOG_DEVIATION = 6.2, 1.2  # of tokens
WINDOW_PIECES = 100_000


@dataclass(frozen=True)
class Load:
    pieces: int
    rounds: int
    rows_tokens: tuple[int, ...]


LOADS: dict[SizeName, Load] = {"full": Load(300_000, 3, (8192, 262_144)), "quick": Load(5_000, 1, (8192,))}


def run(settings: Settings) -> Iterator[Found]:
    """One comparison a row length."""
    load = LOADS[settings.size]
    for row_tokens in load.rows_tokens:
        lengths_P = web_lengths(load.pieces, row_tokens)
        yield from against(
            "OLMo-core InstancePacker",
            ("olmo_core",),
            lambda row_tokens=row_tokens, lengths_P=lengths_P: _compared(lengths_P, row_tokens, load.rounds),
        )


def web_lengths(pieces: int, row_tokens: int) -> np.ndarray:
    """[pieces] int64 tokens in 1..row_tokens."""
    drawn = np.random.default_rng(0).lognormal(LOG_MEAN, LOG_DEVIATION, pieces)
    return np.clip(drawn, 1, row_tokens).astype(np.int64)


def _compared(lengths_P: np.ndarray, row_tokens: int, rounds: int) -> Comparison:
    packer = peer("olmo_core.data.utils").InstancePacker
    ends_P = np.cumsum(lengths_P)
    spans = np.stack([ends_P - lengths_P, ends_P], axis=1).astype(np.uint64)
    rows: dict[str, int] = {}

    def ours() -> None:
        rows["ours"] = pack(lengths_P, row_tokens)[1]

    def theirs() -> None:
        rows["peer"] = len(packer(row_tokens).pack_documents(spans)[0])

    seconds = interleaved([ours, theirs], rounds)
    pieces = lengths_P.shape[0]
    windows = np.split(lengths_P, range(WINDOW_PIECES, pieces, WINDOW_PIECES))
    windowed_rows = sum(pack(window, row_tokens)[1] for window in windows)
    tokens = int(lengths_P.sum())
    return Comparison(
        NAME,
        f"rows of {row_tokens:,} tokens",
        "pieces/s",
        Spread.rate(pieces, seconds[0]),
        Spread.rate(pieces, seconds[1]),
        "OLMo-core InstancePacker",
        f"generated: {pieces:,} lognormal lengths, mean {tokens / pieces:,.0f} tokens",
        equal=rows["ours"] == rows["peer"],
        quality_ours=tokens / (windowed_rows * row_tokens),
        quality_peer=tokens / (rows["peer"] * row_tokens),
        quality="fill",
        notes={"rows": rows, "rows_windowed": windowed_rows, "window_pieces": WINDOW_PIECES},
    )
