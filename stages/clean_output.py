"""What one shard of a cleaning step writes and counts, as batches come: kept, dropped, signals, and the funnel.

Contract: rows are written in the order they come, a row group as soon as `GROUP_ROWS` rows or `GROUP_BYTES` of text are
there; files appear under their names when the shard is whole. The text of the first `KEPT_SAMPLES` dropped rows of
each reason is kept, `SAMPLE_BYTES` of a shard's in all. Memory: one row group, the samples, the signals.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from pipeline.core.documents import DOCUMENT_SCHEMA, DROPPED_SCHEMA, ROW_GROUP_ROWS, table_from_rows, write_table
from pipeline.core.files import atomic_path
from pipeline.core.record import ShardResult
from pipeline.core.takedown import REASON as TAKEN_DOWN
from stages.block import SPLIT, Outcome
from stages.language import UNDETERMINED
from stages.read import ReadBatch
from stages.stored_signals import StoredSignals

pc: Any = pyarrow.compute  # its functions are made at import and have no types
GROUP_ROWS = ROW_GROUP_ROWS
GROUP_BYTES = 32 << 20
WITHHELD = frozenset({TAKEN_DOWN})  # reasons of which no text is kept
KEPT_SAMPLES = 50  # dropped texts kept a reason and shard
SAMPLE_BYTES = 64 << 20  # of them together: a few huge texts must not fill the memory
# Columns that dictionaries make smaller. One of texts holds every text twice more, and so do their least and greatest.
_REPEATING = frozenset({"source", "lang", "declared_lang", "domain", "license", "robots", "maker", "reason"})
_DESCRIBED = ["id", "source", "url", "lang"]  # columns of a dropped row that the document has


class ShardOutput:
    """The shard's files and counts; `opened` makes one."""

    def __init__(self, kept: TableWriter, dropped: TableWriter, stored: StoredSignals | None) -> None:
        self._kept = kept
        self._dropped = dropped
        self._stored = stored
        self._kept_ids: list[str] = []  # of documents whose stored signals are handed on
        self._signals: dict[tuple[str, ...], list[pa.Table]] = {}
        self._evidence: dict[str, list[pa.Table]] = {}
        self._sample_bytes = 0
        self._seen: set[str] = set()
        self.counts: Counter[str] = Counter(
            dict.fromkeys(("documents_in", "documents_out", "bytes_in", "bytes_out"), 0)
        )
        self.reasons: Counter[str] = Counter()
        self._licenses: Counter[str] = Counter()
        self._by: dict[str, dict[str, Counter[str]]] = {"source": {}, "lang": {}}

    def read(self, batch: ReadBatch) -> pa.Table:
        """Count a batch in; the documents whose id no earlier one of the shard has."""
        self.counts["documents_in"] += batch.documents.num_rows + len(batch.dropped)
        self.counts["bytes_in"] += text_bytes(batch.documents)
        if batch.dropped:
            self._drop(table_from_rows(batch.dropped, DROPPED_SCHEMA))
        return self._without_repeats(batch.documents)

    def block(self, documents: pa.Table, result: Outcome) -> None:
        """Count what a block did to `documents`."""
        self.counts.update(result.counts)
        if result.signals is not None:
            self._signals.setdefault(tuple(result.signals.column_names), []).append(result.signals)
        for name, table in result.evidence.items():
            self._evidence.setdefault(name, []).append(table)
        if result.reasons:
            self._drop_rows(documents, result.dropped_at, result.reasons, result.details, result.dropped_langs)

    def keep(self, documents: pa.Table) -> None:
        """Write what came through all blocks."""
        self.counts["documents_out"] += documents.num_rows
        self.counts["bytes_out"] += text_bytes(documents)
        self._licenses.update({name: n for name, n in _values(documents["license"]).items() if name})
        for column, table in self._by.items():
            for name, count in _values(documents[column]).items():
                table.setdefault(name or UNDETERMINED, Counter())["out"] += count
        if self._stored is not None:
            self._kept_ids += documents["id"].to_pylist()
        self._kept.add(documents)

    def write_signals(self, path: Path) -> None:
        """Write the side table, if there is one: the stored signals of documents that stay, and the step's own."""
        stored = self._stored.of(self._kept_ids) if self._stored is not None else None
        if self._signals:
            write_table(path, _joined(self._signals, stored))
        elif stored is not None:
            write_table(path, stored)

    def write_evidence(self, folder: Path, name: str) -> None:
        """Write what blocks said about the rows they dropped, a folder a table."""
        for table, parts in self._evidence.items():
            write_table(folder / table / name, pa.concat_tables(parts).combine_chunks())

    def result(self) -> ShardResult:
        """The shard's result; asserts that no document was lost."""
        whole = self.counts["documents_in"] + self.counts.get(SPLIT, 0)
        assert whole == self.counts["documents_out"] + self.reasons.total(), (self.counts, self.reasons)
        return ShardResult(
            counts=dict(sorted(self.counts.items())),
            dropped=dict(sorted(self.reasons.items())),
            licenses=dict(sorted(self._licenses.items())),
            facts={"by_source": _funnel(self._by["source"]), "by_language": _funnel(self._by["lang"])},
        )

    def _without_repeats(self, documents: pa.Table) -> pa.Table:
        """Drop records whose id an earlier record of the shard has: ids are how documents are removed later."""
        names: list[str] = documents["id"].to_pylist()
        distinct = set(names)
        if len(distinct) == len(names) and self._seen.isdisjoint(distinct):
            self._seen |= distinct
            return documents
        fresh = np.zeros(len(names), bool)
        for row, name in enumerate(names):
            fresh[row] = name not in self._seen
            self._seen.add(name)
        repeated = np.flatnonzero(~fresh)
        count = repeated.size
        self._drop_rows(
            documents, repeated, ["read.duplicate_id"] * count, ["an earlier record has the same id"] * count, None
        )
        return documents.filter(pa.array(fresh))

    def _drop_rows(
        self,
        documents: pa.Table,
        rows: np.ndarray,
        reasons: Sequence[str],
        details: Sequence[str],
        langs: Sequence[str | None] | None,
    ) -> None:
        chosen = documents.select([*_DESCRIBED, "text"]).take(pa.array(rows))
        sizes = pc.binary_length(chosen["text"]).to_pylist()
        sampled = []
        seen = Counter[str]()
        for reason, size in zip(reasons, sizes, strict=True):
            seen[reason] += 1
            few = self.reasons[reason] + seen[reason] <= KEPT_SAMPLES
            sampled.append(few and reason not in WITHHELD and self._sample_bytes + size <= SAMPLE_BYTES)
            self._sample_bytes += size if sampled[-1] else 0
        columns = {name: chosen[name] for name in _DESCRIBED}
        if langs is not None:
            columns["lang"] = pa.array(langs, pa.string())
        nothing = pa.scalar(None, pa.large_string())
        columns |= {
            "reason": pa.array(reasons, pa.string()),
            "detail": pa.array(details, pa.string()),
            "text": pc.if_else(pa.array(sampled), chosen["text"], nothing),
        }
        self._drop(pa.table(columns).select(DROPPED_SCHEMA.names).cast(DROPPED_SCHEMA))

    def _drop(self, rows: pa.Table) -> None:
        reasons = rows["reason"].to_pylist()
        self.reasons.update(reasons)
        for column, table in self._by.items():
            for name, reason in zip(rows[column].to_pylist(), reasons, strict=True):
                table.setdefault(name or UNDETERMINED, Counter())[f"dropped {reason}"] += 1
        self._dropped.add(rows)


class TableWriter:
    """Tables into one Parquet file, gathered into row groups."""

    def __init__(self, writer: pq.ParquetWriter, schema: pa.Schema) -> None:
        self._writer = writer
        self._schema = schema
        self._pending: list[pa.Table] = []
        self._rows = self._bytes = 0

    def add(self, table: pa.Table) -> None:
        self._pending.append(table)
        self._rows += table.num_rows
        self._bytes += text_bytes(table)
        if self._rows >= GROUP_ROWS or self._bytes >= GROUP_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what is pending as a row group."""
        if self._rows:
            self._writer.write_table(pa.concat_tables(self._pending).cast(self._schema), row_group_size=self._rows)
        self._pending, self._rows, self._bytes = [], 0, 0


@contextmanager
def opened(folder: Path, shard: int, stored: StoredSignals | None = None) -> Generator[ShardOutput]:
    """The output of shard number `shard` of a step; on an error nothing is left."""
    name = f"{shard:05d}.parquet"
    with ExitStack() as stack:
        kept = stack.enter_context(table_writer(folder / "documents" / name, DOCUMENT_SCHEMA))
        dropped = stack.enter_context(table_writer(folder / "dropped" / name, DROPPED_SCHEMA))
        output = ShardOutput(kept, dropped, stored)
        yield output
        output.write_signals(folder / "signals" / name)
        output.write_evidence(folder, name)


@contextmanager
def table_writer(path: Path, schema: pa.Schema) -> Generator[TableWriter]:
    """A Parquet file that appears under its name when it is whole."""
    repeating: Any = [name for name in schema.names if name in _REPEATING]  # the stubs know only booleans
    with (
        atomic_path(path) as partial,
        pq.ParquetWriter(
            partial, schema, compression="zstd", use_dictionary=repeating, write_statistics=repeating
        ) as writer,
    ):
        tables = TableWriter(writer, schema)
        yield tables
        tables.flush()


def text_bytes(documents: pa.Table) -> int:
    """UTF-8 bytes of all texts."""
    return pc.sum(pc.binary_length(documents["text"])).as_py() or 0


def _values(column: pa.ChunkedArray) -> dict[str | None, int]:
    return {one["values"].as_py(): one["counts"].as_py() for one in column.value_counts()}


def _funnel(table: Mapping[str, Counter[str]]) -> dict[str, Any]:
    return {
        name: {
            "in": counts.total(),
            "out": counts["out"],
            "dropped": {k.removeprefix("dropped "): n for k, n in sorted(counts.items()) if k != "out"},
        }
        for name, counts in sorted(table.items())
    }


def _joined(signals: Mapping[tuple[str, ...], Sequence[pa.Table]], stored: pa.Table | None) -> pa.Table:
    """One row per id over the stored signals and the tables of all blocks: the first one's rows lead.

    What a block measured again stands in the place of what was stored.
    """
    own = {name for names in signals for name in names if name != "id"}
    joined = None if stored is None else pl.DataFrame(stored.drop_columns([n for n in stored.column_names if n in own]))
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
