"""Cleaning: a source (or other steps' documents) through the per-document blocks, in order.

Contract: step kind `stages.clean`. Writes `documents/NNNNN.parquet`, `dropped/NNNNN.parquet` and, when a block gives
signals or evidence, `signals/NNNNN.parquet` and `NAME/NNNNN.parquet`. Compliance runs first on a source, whatever the
configuration lists. Output shards: a source's files grouped by size (`stages.sources.shard_files`), or one for each
input shard. For every shard
documents_in + documents_split == documents_out + the sum of dropped. The text of the first `KEPT_SAMPLES` dropped rows
of each reason is kept. Memory: one output shard and one batch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from pipeline.core.documents import (
    DOCUMENT_SCHEMA,
    DROPPED_SCHEMA,
    document_files,
    empty_documents,
    read_table,
    table_from_rows,
    write_documents,
    write_dropped,
    write_table,
)
from pipeline.core.errors import InputError
from pipeline.core.record import ShardResult
from pipeline.core.steps import StepTask
from pipeline.core.takedown import REASON
from stages.block import SPLIT, Block, Outcome, verify
from stages.catalog import BLOCKS, block_reports, load, make_block
from stages.config import BlockSpec, CleanConfig
from stages.language import UNDETERMINED
from stages.read import BATCH_DOCUMENTS, Origin, ReadBatch, read_files
from stages.sources import files_of, shard_files
from stages.takedown import takedown_filters

KIND = "stages.clean"
VERSION = 1
COMPLIANCE = "compliance"
KEPT_SAMPLES = 50  # dropped texts kept a reason and shard
WITHHELD = frozenset({REASON})  # reasons of which no text is kept


class CleanWork:
    """The step's work."""

    def shard_count(self, task: StepTask) -> int:
        return len(_source_shards(task)) if task.config.read is not None else len(_input_files(task))

    def make_shard(self, task: StepTask, shard: int) -> ShardResult:
        tally = Tally()
        blocks = _blocks(task)
        for batch in _batches(task, shard):
            tally.read(batch)
            documents = _without_repeats(batch.documents, tally)
            for block in blocks:
                result = block.apply(documents)
                verify(documents, result)
                tally.block(documents, result)
                documents = result.kept
            tally.kept.append(documents)
        kept = pa.concat_tables([*tally.kept, empty_documents()]).combine_chunks()
        write_documents(task.folder, shard, kept)
        write_dropped(task.folder, shard, table_from_rows(tally.dropped, DROPPED_SCHEMA))
        if tally.signals:
            write_table(task.folder / "signals" / f"{shard:05d}.parquet", _joined(tally.signals))
        for name, parts in tally.evidence.items():
            write_table(task.folder / name / f"{shard:05d}.parquet", pa.concat_tables(parts).combine_chunks())
        return tally.result(kept)

    def finish(self, task: StepTask, results: Sequence[ShardResult]) -> Mapping[str, Any]:
        """Facts: the funnel by source and language; `nothing_left` when documents came in and none is kept."""
        total: dict[str, Any] = {"by_source": {}, "by_language": {}}
        for result in results:
            for part, values in total.items():
                for name, row in result.facts[part].items():
                    _add(values.setdefault(name, {}), row)
        seen = sum(result.counts["documents_in"] for result in results)
        if not seen:
            where = f"source `{task.config.source}`" if task.config.source else task.name
            raise InputError("no documents in it", where=where, fix="check `read: paths:` and the files' content")
        if not sum(result.counts["documents_out"] for result in results):
            total["nothing_left"] = True
        return total | block_reports(task.config.blocks, task.folder, task.paths)


class Tally:
    """What one shard's batches came to."""

    def __init__(self) -> None:
        self.kept: list[pa.Table] = []
        self.dropped: list[dict[str, Any]] = []
        self.signals: dict[tuple[str, ...], list[pa.Table]] = {}
        self.evidence: dict[str, list[pa.Table]] = {}
        self.counts: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.seen: set[str] = set()

    def read(self, batch: ReadBatch) -> None:
        """Count a batch in, and what reading dropped."""
        self.counts["documents_in"] += batch.documents.num_rows + len(batch.dropped)
        self.counts["bytes_in"] += text_bytes(batch.documents)
        for row in batch.dropped:
            self.drop(row)

    def drop(self, row: dict[str, Any]) -> None:
        """Count a row of `DROPPED_SCHEMA` out; its text goes once enough of its reason are kept."""
        self.reasons[row["reason"]] += 1
        shown = self.reasons[row["reason"]] <= KEPT_SAMPLES and row["reason"] not in WITHHELD
        self.dropped.append(row if shown else {**row, "text": None})

    def block(self, documents: pa.Table, result: Outcome) -> None:
        """Count what a block did to `documents`."""
        self.counts.update(result.counts)
        if result.signals is not None:
            self.signals.setdefault(tuple(result.signals.column_names), []).append(result.signals)
        for name, table in result.evidence.items():
            self.evidence.setdefault(name, []).append(table)
        if not result.reasons:
            return
        rows = documents.take(pa.array(result.dropped_at)).select(["id", "source", "url", "lang", "text"]).to_pylist()
        langs = result.dropped_langs or [row["lang"] for row in rows]
        for row, lang, reason, detail in zip(rows, langs, result.reasons, result.details, strict=True):
            self.drop({**row, "lang": lang, "reason": reason, "detail": detail})

    def result(self, kept: pa.Table) -> ShardResult:
        """The shard's result; asserts that no document was lost."""
        counts = {**self.counts, "documents_out": kept.num_rows, "bytes_out": text_bytes(kept)}
        whole = counts.get("documents_in", 0) + counts.get(SPLIT, 0)
        assert whole == kept.num_rows + self.reasons.total(), (counts, self.reasons)
        facts = {
            "by_source": _funnel(kept["source"].to_pylist(), [(row["source"], row["reason"]) for row in self.dropped]),
            "by_language": _funnel(
                [lang or UNDETERMINED for lang in kept["lang"].to_pylist()],
                [(row.get("lang") or UNDETERMINED, row["reason"]) for row in self.dropped],
            ),
        }
        licenses = Counter(name for name in kept["license"].to_pylist() if name)
        names = ("documents_in", "documents_out", "bytes_in", "bytes_out")
        return ShardResult(
            counts={**dict.fromkeys(names, 0), **dict(sorted(counts.items()))},
            dropped=dict(sorted(self.reasons.items())),
            licenses=dict(sorted(licenses.items())),
            facts=facts,
        )


def text_bytes(documents: pa.Table) -> int:
    """UTF-8 bytes of all texts."""
    return int(pl.Series(documents["text"]).str.len_bytes().sum())


def _batches(task: StepTask, shard: int) -> Iterator[ReadBatch]:
    config: CleanConfig = task.config
    if config.read is not None and config.card is not None:
        origin = Origin(config.source, config.card.license, config.read.domain or config.card.domain, config.read.lang)
        yield from read_files(_source_shards(task)[shard], config.read, origin)
        return
    documents = read_table(_input_files(task)[shard], DOCUMENT_SCHEMA)
    for start in range(0, documents.num_rows, BATCH_DOCUMENTS):
        yield ReadBatch(documents.slice(start, BATCH_DOCUMENTS).combine_chunks())


def _source_shards(task: StepTask) -> list[Any]:
    return shard_files(files_of(task.paths), task.config.read.shard_bytes)


def _input_files(task: StepTask) -> list[Path]:
    return [file for role in sorted(task.inputs) for file in document_files(task.inputs[role].folder)]


def _blocks(task: StepTask) -> list[Block]:
    """Takedowns first and last; compliance with the source's card, with the options listed for it, if any; the rest."""
    config: CleanConfig = task.config
    listed = list(enumerate(config.blocks))
    first = [(number, spec) for number, spec in listed if spec.name == COMPLIANCE]
    blocks = [make_block(spec, number, task.paths) for number, spec in listed if spec.name != COMPLIANCE]
    checks = [make_block(spec, number, task.paths, card=config.card) for number, spec in first]
    if config.card is not None and not checks:
        default = BlockSpec(name=COMPLIANCE, config=load(BLOCKS[COMPLIANCE].config)())
        checks = [make_block(default, 0, {}, card=config.card)]
    return [*takedown_filters(task.paths), *checks, *blocks, *takedown_filters(task.paths)]


def _without_repeats(documents: pa.Table, tally: Tally) -> pa.Table:
    """Drop records whose id an earlier record of the shard has: ids are how documents are removed later."""
    mask = []
    for row, name in enumerate(documents["id"].to_pylist()):
        mask.append(name not in tally.seen)
        tally.seen.add(name)
        if not mask[-1]:
            values = documents.slice(row, 1).select(["id", "source", "url", "lang", "text"]).to_pylist()[0]
            tally.drop({**values, "reason": "read.duplicate_id", "detail": "an earlier record has the same id"})
    return documents if all(mask) else documents.filter(pa.array(mask))


def _joined(signals: Mapping[tuple[str, ...], Sequence[pa.Table]]) -> pa.Table:
    """One row per id over the signal tables of all blocks; the first block's rows lead."""
    joined: pl.DataFrame | None = None
    for _, parts in sorted(signals.items()):
        table = pl.DataFrame(pa.concat_tables(parts))
        if joined is None:
            joined = table
        else:
            new = table.drop([name for name in table.columns if name != "id" and name in joined.columns])
            joined = joined.join(new, on="id", how="full", coalesce=True, maintain_order="left_right")
    assert joined is not None
    arrow = joined.to_arrow()
    return arrow.set_column(0, "id", arrow["id"].cast(pa.string()))


def _funnel(kept: Sequence[str], dropped: Sequence[tuple[str, str]]) -> dict[str, Any]:
    out = Counter(kept)
    gone: dict[str, Counter[str]] = {}
    for name, reason in dropped:
        gone.setdefault(name, Counter())[reason] += 1
    return {
        name: {
            "in": out[name] + gone.get(name, Counter()).total(),
            "out": out[name],
            "dropped": dict(sorted(gone.get(name, Counter()).items())),
        }
        for name in sorted({*out, *gone})
    }


def _add(total: dict[str, Any], part: Mapping[str, Any]) -> None:
    for key, value in part.items():
        if isinstance(value, Mapping):
            _add(total.setdefault(key, {}), value)
        else:
            total[key] = total.get(key, 0) + value


WORK = CleanWork()
