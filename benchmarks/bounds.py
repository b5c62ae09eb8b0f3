"""Where each stage stands to what the machine allows: a plain scan of memory, and the decoding of UTF-8.

Contract: the same documents of one language on both sides, one core. The scan sums bytes of the texts as 64-bit
words; decoding makes Python strings of them. A stage cannot be faster than the scan, and no stage that goes through
Python strings faster than decoding. Ratios are far below one: they are shares of the bound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from benchmarks.inputs import LANGUAGES, Corpus, documents
from benchmarks.measure import interleaved
from benchmarks.result import Comparison, Found, Spread
from benchmarks.settings import Settings, SizeName
from pipeline.core.config import Located
from stages.catalog import block_config, make_block
from stages.config import BlockSpec
from stages.words import split

NAME = "bounds"
BLOCKS = ("normalise", "language", "rules", "pii")
SCANNED_BYTES = 256 << 20  # beyond every cache: the documents' bytes over and over


@dataclass(frozen=True)
class Load:
    bytes_of_language: int
    rounds: int


LOADS: dict[SizeName, Load] = {"full": Load(2_000_000, 5), "quick": Load(5_000, 1)}


def run(settings: Settings) -> Iterator[Found]:
    """Words and each per-document block against both bounds, for each language."""
    load = LOADS[settings.size]
    corpus = documents(load.bytes_of_language)
    for language in LANGUAGES:
        yield from _of_language(corpus.of(language), language, load)


def _of_language(part: Corpus, language: str, load: Load) -> Iterator[Found]:
    table = part.table()
    raw = [text.encode() for text in part.texts]
    data = np.frombuffer(b"".join(raw), np.uint8)
    offsets = np.cumsum([0, *map(len, raw)], dtype=np.int64)
    scanned = np.resize(data, SCANNED_BYTES).view(np.uint64)
    sides: dict[str, Callable[[], object]] = {
        "memory scan": scanned.sum,
        "UTF-8 decoding": lambda: [one.decode() for one in raw],
        "words": lambda: split("seodang", data, offsets, [language] * len(raw)),
        **{name: _applied(name, table) for name in BLOCKS},
    }
    seconds = dict(zip(sides, interleaved(list(sides.values()), load.rounds), strict=True))
    sizes = dict.fromkeys(sides, part.megabytes) | {"memory scan": SCANNED_BYTES / 1e6}
    rates = {name: Spread.rate(sizes[name], seconds[name]) for name in sides}
    for bound in ("memory scan", "UTF-8 decoding"):
        for name in ("words", *BLOCKS):
            yield Comparison(NAME, f"{language}, {name}", "MB/s", rates[name], rates[bound], bound, part.label)


def _applied(name: str, table: pa.Table) -> Callable[[], object]:
    if name == "language":  # it believes what is there
        table = table.set_column(table.schema.get_field_index("lang"), "lang", pa.nulls(table.num_rows, pa.string()))
    block = make_block(BlockSpec(name=name, config=block_config(name, Located({}))), 0, {})
    return lambda: block.apply(table)
