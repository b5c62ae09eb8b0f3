"""The last part of a deduplication: each input shard without its duplicates.

Contract: output shard k holds the survivors of input shard k (roles in ascending order, files in order), with the
sizes of their clusters, and the signals of the survivors where the input has any. Rows are removed by id: a shard whose
ids are not the ones the clusters were made of is refused. Reason: the block's name (`.earlier` added where the document
kept is an earlier crawl's), detail: the id of the document kept. Memory: a batch of documents and one row group.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.core.documents import DOCUMENT_SCHEMA, DROPPED_SCHEMA, write_table
from pipeline.core.errors import InputError
from pipeline.core.record import ShardResult
from pipeline.core.steps import StepTask
from stages.block import pc, with_columns
from stages.clean_output import KEPT_SAMPLES, SAMPLE_BYTES, TableWriter, table_writer
from stages.dedup.batches import table_batches
from stages.dedup.clusters import read_decisions
from stages.dedup.layout import CLUSTERS
from stages.dedup.sign import input_files
from stages.dedup.signatures import text_bytes
from stages.language import UNDETERMINED
from stages.stored_signals import SIGNALS, signals_file


class SurvivorsWork:
    """The step's work: one output shard for each input shard."""

    def shard_count(self, task: StepTask) -> int:
        return len(input_files(task))

    def make_shard(self, task: StepTask, shard: int) -> ShardResult:
        file = input_files(task)[shard]
        decisions = read_decisions(task.inputs[CLUSTERS].folder, shard)
        decided = decisions["row"].to_numpy()
        first = 0
        with filtered(task.folder, shard, file) as output:
            for table in table_batches(file):
                part = decisions.slice(*_within(decided, first, first + table.num_rows))
                rows = part["row"].to_numpy() - first
                _check(table, rows, part, file)
                sizes = table["cluster_size"].fill_null(1).to_numpy().astype(np.int64)
                sizes[rows] = part["cluster_size"].to_numpy()
                is_gone = ~part["kept"].to_numpy()
                gone = part.filter(pa.array(is_gone))
                reason = task.config.reason
                reasons = [f"{reason}.earlier" if earlier else reason for earlier in gone["earlier"].to_pylist()]
                changed = with_columns(table, {"cluster_size": pa.array(sizes, pa.int32())})
                output.add(table, changed, rows[is_gone], reasons, gone["keeper"].to_pylist())
                first += table.num_rows
            if decided.shape[0] and decided[-1] >= first:
                raise _changed(file)
            return output.result()

    def finish(self, task: StepTask, results: Sequence[ShardResult]) -> Mapping[str, Any]:
        return merged_facts(results)


class FilteredShard:
    """One output shard as batches come: what stays, what goes and why; `filtered` makes one."""

    def __init__(self, kept: TableWriter, dropped: TableWriter) -> None:
        self._kept = kept
        self._dropped = dropped
        self._results: list[ShardResult] = []
        self._seen: Counter[str] = Counter()
        self._sample_bytes = 0
        self.staying: list[pa.ChunkedArray] = []  # ids

    def add(
        self, before: pa.Table, changed: pa.Table, gone: np.ndarray, reasons: Sequence[str], details: Sequence[str]
    ) -> None:
        """A batch as it came and as it is now; its rows `gone` do not stay."""
        stays = np.ones(changed.num_rows, bool)
        stays[gone] = False
        kept = changed.filter(pa.array(stays)) if gone.shape[0] else changed
        dropped = self._dropped_table(before, gone, reasons, details)
        self._results.append(shard_result(before, kept, dropped))
        self.staying.append(kept["id"])
        self._kept.add(kept)
        self._dropped.add(dropped)

    def result(self) -> ShardResult:
        """The batches' results added up."""
        total: dict[str, Any] = {}
        for result in self._results:
            _add(total, {name: getattr(result, name) for name in ("counts", "dropped", "licenses", "facts")})
        return ShardResult(**_in_order(total))

    def _dropped_table(
        self, table: pa.Table, rows: np.ndarray, reasons: Sequence[str], details: Sequence[str]
    ) -> pa.Table:
        """`DROPPED_SCHEMA` rows; the first texts of each reason are kept."""
        part = table.select(["id", "source", "url", "lang", "text"]).take(pa.array(rows))
        texts: list[str | None] = []
        for row, (reason, size) in enumerate(zip(reasons, pc.binary_length(part["text"]).to_pylist(), strict=True)):
            self._seen[reason] += 1
            is_sample = self._seen[reason] <= KEPT_SAMPLES and self._sample_bytes + size <= SAMPLE_BYTES
            self._sample_bytes += size if is_sample else 0
            texts.append(part["text"][row].as_py() if is_sample else None)
        columns = {
            **{name: part[name] for name in ("id", "source", "url", "lang")},
            "reason": pa.array(list(reasons), pa.string()),
            "detail": pa.array(list(details), pa.string()),
            "text": pa.array(texts, pa.large_string()),
        }
        return pa.table(columns).cast(DROPPED_SCHEMA)


@contextmanager
def filtered(folder: Path, shard: int, file: Path) -> Generator[FilteredShard]:
    """The output of a step that gives the documents of shard `file` on, with the signals of those that stay."""
    name = f"{shard:05d}.parquet"
    with (
        table_writer(folder / "documents" / name, DOCUMENT_SCHEMA) as kept,
        table_writer(folder / "dropped" / name, DROPPED_SCHEMA) as dropped,
    ):
        output = FilteredShard(kept, dropped)
        yield output
        if signals_file(file).is_file():
            signals = pq.read_table(signals_file(file))
            staying = pa.chunked_array(output.staying, pa.string())
            write_table(folder / SIGNALS / name, signals.filter(pc.is_in(signals["id"], value_set=staying)))


def _within(rows: np.ndarray, first: int, last: int) -> tuple[int, int]:
    """(offset, length) of the ascending rows in [first, last)."""
    begin, end = np.searchsorted(rows, (first, last)).tolist()
    return begin, end - begin


def merged_facts(results: Sequence[ShardResult]) -> dict[str, Any]:
    """The shards' facts added up: nested mappings of counts."""
    total: dict[str, Any] = {}
    for result in results:
        _add(total, result.facts)
    return total


def shard_result(table: pa.Table, kept: pa.Table, dropped: pa.Table) -> ShardResult:
    """Counts of what came in, what stays and what went, by source and language."""
    reasons = dropped["reason"].to_pylist()
    facts: dict[str, Any] = {"cluster_sizes": _count([str(size) for size in kept["cluster_size"].to_pylist()])}
    for name, column in (("by_source", "source"), ("by_language", "lang")):
        into, out, gone = (
            [value or UNDETERMINED for value in part[column].to_pylist()] for part in (table, kept, dropped)
        )
        counted = _count(out)
        facts[name] = {
            value: {
                "in": count,
                "out": counted.get(value, 0),
                "dropped": _count([reason for where, reason in zip(gone, reasons, strict=True) if where == value]),
            }
            for value, count in _count(into).items()
        }
    return ShardResult(
        counts={
            "documents_in": table.num_rows,
            "documents_out": kept.num_rows,
            "bytes_in": text_bytes(table),
            "bytes_out": text_bytes(kept),
        },
        dropped=_count(reasons),
        licenses=_count([value for value in kept["license"].to_pylist() if value]),
        facts=facts,
    )


def _check(table: pa.Table, rows: np.ndarray, decisions: pa.Table, file: Path) -> None:
    if table["id"].take(pa.array(rows)).to_pylist() != decisions["id"].to_pylist():
        raise _changed(file)


def _changed(file: Path) -> InputError:
    fix = "run the steps again from the one that writes these documents"
    return InputError("documents changed while they were deduplicated", where=str(file), fix=fix)


def _in_order(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _in_order(value) if isinstance(value, Mapping) else value for key, value in sorted(table.items())}


def _count(values: Sequence[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))


def _add(total: dict[str, Any], part: Mapping[str, Any]) -> None:
    for key, value in part.items():
        if isinstance(value, Mapping):
            _add(total.setdefault(key, {}), value)
        else:
            total[key] = total.get(key, 0) + value


WORK = SurvivorsWork()
