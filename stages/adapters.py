"""Blocks of datatrove inside our pipeline, and ours inside datatrove's.

`DatatroveBlock` runs any datatrove step that takes documents and gives documents (filters, formatters, extractors):
what does not come out is dropped as `datatrove.CLASS`, with the filter's own reason as detail. `SeodangStep` is a
datatrove `PipelineStep` around one of our per-document blocks. Both convert with `pipeline.core.datatrove_bridge`.
A step that makes new documents has to keep the metadata of the one they are made of. Cost: a Python object a document.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from datatrove.pipeline.base import PipelineStep
from datatrove.utils.batching import batched
from pydantic import Field

from pipeline.core.config import Config
from pipeline.core.datatrove_bridge import from_datatrove, to_datatrove
from pipeline.core.errors import ConfigError
from stages.block import SPLIT, Block, Outcome, verify
from stages.read import BATCH_DOCUMENTS

if TYPE_CHECKING:
    from datatrove.data import Document

ROW = "seodang_row"  # metadata entry that tells which input row a document was made of
Argument = str | int | float | bool | None | tuple[str | int | float, ...]


class DatatroveConfig(Config):
    """A datatrove block by import path, for example `datatrove.pipeline.filters:GopherQualityFilter`."""

    block: str = Field(pattern=r"^[\w.]+:\w+$")
    arguments: dict[str, Argument] = Field(default_factory=dict)


class DatatroveBlock:
    """Our block around a datatrove step."""

    def __init__(self, step: PipelineStep) -> None:
        self._step = step
        self._name = type(step).__name__

    def apply(self, documents: pa.Table) -> Outcome:
        exclusions = _Exclusions()
        if hasattr(self._step, "exclusion_writer"):
            self._step.exclusion_writer = exclusions  # pyright: ignore[reportAttributeAccessIssue]
        given = list(to_datatrove(documents))
        mark = ROW
        while any(mark in document.metadata for document in given):  # of a block like this one, around this one
            mark += "+"
        exclusions.mark = mark
        for row, document in enumerate(given):
            document.metadata[mark] = row
        passed = list(self._step.run(iter(given), 0, 1))
        rows = [int(document.metadata.pop(mark)) for document in passed]
        sources = documents["source"].to_pylist()
        kept = from_datatrove(passed, [sources[row] for row in rows])
        gone = np.setdiff1d(np.arange(documents.num_rows, dtype=np.int64), np.array(rows, np.int64))
        extra = kept.num_rows + gone.size - documents.num_rows
        return Outcome(
            kept=kept,
            dropped_at=gone,
            reasons=[f"datatrove.{self._name}"] * gone.size,
            details=[exclusions.reasons.get(int(row), "") for row in gone],
            counts={SPLIT: extra} if extra else {},
        )


class _Exclusions:
    """Stands where a datatrove filter expects the writer of what it removes; keeps the reasons."""

    def __init__(self) -> None:
        self.reasons: dict[int, str] = {}
        self.mark = ROW

    def __enter__(self) -> _Exclusions:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def write(self, document: Document, rank: int = 0, **_: object) -> None:
        self.reasons[int(document.metadata[self.mark])] = str(document.metadata.pop("filter_reason", ""))


class SeodangStep(PipelineStep):
    """A datatrove step around our block: kept documents go on, dropped ones are counted by reason."""

    type = "🔻 - SEODANG"

    def __init__(self, block: Block, source: str, name: str = "") -> None:
        super().__init__()
        self.block = block
        self.source = source
        self.name = name or type(block).__name__

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Documents in, documents out; `source` is for documents that carry none."""
        for batch in batched(data or (), BATCH_DOCUMENTS):
            documents = from_datatrove(batch, self.source)
            result = self.block.apply(documents)
            verify(documents, result)
            self.stat_update("total", value=documents.num_rows)
            for reason in result.reasons:
                self.stat_update("dropped", f"dropped_{reason}")
            for document in to_datatrove(result.kept):
                self.stat_update("forwarded")
                self.update_doc_stats(document)
                yield document


def make(config: DatatroveConfig, paths: Mapping[str, tuple[str, ...]]) -> DatatroveBlock:
    """Catalog entry. Raises `ConfigError` for a block that datatrove does not have or that refuses its arguments."""
    from importlib import import_module

    module, _, name = config.block.partition(":")
    try:
        return DatatroveBlock(getattr(import_module(module), name)(**config.arguments))
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"datatrove block `{config.block}` cannot be made: {error}", fix="check its import path and `arguments`"
        ) from None
