"""Where each stage stands to what the machine allows: the decoding of UTF-8, and a plain scan of memory.

Contract: the same documents of one language on both sides, one core. Decoding makes Python strings of the texts; the
scan sums bytes as 64-bit words. A stage cannot be faster than the scan, and no stage that goes through Python strings
faster than decoding: the ratio is to decoding, the quality is the share of the scan. Stages stand for their kernels and
blocks in memory; what whole steps reach between files is in the benchmarks beside peers.
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
from stages.block import text_hashes
from stages.catalog import block_config, make_block
from stages.config import BlockSpec
from stages.dedup.methods import MinhashConfig, ParagraphsConfig, SubstringConfig
from stages.dedup.paragraphs import paragraphs
from stages.dedup.signatures import signatures, text_buffers
from stages.dedup.substrings import text_anchors
from stages.words import split

NAME = "bounds"
BLOCKS = ("normalise", "language", "rules", "pii", "toxicity")
SCANNED_BYTES = 256 << 20  # beyond every cache: the documents' bytes over and over
DECODED = 20  # times, for it takes too short to be timed


@dataclass(frozen=True)
class Load:
    bytes_of_language: int
    rounds: int


LOADS: dict[SizeName, Load] = {"full": Load(1_000_000, 3), "quick": Load(5_000, 1)}


def run(settings: Settings) -> Iterator[Found]:
    """Words, each per-document block and each deduplication's reading of texts, for each language."""
    load = LOADS[settings.size]
    corpus = documents(load.bytes_of_language)
    for language in LANGUAGES:
        yield from _of_language(corpus.of(language), language, load)


def _of_language(part: Corpus, language: str, load: Load) -> Iterator[Found]:
    table = part.table()
    texts = table["text"]
    data, offsets = text_buffers(texts)
    raw = [text.encode() for text in part.texts]
    scanned = np.resize(data, SCANNED_BYTES).view(np.uint64)
    minhash, window = MinhashConfig(), SubstringConfig().minimum_bytes
    stages: dict[str, Callable[[], object]] = {
        "words": lambda: split("seodang", data, offsets, [language] * len(raw)),
        **{name: _applied(name, table) for name in BLOCKS},
        "dedup.exact": lambda: text_hashes(texts),
        "dedup.minhash": lambda: signatures(texts, minhash.shingle, minhash.bands * minhash.rows),
        "dedup.paragraphs": lambda: paragraphs(texts, ParagraphsConfig().minimum_words),
        "dedup.substring": lambda: text_anchors(texts, window),
    }
    bounds = [scanned.sum, lambda: [one.decode() for _ in range(DECODED) for one in raw]]
    scan, decoding, *found = interleaved([*bounds, *stages.values()], load.rounds)
    scan_rate = Spread.rate(SCANNED_BYTES / 1e6, scan)
    decoding_rate = Spread.rate(part.megabytes * DECODED, decoding)
    yield Comparison(NAME, f"{language}, memory scan", "MB/s", scan_rate, decoding_rate, "UTF-8 decoding", part.label)
    for name, seconds in zip(stages, found, strict=True):
        rate = Spread.rate(part.megabytes, seconds)
        yield Comparison(
            NAME,
            f"{language}, {name}",
            "MB/s",
            rate,
            decoding_rate,
            "UTF-8 decoding",
            part.label,
            quality_ours=rate.median / scan_rate.median,
            quality="of a memory scan",
        )


def _applied(name: str, table: pa.Table) -> Callable[[], object]:
    if name == "language":  # it believes what is there
        table = table.set_column(table.schema.get_field_index("lang"), "lang", pa.nulls(table.num_rows, pa.string()))
    block = make_block(BlockSpec(name=name, config=block_config(name, Located({}))), 0, {})
    return lambda: block.apply(table)
