"""Clusters and who survives in each: step kind `stages.dedup.clusters`, a shard for each part of the clusters.

Contract: shard p decides the clusters whose smallest document's number hashes to p. It writes
`decisions/00000.parquet`, ascending by `shard` (input shard of this run) and `row` (int64): `id`, `kept`, `keeper` (the
id of the document kept for it), `earlier` (that one was kept in an earlier run), `cluster_size` (new documents that a
kept one stands for). Rows that no file lists are kept as they are. `earlier/00000.parquet` has `id` and `documents`: of
how many new documents each document kept earlier is the keeper. The best has the highest quality, then the largest
size, then the smallest id; whatever is in an earlier folder comes first, so that its keeper then is its keeper now.
Memory: 32 bytes for each document that has a duplicate (every shard joins all forests: integers only, and a tenth of
deciding), and 250 bytes for each that it decides; nothing for others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.core.documents import write_table
from pipeline.core.record import ShardResult
from pipeline.core.steps import StepTask
from stages.dedup.cluster import best_of, components
from stages.dedup.forests import load_arrays
from stages.dedup.keyfiles import Signed, id_text, open_signed
from stages.dedup.layout import FORESTS

DECISIONS, EARLIER_KEPT = "decisions", "earlier"
DECISION_SCHEMA = pa.schema(
    [
        pa.field("shard", pa.int64(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("id", pa.string(), nullable=False),
        pa.field("kept", pa.bool_(), nullable=False),
        pa.field("keeper", pa.string(), nullable=False),
        pa.field("earlier", pa.bool_(), nullable=False),
        pa.field("cluster_size", pa.int64(), nullable=False),
    ]
)
EARLIER_SCHEMA = pa.schema([pa.field("id", pa.string(), nullable=False), pa.field("documents", pa.int64())])
PART_JOINS = 1 << 21  # joins of documents a part, about (ours: 0.5 GB to decide; 50 tasks for 10^8 duplicates)
SPREAD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio: multiplicative hashing, Knuth 6.4


class ClustersWork:
    """The step's work."""

    def shard_count(self, task: StepTask) -> int:
        return part_count(task.inputs[FORESTS].record.counts["joins"])

    def make_shard(self, task: StepTask, shard: int) -> ShardResult:
        forests = load_arrays(task.inputs[FORESTS].folder / FORESTS)
        decided = Decided.of(open_signed(task), forests, shard, self.shard_count(task))
        write_table(task.folder / DECISIONS / f"{shard:05d}.parquet", decided.table())
        write_table(task.folder / EARLIER_KEPT / f"{shard:05d}.parquet", decided.earlier_table())
        clusters = int(np.unique(decided.best).shape[0])
        return ShardResult(counts={"clusters": clusters, "documents_in_clusters": int(decided.nodes.shape[0])})

    def finish(self, task: StepTask, results: Sequence[ShardResult]) -> Mapping[str, Any]:
        return {}


def part_count(joins: int) -> int:
    """Parts that clusters of so many joins are decided in."""
    return -(-max(1, joins) // PART_JOINS)


class Decided:
    """The decisions of a part's clusters; N documents in them, ascending by node."""

    def __init__(self, signed: Signed, nodes: np.ndarray, best: np.ndarray) -> None:
        self.signed = signed
        self.nodes = nodes  # [N]
        self.best = best  # [N] place of its keeper
        self.documents = signed.documents(nodes)
        self.is_own = signed.ages[signed.shards_of(nodes)] == signed.ages[-1]
        self.totals = np.zeros(nodes.shape[0], np.int64)  # new documents that a keeper stands for
        np.add.at(self.totals, best[self.is_own], self.documents["cluster_size"][self.is_own])

    @classmethod
    def of(cls, signed: Signed, forests: Sequence[np.ndarray], part: int, parts: int) -> Decided:
        """Join the forests and choose in the clusters of one of `parts`."""
        nodes, labels = components(forests)
        roots = nodes[labels]
        chosen = (roots.astype(np.uint64) * SPREAD >> np.uint64(32)) % np.uint64(parts) == part
        nodes, roots = nodes[chosen], roots[chosen]
        documents = signed.documents(nodes)
        ages = signed.ages[signed.shards_of(nodes)]
        quality, size = -documents["quality"], -documents["size"]
        return cls(signed, nodes, best_of(roots, ages, quality, size, documents["high"], documents["low"], nodes))

    def table(self) -> pa.Table:
        """`DECISION_SCHEMA` rows."""
        own = np.flatnonzero(self.is_own)
        shards = self.signed.shards_of(self.nodes[own])
        best = self.best[own]
        columns = (
            pa.array(shards - self.signed.own.start),
            pa.array(self.nodes[own] - self.signed.first_nodes[shards]),
            id_text(self.documents[own]),
            pa.array(best == own),
            id_text(self.documents[best]),
            pa.array(~self.is_own[best]),
            pa.array(self.totals[own]),
        )
        return pa.Table.from_arrays(list(columns), schema=DECISION_SCHEMA)

    def earlier_table(self) -> pa.Table:
        """`EARLIER_SCHEMA` rows, ascending by id."""
        old = np.flatnonzero(~self.is_own & (self.totals > 0))
        table = pa.table([id_text(self.documents[old]), self.totals[old]], schema=EARLIER_SCHEMA)
        return table.sort_by("id")


def read_decisions(folder: Path, shard: int) -> pa.Table:
    """`DECISION_SCHEMA` rows of one input shard, ascending by row; only row groups that have some are read."""
    files = sorted((folder / DECISIONS).glob("[!.]*.parquet"))
    parts = [pq.read_table(file, filters=[("shard", "=", shard)]) for file in files]
    return pa.concat_tables(parts).cast(DECISION_SCHEMA).sort_by("row").combine_chunks()


WORK = ClustersWork()
