"""The last part of a deduplication: each input shard without its duplicates.

Contract: output shard k holds the survivors of input shard k (roles in ascending order, files in order), with the
sizes of their clusters, and the signals of the survivors where the input has any. Rows are removed by id: a shard whose
ids are not the ones the clusters were made of is refused. Reason: the block's name (`.earlier` added where the document
kept is an earlier crawl's), detail: the id of the document kept. Memory: one shard.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.core.documents import (
    DOCUMENT_SCHEMA,
    DROPPED_SCHEMA,
    read_table,
    write_documents,
    write_dropped,
    write_table,
)
from pipeline.core.errors import InputError
from pipeline.core.record import ShardResult
from pipeline.core.steps import StepTask
from stages.dedup.clusters import read_decisions
from stages.dedup.layout import CLUSTERS
from stages.dedup.sign import SIGNALS, input_files, signals_file
from stages.dedup.signatures import text_bytes

UNDETERMINED = "und"  # BCP-47, of a document whose language was never identified
KEPT_SAMPLES = 50  # dropped texts kept a reason and shard


class SurvivorsWork:
    """The step's work: one output shard for each input shard."""

    def shard_count(self, task: StepTask) -> int:
        return len(input_files(task))

    def make_shard(self, task: StepTask, shard: int) -> ShardResult:
        file = input_files(task)[shard]
        table = read_table(file, DOCUMENT_SCHEMA)
        decisions = read_decisions(task.inputs[CLUSTERS].folder, shard)
        _check(table, decisions, file)
        rows = decisions["row"].to_numpy()
        is_kept = decisions["kept"].to_numpy()
        sizes = table["cluster_size"].fill_null(1).to_numpy().astype(np.int64)
        sizes[rows] = decisions["cluster_size"].to_numpy()
        stays = np.ones(table.num_rows, bool)
        stays[rows[~is_kept]] = False
        place = DOCUMENT_SCHEMA.get_field_index("cluster_size")
        kept = table.set_column(place, DOCUMENT_SCHEMA.field(place), pa.array(sizes, pa.int32()))
        kept = kept.filter(pa.array(stays))
        gone = decisions.filter(pa.array(~is_kept))
        reason = task.config.reason
        reasons = [f"{reason}.earlier" if earlier else reason for earlier in gone["earlier"].to_pylist()]
        dropped = dropped_table(table, gone["row"].to_numpy(), reasons, gone["keeper"].to_pylist())
        write_documents(task.folder, shard, kept)
        write_dropped(task.folder, shard, dropped)
        write_signals(task.folder, shard, file, kept)
        return shard_result(table, kept, dropped)

    def finish(self, task: StepTask, results: Sequence[ShardResult]) -> Mapping[str, Any]:
        return merged_facts(results)


def dropped_table(table: pa.Table, rows: np.ndarray, reasons: Sequence[str], details: Sequence[str]) -> pa.Table:
    """`DROPPED_SCHEMA` rows for some rows of a document table; the first texts of each reason are kept."""
    part = table.take(pa.array(rows))
    seen: Counter[str] = Counter()
    texts: list[str | None] = []
    for row, reason in enumerate(reasons):
        seen[reason] += 1
        texts.append(part["text"][row].as_py() if seen[reason] <= KEPT_SAMPLES else None)
    columns = {
        **{name: part[name] for name in ("id", "source", "url", "lang")},
        "reason": pa.array(list(reasons), pa.string()),
        "detail": pa.array(list(details), pa.string()),
        "text": pa.array(texts, pa.large_string()),
    }
    return pa.table(columns).cast(DROPPED_SCHEMA)


def write_signals(folder: Path, shard: int, file: Path, kept: pa.Table) -> None:
    """Hand the signals of the survivors of document shard `file` on."""
    if signals_file(file).is_file():
        signals = pq.read_table(signals_file(file))
        staying = set(kept["id"].to_pylist())
        mask = pa.array([identity in staying for identity in signals["id"].to_pylist()], pa.bool_())
        write_table(folder / SIGNALS / f"{shard:05d}.parquet", signals.filter(mask))


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


def _check(table: pa.Table, decisions: pa.Table, file: Path) -> None:
    rows = decisions["row"]
    inside = len(rows) == 0 or int(rows[-1].as_py()) < table.num_rows  # they ascend
    if not inside or table["id"].take(rows).to_pylist() != decisions["id"].to_pylist():
        fix = "run the steps again from the one that writes these documents"
        raise InputError("documents changed while they were deduplicated", where=str(file), fix=fix)


def _count(values: Sequence[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))


def _add(total: dict[str, Any], part: Mapping[str, Any]) -> None:
    for key, value in part.items():
        if isinstance(value, Mapping):
            _add(total.setdefault(key, {}), value)
        else:
            total[key] = total.get(key, 0) + value


WORK = SurvivorsWork()
