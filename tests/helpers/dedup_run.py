"""A deduplication block over given documents, through the real graph, in this process or through workers."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

from pipeline.core.config import Config, Located
from pipeline.core.documents import (
    document_id,
    read_documents,
    read_dropped,
    table_from_rows,
    text_hash,
    write_documents,
)
from pipeline.core.record import Record, read_record, write_record
from pipeline.core.steps import Step
from pipeline.executors import LocalExecutor
from pipeline.graph import Graph, Silent
from stages.catalog import block_config, entry, load

Row = dict[str, Any]


class Run:
    """One block over documents in the given shards, through the graph."""

    def __init__(self, store: Path, shards: list[list[Row]], block: str, workers: int = 1, **options: Any) -> None:
        config = block_config(block, Located(options))
        own = {name: value for name, value in options.items() if name != "against"}
        step = Step("given", "test.given", 1, Config(), {}, "", {"rows": repr(shards), "options": repr(own)})
        self.graph = Graph(store, [step])
        node = self.graph.node("given")
        self.input = node.folder
        self.input.mkdir(parents=True, exist_ok=True)
        record = Record("given", "test.given", 1, node.fingerprint, {}, {}, {}, {}, {}, {}, {})
        write_record(self.input, record, {})
        for number, rows in enumerate(shards):
            write_documents(self.input, number, table_from_rows(rows))
        documents = {"documents": "given"}
        for part in load(entry(block).make)(config, block):
            inputs = {**(documents if part.reads_documents else {}), **part.after}
            self.graph.add(
                Step(part.name, part.kind, part.version, part.config, inputs, part.work, part.content, part.paths)
            )
        self.block = block
        self.workers = workers

    def make(self) -> Run:
        self.graph.run([self.block], LocalExecutor(self.workers), Silent())
        return self

    def folder(self, name: str) -> Path:
        return self.graph.node(name).folder

    @property
    def kept(self) -> list[Row]:
        return [row for table in read_documents(self.folder(self.block)) for row in table.to_pylist()]

    @property
    def dropped(self) -> list[Row]:
        return [row for table in read_dropped(self.folder(self.block)) for row in table.to_pylist()]

    @property
    def facts(self) -> dict[str, Any]:
        record = read_record(self.folder(self.block))
        assert record.counts["documents_in"] == record.counts["documents_out"] + sum(record.dropped.values())
        return dict(record.facts)


def row(record: str, text: str, source: str = "web", **columns: object) -> Row:
    text = unicodedata.normalize("NFC", text)
    return {"id": document_id(source, record), "text_hash": text_hash(text), "text": text, "source": source, **columns}
