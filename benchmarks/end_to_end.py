"""Parquet -> rules -> Parquet, files and all, against datatrove's reader, filters and writer on the same file.

Contract: ours is one shard of a cleaning step with the block `rules`: every signal computed and written beside the
documents, dropped rows written with their reasons, every file fsynced. datatrove's is ParquetReader, the chain of its
Gopher, C4 and FineWeb filters of the language, ParquetWriter; its dropped documents are not written.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.datatrove_peer import CODES, silence
from benchmarks.inputs import Corpus
from benchmarks.measure import interleaved
from benchmarks.result import Comparison, Found, Spread
from benchmarks.settings import Settings, SizeName
from benchmarks.signals import Load, both_chains
from pipeline.core.provenance import SourceCard
from pipeline.core.steps import StepTask
from stages.clean import WORK
from stages.config import BlockSpec, CleanConfig, ReadConfig
from stages.rules import RulesConfig
from stages.sources import expand_paths, step_paths

NAME = "end-to-end"
# Opening, syncing and renaming three files takes ours about 10 ms: as much as cleaning a megabyte.
LOADS: dict[SizeName, Load] = {"full": Load(300_000, 1), "quick": Load(3_000, 1)}


def run(settings: Settings) -> Iterator[Found]:
    """Early drops, and every document through the whole chain, for each language."""
    yield from both_chains(LOADS[settings.size], "datatrove ParquetReader, filters, ParquetWriter", _compared)


def _compared(part: Corpus, language: str, rounds: int, peer_name: str, chain: Any) -> Comparison:
    from datatrove.pipeline.readers import ParquetReader
    from datatrove.pipeline.writers import ParquetWriter

    silence()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in").mkdir()
        table = pa.table({"id": part.ids, "text": part.texts, "lang": part.languages})
        pq.write_table(table, folder / "in" / "documents.parquet", compression="zstd")
        task = _task(folder)
        filters = chain(CODES[language])
        kept: dict[str, int] = {}

        def ours() -> None:
            kept["ours"] = WORK.make_shard(task, 0).counts["documents_out"]

        def theirs() -> None:
            shutil.rmtree(folder / "out", ignore_errors=True)
            passing: Any = ParquetReader(str(folder / "in"), glob_pattern="*.parquet").run(None, 0, 1)
            for one in filters:
                passing = one.run(passing)
            written = ParquetWriter(str(folder / "out"), compression="zstd").run(passing)
            kept["peer"] = sum(1 for _ in written)

        seconds = interleaved([ours, theirs], rounds)
    return Comparison(
        NAME,
        f"{language}, Parquet to Parquet",
        "MB/s",
        Spread.rate(part.megabytes, seconds[0]),
        Spread.rate(part.megabytes, seconds[1]),
        peer_name,
        part.label,
        quality_ours=kept["ours"] / len(part.ids),
        quality_peer=kept["peer"] / len(part.ids),
        quality="documents kept",
    )


def _task(folder: Path) -> StepTask:
    card = SourceCard(
        origin="benchmark", license="CC0-1.0", basis="own work", collected="2025-01-01", opt_out="none", contact="none"
    )
    read = ReadConfig(kind="parquet", paths=("*.parquet",), lang_key="lang")
    config = CleanConfig(
        source="benchmark",
        read=read.replaced(paths=()),
        card=card,
        blocks=(BlockSpec(name="rules", config=RulesConfig()),),
    )
    paths = step_paths(expand_paths(read, folder / "in"))
    return StepTask("clean.benchmark", "0" * 64, config, {}, folder / "ours", folder, paths)
