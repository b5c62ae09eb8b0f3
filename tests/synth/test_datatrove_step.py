"""A synthetic set inside a plain datatrove pipeline: its executor, its reader, the same samples as in ours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from datatrove.data import Document
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.readers import ParquetReader
from datatrove.pipeline.writers import ParquetWriter
from fault_server import FaultServer, running

import synth.client
from pipeline.core.datatrove_bridge import to_datatrove
from pipeline.core.documents import read_documents, table_from_rows
from pipeline.core.steps import StepTask
from synth.config import EndpointConfig, ThinkingConfig, endpoint_binding
from synth.datatrove_step import SynthesisStep
from synth.thinking import WORK

LOOSE = {"minimum_characters": 0, "maximum_length_ratio": 1000.0, "minimum_grounding": 0.0, "maximum_copy_share": 1.0, "minimum_length_ratio": 0.0}  # fmt: skip


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with running() as faults:
        yield faults


class Given(PipelineStep):
    """A reader of documents at hand, a part for each task."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        super().__init__()
        self.rows = rows

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        del data
        yield from to_datatrove(table_from_rows(self.rows[rank::world_size]))


def test_a_set_runs_in_a_datatrove_pipeline_as_in_ours(
    server: FaultServer,
    library: Any,
    make_task: Callable[..., StepTask],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(synth.client, "FIRST_WAIT_SECONDS", 0.01)
    config = ThinkingConfig.model_validate(
        {"kind": "thinking", "from": "articles", "endpoint": "local", "languages": ("en",), "checks": LOOSE}
    )
    endpoint = EndpointConfig.model_validate({"url": server.url, "model": "m"})
    words = [f"{('ok', '429 ok', 'cut ok', '422 422 422')[n % 4]} n{n}" for n in range(20)]
    rows = [library.row("en", f"n{n}", text=f"About canal number {n}.\n\n{one}") for n, one in enumerate(words)]
    folder = tmp_path / "set"
    step = SynthesisStep(WORK, config, endpoint, str(folder), "think", batch_documents=3)
    pipeline = [Given(rows), step, ParquetWriter(str(tmp_path / "out"))]
    stats = LocalPipelineExecutor(pipeline, tasks=2, workers=1, logging_dir=str(tmp_path / "logs")).run()
    theirs = {one.id: one.text for one in ParquetReader(str(tmp_path / "out")).run()}
    paths, _ = endpoint_binding("think", config, {"local": endpoint})
    task = make_task("synth.think", config, [rows], paths)
    WORK.make_shard(task, 0)
    ours = {row["id"]: row["text"] for table in read_documents(task.folder) for row in table.to_pylist()}
    assert theirs == ours
    assert len(ours) == 15
    dropped = [
        reason
        for rank in range(2)
        for reason in pq.read_table(folder / "dropped" / f"{rank:05d}.parquet")["reason"].to_pylist()
    ]
    assert Counter(dropped) == {"thinking.no_answer": 5}
    assert sum(pq.read_table(folder / "requests" / f"{rank:05d}.parquet").num_rows for rank in range(2)) == 20
    assert stats.stats[1].stats["forwarded"].total == 15
