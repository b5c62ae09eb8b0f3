"""Cleaning: a source (or other steps' documents) through the per-document blocks, in order.

Contract: step kind `stages.clean`. Writes `documents/NNNNN.parquet`, `dropped/NNNNN.parquet` and, when a block gives
signals, `signals/NNNNN.parquet`. Compliance runs first on a source, whatever the configuration lists. Output shards: a
source's files, grouped or cut by size (`stages.sources.shard_parts`), or one for each input shard. For every shard
documents_in + documents_split == documents_out + the sum of dropped. A record whose id an earlier one of the shard has
is dropped; ids that several shards hold are counted and named in the record's facts (`repeated_ids`), since no shard
may read another one. Memory: one batch and one row group, whatever a shard holds; less than 1 GiB in all with a
single document of 64 MB, which no block makes a string of (`stages.long_texts`); most is taken by the signals' words.
`rules` blocks that lead a step of documents judge the signals that the step before stored; the signals of documents
that stay are handed on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.core.documents import document_files
from pipeline.core.errors import InputError
from pipeline.core.record import ShardResult
from pipeline.core.steps import StepTask
from stages.block import Block, verify
from stages.catalog import BLOCKS, block_reports, load, make_block
from stages.clean_output import ShardOutput, opened
from stages.config import BlockSpec, CleanConfig
from stages.listed import COMPLIANCE, RULES
from stages.memory import LARGE_BYTES, give_back
from stages.read import ReadBatch, document_batches, read_parts
from stages.repeated_ids import repeated_ids
from stages.rows import Origin
from stages.rules import RulesConfig
from stages.sources import Part, files_of, shard_parts
from stages.stored_signals import StoredRules, StoredSignals
from stages.takedown import takedown_filters


class CleanWork:
    """The step's work."""

    def shard_count(self, task: StepTask) -> int:
        return len(_source_shards(task)) if task.config.read is not None else len(_input_files(task))

    def make_shard(self, task: StepTask, shard: int) -> ShardResult:
        stored = _stored(task, shard)
        blocks = _blocks(task, stored)
        with opened(task.folder, shard, stored) as output:
            for batch in _batches(task, shard):
                documents = output.read(batch)
                del batch  # a large document is in memory once, as the last block left it
                for block in blocks:
                    documents = _applied(block, documents, output)
                output.keep(documents)
                del documents  # before the next batch is read
            return output.result()

    def finish(self, task: StepTask, results: Sequence[ShardResult]) -> Mapping[str, Any]:
        """Facts: the funnel by source and language; `nothing_left` when documents came in and none is kept;
        `repeated_ids` when shards share ids."""
        total: dict[str, Any] = {"by_source": {}, "by_language": {}}
        for result in results:
            for part, values in total.items():
                for name, row in result.facts[part].items():
                    _add(values.setdefault(name, {}), row)
        seen = sum(result.counts["documents_in"] for result in results)
        if not seen and task.config.source:
            where = f"source `{task.config.source}`"
            raise InputError("no documents in it", where=where, fix="check `read: paths:` and the files' content")
        if seen and not sum(result.counts["documents_out"] for result in results):
            total["nothing_left"] = True
        if repeated := repeated_ids(document_files(task.folder)):
            total["repeated_ids"] = repeated
        return total | block_reports(task.config.blocks, task.folder, task.paths)


def _applied(block: Block, documents: pa.Table, output: ShardOutput) -> pa.Table:
    result = block.apply(documents)
    verify(documents, result)
    output.block(documents, result)
    if documents.nbytes > LARGE_BYTES:
        give_back()
    return result.kept


def _batches(task: StepTask, shard: int) -> Iterator[ReadBatch]:
    config: CleanConfig = task.config
    if config.read is not None and config.card is not None:
        origin = Origin(config.source, config.card.license, config.read.domain or config.card.domain, config.read.lang)
        yield from read_parts(_source_shards(task)[shard], config.read, origin)
        return
    yield from map(ReadBatch, document_batches(_input_files(task)[shard]))


def _source_shards(task: StepTask) -> list[tuple[Part, ...]]:
    return shard_parts(files_of(task.paths), task.config.read.kind, task.config.read.shard_bytes)


def _input_files(task: StepTask) -> list[Path]:
    return [file for role in sorted(task.inputs) for file in document_files(task.inputs[role].folder)]


def _stored(task: StepTask, shard: int) -> StoredSignals | None:
    """Signals of the shard's documents that an earlier step measured, if any."""
    return None if task.config.read is not None else StoredSignals.beside(_input_files(task)[shard])


def _blocks(task: StepTask, stored: StoredSignals | None) -> list[Block]:
    """Takedowns first and last; compliance with the source's card, with the options listed for it, if any; the rest."""
    config: CleanConfig = task.config
    listed = list(enumerate(config.blocks))
    first = [(number, spec) for number, spec in listed if spec.name == COMPLIANCE]
    checks = [make_block(spec, number, task.paths, card=config.card) for number, spec in first]
    if config.card is not None and not checks:
        default = BlockSpec(name=COMPLIANCE, config=load(BLOCKS[COMPLIANCE].config)())
        checks = [make_block(default, 0, {}, card=config.card)]
    leading = list(takewhile(lambda spec: spec.name == RULES, config.blocks)) if config.read is None else []
    judges = [_judge(spec, task, stored) for spec in leading]
    rest = [(number, spec) for number, spec in listed[len(leading) :] if spec.name != COMPLIANCE]
    blocks = [make_block(spec, number, task.paths) for number, spec in rest]
    return [*takedown_filters(task.paths), *checks, *judges, *blocks, *takedown_filters(task.paths)]


def _judge(spec: BlockSpec, task: StepTask, stored: StoredSignals | None) -> Block:
    assert isinstance(spec.config, RulesConfig)
    return StoredRules(spec.config, stored, task.name)


def _add(total: dict[str, Any], part: Mapping[str, Any]) -> None:
    for key, value in part.items():
        if isinstance(value, Mapping):
            _add(total.setdefault(key, {}), value)
        else:
            total[key] = total.get(key, 0) + value


WORK = CleanWork()
