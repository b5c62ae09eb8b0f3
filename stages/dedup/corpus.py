"""What every global deduplication shares: the corpus in, survivors and dropped rows out.

Contract: output shard k holds the survivors of input file k (roles in ascending order, files in order), so that how
many shards there are follows from the inputs. Who survives is a function of the set of documents. Rows are removed by
id: a file whose ids changed since the survivors were chosen is refused. Cost: every process that makes a shard chooses
the survivors of the whole corpus once and keeps them for its other shards.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from pipeline.core.config import Config
from pipeline.core.documents import (
    DOCUMENT_SCHEMA,
    DROPPED_SCHEMA,
    document_files,
    read_table,
    write_documents,
    write_dropped,
)
from pipeline.core.errors import ConfigError, InputError, nearest
from pipeline.core.record import ShardResult
from pipeline.core.steps import StepTask
from stages.dedup.cluster import best_of
from stages.dedup.signatures import text_buffers, text_bytes

UNDETERMINED = "und"  # BCP-47, of a document whose language was never identified
KEPT_SAMPLES = 50  # dropped texts kept a reason and shard
QUALITY_STEPS = 1_000_000  # a quality signal becomes an integer in these units


@dataclass(frozen=True)
class Corpus:
    """One row a document, in the order of the input files."""

    files: tuple[Path, ...]
    first_rows: np.ndarray  # [files + 1] int64
    ids: pa.Array
    id_ranks: np.ndarray  # [documents] int64 place of the id in ascending order
    sizes: np.ndarray  # [documents] int64 bytes of text
    quality: np.ndarray  # [documents] int64
    cluster_sizes: np.ndarray  # [documents] int64 documents each row already stands for


@dataclass(frozen=True)
class Survivors:
    """The decision for every row of a corpus."""

    corpus: Corpus
    keeper: np.ndarray  # [documents] int64 row of the document kept for this one (its own row when it is kept)
    cluster_sizes: np.ndarray  # [documents] int64, of survivors: documents they stand for


def input_files(task: StepTask) -> tuple[Path, ...]:
    """The document shards of all inputs. Raises `InputError` when there are none."""
    files = tuple(file for role in sorted(task.inputs) for file in document_files(task.inputs[role].folder))
    if not files:
        raise InputError("no documents to deduplicate", where=task.name, fix="see what the steps before it dropped")
    return files


def load_corpus(files: tuple[Path, ...], quality_signal: str) -> Corpus:
    """Read what is needed to choose survivors. Raises `ConfigError` for a quality signal that no input has."""
    tables = [read_table(file, DOCUMENT_SCHEMA, ["id", "text", "cluster_size"]) for file in files]
    ids = pa.concat_arrays([chunk for table in tables for chunk in [*table["id"].chunks, pa.array([], pa.string())]])
    sizes = [np.diff(text_buffers(table["text"])[1]) for table in tables]
    clusters = [table["cluster_size"].fill_null(1).to_numpy() for table in tables]
    return Corpus(
        files=files,
        first_rows=np.cumsum([0, *(table.num_rows for table in tables)]).astype(np.int64),
        ids=ids,
        id_ranks=_ranks(ids),
        sizes=np.concatenate(sizes).astype(np.int64),
        quality=_quality(files, ids, quality_signal),
        cluster_sizes=np.concatenate(clusters).astype(np.int64),
    )


def choose(corpus: Corpus, labels: np.ndarray) -> Survivors:
    """The best document of each cluster; `labels` is [documents] int64."""
    keeper = best_of(labels, corpus.quality, corpus.sizes, corpus.id_ranks)
    totals = np.zeros(keeper.shape[0], np.int64)
    np.add.at(totals, keeper, corpus.cluster_sizes)
    return Survivors(corpus, keeper, totals)


def write_survivors(task: StepTask, shard: int, survivors: Survivors, reason: str) -> ShardResult:
    """Write the survivors and dropped rows of input file `shard`.

    Raises `InputError` when the file's ids are not the ones the survivors were chosen from.
    """
    corpus = survivors.corpus
    first, last = int(corpus.first_rows[shard]), int(corpus.first_rows[shard + 1])
    table = read_table(corpus.files[shard], DOCUMENT_SCHEMA)
    if table["id"].to_pylist() != corpus.ids.slice(first, last - first).to_pylist():
        raise InputError("documents changed while they were deduplicated", where=str(corpus.files[shard]))
    rows = np.arange(first, last)
    keeper = survivors.keeper[first:last]
    kept = table.filter(pa.array(keeper == rows))
    sizes = pa.array(survivors.cluster_sizes[first:last][keeper == rows], pa.int32())
    kept = kept.set_column(kept.schema.get_field_index("cluster_size"), DOCUMENT_SCHEMA.field("cluster_size"), sizes)
    gone = np.flatnonzero(keeper != rows)
    dropped = dropped_table(table, gone, reason, corpus.ids.take(pa.array(keeper[gone])))
    write_documents(task.folder, shard, kept)
    write_dropped(task.folder, shard, dropped)
    return _result(table, kept, dropped, reason)


def dropped_table(table: pa.Table, rows: np.ndarray, reason: str, details: pa.Array) -> pa.Table:
    """`DROPPED_SCHEMA` rows for some rows of a document table; the first texts are kept."""
    part = table.take(pa.array(rows))
    texts = part["text"].to_pylist()[:KEPT_SAMPLES]
    columns = {
        **{name: part[name] for name in ("id", "source", "url", "lang")},
        "reason": pa.array([reason] * len(rows), pa.string()),
        "detail": details,
        "text": pa.array(texts + [None] * (len(rows) - len(texts)), pa.large_string()),
    }
    return pa.table(columns).cast(DROPPED_SCHEMA)


def merged_facts(results: Sequence[ShardResult]) -> dict[str, Any]:
    """The shards' facts added up: nested mappings of counts."""
    total: dict[str, Any] = {}
    for result in results:
        _add(total, result.facts)
    return total


def distinct_labels(column: pa.Array) -> np.ndarray:
    """[rows] int64 labels, equal for equal values."""
    return column.dictionary_encode().indices.to_numpy().astype(np.int64)


def message_hashes(table: pa.Table) -> list[str]:
    """A hash a row that also covers the messages; the text's own hash where there are none."""
    hashes = table["text_hash"].to_pylist()
    for row, messages in enumerate(table["messages"].to_pylist()):
        if messages:
            hashes[row] = xxhash.xxh3_128_hexdigest(f"{hashes[row]}{messages!r}".encode())
    return hashes


def _ranks(ids: pa.Array) -> np.ndarray:
    rows = np.arange(len(ids))
    order = pa.table({"id": ids, "row": rows}).sort_by([("id", "ascending"), ("row", "ascending")])["row"].to_numpy()
    ranks = np.empty(len(ids), np.int64)
    ranks[order] = rows
    return ranks


def _quality(files: tuple[Path, ...], ids: pa.Array, signal: str) -> np.ndarray:
    if not signal:
        return np.zeros(len(ids), np.int64)
    folders = sorted({file.parent.parent / "signals" for file in files})
    paths = [path for folder in folders for path in sorted(folder.glob("[!.]*.parquet"))]
    seen: set[str] = set()
    found: dict[str, int] = {}
    for path in paths:
        names = pq.read_schema(path).names
        seen.update(names)
        if signal in names:
            part = pq.read_table(path, columns=["id", signal]).drop_null()
            scaled = np.rint(part[signal].to_numpy() * QUALITY_STEPS).astype(np.int64)
            found.update(zip(part["id"].to_pylist(), scaled.tolist(), strict=True))
    if signal not in seen:
        known = sorted(seen - {"id"})
        close = nearest(signal, known)
        raise ConfigError(
            f"no input has the signal `{signal}`",
            where="quality_signal",
            fix=f"{f'did you mean `{close}`? ' if close else ''}known: {', '.join(known) or 'none'}",
        )
    lowest = np.iinfo(np.int64).min + 1
    return np.array([found.get(identity, lowest) for identity in ids.to_pylist()], np.int64)


def _result(table: pa.Table, kept: pa.Table, dropped: pa.Table, reason: str) -> ShardResult:
    facts: dict[str, Any] = {"cluster_sizes": _count([str(size) for size in kept["cluster_size"].to_pylist()])}
    for name, column in (("by_source", "source"), ("by_language", "lang")):
        into, out, gone = (
            _count([value or UNDETERMINED for value in part[column].to_pylist()]) for part in (table, kept, dropped)
        )
        facts[name] = {
            value: {
                "in": into[value],
                "out": out.get(value, 0),
                "dropped": {reason: gone[value]} if value in gone else {},
            }
            for value in into
        }
    return ShardResult(
        counts={
            "documents_in": table.num_rows,
            "documents_out": kept.num_rows,
            "bytes_in": text_bytes(table),
            "bytes_out": text_bytes(kept),
        },
        dropped={reason: dropped.num_rows} if dropped.num_rows else {},
        licenses=_count([value for value in kept["license"].to_pylist() if value]),
        facts=facts,
    )


def _count(values: Sequence[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))


def _add(total: dict[str, Any], part: Mapping[str, Any]) -> None:
    for key, value in part.items():
        if isinstance(value, Mapping):
            _add(total.setdefault(key, {}), value)
        else:
            total[key] = total.get(key, 0) + value


class DedupConfig(Config):
    """Options of every global deduplication."""

    quality_signal: str = ""  # a signal's column, name@version; empty: the longest document survives
