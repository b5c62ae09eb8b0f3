"""Synthetic sets as blocks of a plain datatrove pipeline: documents in, samples out.

Contract: `SynthesisStep` takes documents from any datatrove reader or block and gives our samples as datatrove
documents, on any datatrove executor. Each task keeps a journal of its own in the response store under `folder`, so
that a task that is run again asks only for what is missing. What is refused is counted by reason and written with its
text to `folder/dropped/RANK.parquet`; provenance goes to `folder/requests/RANK.parquet`. Works a batch at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datatrove.pipeline.base import PipelineStep
from datatrove.utils.batching import batched

from pipeline.core.datatrove_bridge import from_datatrove, to_datatrove
from pipeline.core.documents import DROPPED_SCHEMA, table_from_rows, write_table
from pipeline.core.steps import StepTask
from synth.cache import Replay
from synth.client import EndpointClient
from synth.config import EndpointConfig, EndpointSetConfig, ReplayConfig
from synth.endpoint_set import RESPONSES, EndpointWork, make_samples
from synth.language import primary
from synth.output import ShardWriter
from synth.requests_table import REQUEST_SCHEMA, REQUESTS
from synth.store import ResponseStore

if TYPE_CHECKING:
    from datatrove.data import Document


class SynthesisStep(PipelineStep):
    """A set that asks an endpoint, as a datatrove step."""

    type = "✍️ - SEODANG"

    def __init__(
        self,
        work: EndpointWork,
        config: EndpointSetConfig,
        endpoint: EndpointConfig | ReplayConfig,
        folder: str,
        name: str,
        batch_documents: int = 1000,
    ) -> None:
        """`name` becomes the samples' source; `work` is a set's, for example `synth.thinking.WORK`."""
        super().__init__()
        self.work = work
        self.config = config
        self.endpoint = endpoint
        self.folder = folder
        self.name = name
        self.batch_documents = batch_documents

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        del world_size
        folder = Path(self.folder)
        task = StepTask(f"synth.{self.name}", self.name, self.config, {}, folder, folder, {})
        refused: list[dict[str, Any]] = []
        requests: list[dict[str, Any]] = []
        for batch in batched(data or (), self.batch_documents):
            documents = from_datatrove(batch, self.name)
            writer = ShardWriter(task, rank)
            maker = self.work.maker
            rows = [
                {**row, "target": target}
                for row in documents.to_pylist()
                if primary(row["lang"]) in self.config.languages
                for target in maker.targets(row["id"], primary(row["lang"]), self.config)
            ]
            make_samples(maker, rows, self.config, self.endpoint.model, self._answers(folder, rank), writer)
            refused += writer.refused
            requests += writer.requests
            self.stat_update("total", value=len(rows))
            for reason, count in writer.dropped.items():
                self.stat_update("dropped", f"dropped_{reason}", value=count)
            for document in to_datatrove(table_from_rows(writer.rows)):
                self.stat_update("forwarded")
                self.update_doc_stats(document)
                yield document
        write_table(folder / "dropped" / f"{rank:05d}.parquet", table_from_rows(refused, DROPPED_SCHEMA))
        write_table(folder / REQUESTS / f"{rank:05d}.parquet", table_from_rows(requests, REQUEST_SCHEMA))

    def _answers(self, folder: Path, rank: int) -> Replay | EndpointClient:
        if isinstance(self.endpoint, ReplayConfig):
            return Replay.open(self.endpoint.responses, step=f"synth.{self.name}", endpoint=self.config.endpoint)
        store = ResponseStore(folder / RESPONSES, f"{self.name}-{rank:05d}")
        return EndpointClient(self.endpoint, store, where=f"synth.{self.name}.endpoint")
