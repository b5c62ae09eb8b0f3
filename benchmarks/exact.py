"""Exact deduplication, Parquet to Parquet: ours against datatrove's three blocks over the same file.

Contract: the documents, and every fourth of them once more. Ours hashes, finds and filters as `dedup.exact` does, which
also writes what was dropped, for which document, and the sizes of clusters. datatrove: ExactDedupSignature,
ExactFindDedups, ExactDedupFilter between its ParquetReader and ParquetWriter. Equal: as many documents stay.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.datatrove_peer import silence
from benchmarks.dedup_steps import deduplicated, write_input
from benchmarks.inputs import Corpus, documents
from benchmarks.measure import interleaved
from benchmarks.peers import against
from benchmarks.result import Comparison, Found, Spread
from benchmarks.settings import Settings, SizeName

if TYPE_CHECKING:
    from datatrove.data import Document

NAME = "exact"
PEER = "datatrove ExactDedup, with its reader and writer"
EVERY = 4


@dataclass(frozen=True)
class Load:
    bytes_of_language: int
    rounds: int


LOADS: dict[SizeName, Load] = {"full": Load(3_000_000, 5), "quick": Load(5_000, 1)}


def run(settings: Settings) -> Iterator[Found]:
    """One comparison."""
    load = LOADS[settings.size]
    yield from against(PEER, ("datatrove", "xxhash"), lambda: _compared(load))


def _compared(load: Load) -> Comparison:
    from datatrove.pipeline.dedup.exact_dedup import (
        ExactDedupConfig,
        ExactDedupFilter,
        ExactDedupSignature,
        ExactFindDedups,
    )
    from datatrove.pipeline.readers import ParquetReader
    from datatrove.pipeline.writers import ParquetWriter

    silence()
    corpus = with_copies(documents(load.bytes_of_language))
    kept: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        given = write_input(folder, corpus)
        config = ExactDedupConfig(content_getter=_text)
        reader: Any = ParquetReader(str(given / "documents"), glob_pattern="*.parquet")

        def ours() -> None:
            kept["ours"] = deduplicated("dedup.exact", given, folder / "ours")["documents_out"]

        def theirs() -> None:
            out = folder / "theirs"
            shutil.rmtree(out, ignore_errors=True)
            ExactDedupSignature(str(out / "hashes"), config).run(reader.run(None, 0, 1))
            ExactFindDedups(str(out / "hashes"), str(out / "found"), config).run(None, 0, 1)
            passing = ExactDedupFilter(str(out / "found"), config).run(reader.run(None, 0, 1))
            written = ParquetWriter(str(out / "documents"), compression="zstd").run(passing)
            kept["peer"] = sum(1 for _ in written)

        seconds = interleaved([ours, theirs], load.rounds)
    return Comparison(
        NAME,
        "Parquet to survivors",
        "MB/s",
        Spread.rate(corpus.megabytes, seconds[0]),
        Spread.rate(corpus.megabytes, seconds[1]),
        PEER,
        corpus.label,
        equal=kept["ours"] == kept["peer"],
        quality_ours=kept["ours"] / len(corpus.ids),
        quality_peer=kept["peer"] / len(corpus.ids),
        quality="documents kept",
    )


def with_copies(corpus: Corpus) -> Corpus:
    """Every `EVERY`-th document once more, under another id."""
    return Corpus(
        (*corpus.ids, *(f"{identity} again" for identity in corpus.ids[::EVERY])),
        (*corpus.texts, *corpus.texts[::EVERY]),
        (*corpus.languages, *corpus.languages[::EVERY]),
        f"{corpus.label}, every {EVERY}th twice",
    )


def _text(document: Document) -> str:
    return document.text


_text.__annotations__["return"] = str  # datatrove reads the type itself, not its name
