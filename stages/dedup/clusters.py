"""Clusters and who survives in each: step kind `stages.dedup.clusters`, one shard over the pairs found.

Contract: writes `decisions/00000.parquet` for each input shard of this run: `row` (int64), `id`, `kept`, `keeper` (the
id of the document kept for it), `earlier` (that one was kept in an earlier run), `cluster_size` (new documents that a
kept one stands for). Rows that are not listed are kept as they are. `earlier.parquet` has `id` and `documents`: of how
many new documents each document kept earlier is the keeper. The best has the highest quality, then the largest size,
then the smallest id; whatever is in an earlier folder comes first, so that its keeper then is its keeper now. Memory:
about 200 bytes for each document that has a duplicate, nothing for others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.core.documents import write_table
from pipeline.core.record import ShardResult
from pipeline.core.steps import StepTask
from stages.dedup.cluster import best_of, components
from stages.dedup.keyfiles import Signed, id_text, load_array, open_signed
from stages.dedup.layout import PAIRS

DECISIONS = "decisions"
DECISION_SCHEMA = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("id", pa.string(), nullable=False),
        pa.field("kept", pa.bool_(), nullable=False),
        pa.field("keeper", pa.string(), nullable=False),
        pa.field("earlier", pa.bool_(), nullable=False),
        pa.field("cluster_size", pa.int64(), nullable=False),
    ]
)
EARLIER_SCHEMA = pa.schema([pa.field("id", pa.string(), nullable=False), pa.field("documents", pa.int64())])


class ClustersWork:
    """The step's work."""

    def shard_count(self, task: StepTask) -> int:
        return 1

    def make_shard(self, task: StepTask, shard: int) -> ShardResult:
        signed = open_signed(task)
        files = sorted((task.inputs[PAIRS].folder / PAIRS).glob("[!.]*.npy"))
        decided = Decided.of(signed, [load_array(path.with_suffix(""), "") for path in files])
        for place, own in enumerate(signed.own):
            write_table(task.folder / DECISIONS / f"{place:05d}.parquet", decided.table(own))
        write_table(task.folder / "earlier.parquet", decided.earlier_table())
        clusters = int(np.unique(decided.best).shape[0])
        return ShardResult(counts={"clusters": clusters, "documents_in_clusters": int(decided.nodes.shape[0])})

    def finish(self, task: StepTask, results: Sequence[ShardResult]) -> Mapping[str, Any]:
        return {}


class Decided:
    """The decision for every document that has a duplicate; N of them, ascending by node."""

    def __init__(self, signed: Signed, nodes: np.ndarray, best: np.ndarray) -> None:
        self.signed = signed
        self.nodes = nodes  # [N]
        self.best = best  # [N] place of its keeper
        self.documents = signed.documents(nodes)
        self.is_own = signed.ages[signed.shards_of(nodes)] == signed.ages[-1]
        self.totals = np.zeros(nodes.shape[0], np.int64)  # new documents that a keeper stands for
        np.add.at(self.totals, best[self.is_own], self.documents["cluster_size"][self.is_own])

    @classmethod
    def of(cls, signed: Signed, pairs: Sequence[np.ndarray]) -> Decided:
        """Join the pairs and choose."""
        nodes, labels = components(pairs)
        documents = signed.documents(nodes)
        ages = signed.ages[signed.shards_of(nodes)]
        quality, size = -documents["quality"], -documents["size"]
        return cls(signed, nodes, best_of(labels, ages, quality, size, documents["high"], documents["low"], nodes))

    def table(self, shard: int) -> pa.Table:
        """`DECISION_SCHEMA` rows of one shard of signatures."""
        first, last = self.signed.first_nodes[shard : shard + 2]
        places = slice(*np.searchsorted(self.nodes, (first, last)))
        best = self.best[places]
        columns = (
            pa.array(self.nodes[places] - first),
            pa.array(id_text(self.documents[places]), pa.string()),
            pa.array(best == np.arange(self.nodes.shape[0])[places]),
            pa.array(id_text(self.documents[best]), pa.string()),
            pa.array(~self.is_own[best]),
            pa.array(self.totals[places]),
        )
        return pa.Table.from_arrays(list(columns), schema=DECISION_SCHEMA)

    def earlier_table(self) -> pa.Table:
        """`EARLIER_SCHEMA` rows, ascending by id."""
        old = np.flatnonzero(~self.is_own & (self.totals > 0))
        table = pa.table([id_text(self.documents[old]), self.totals[old]], schema=EARLIER_SCHEMA)
        return table.sort_by("id")


WORK = ClustersWork()
