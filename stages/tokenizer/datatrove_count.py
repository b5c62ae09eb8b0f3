"""Counting inside a datatrove pipeline, on whatever executor it runs: each task leaves its runs in one folder.

Contract: documents pass through unchanged; `language` and `domain` of their metadata (ours: `lang`) name their group.
Memory is bounded as in `stages.tokenizer.counts`, for all groups together. A task writes runs under its own rank, so
that a task that is run again replaces what it wrote. What all tasks wrote is what `tokenizer.count` would have:
`train_runs(lambda: map(read_run, run_files(folder)), plan)` adds the counts up and trains. Cost: that of
`stages.tokenizer.counts`, and datatrove's own for each document.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datatrove.pipeline.base import PipelineStep
from datatrove.utils.batching import batched

from pipeline.core.tokenizer import nfc
from stages.tokenizer.counts import FOLDER, Counter, Group, are_full, batches, write_run

if TYPE_CHECKING:
    from datatrove.data import Document

BATCH_DOCUMENTS = 1024


class CountStep(PipelineStep):
    """A datatrove step that counts words and phrases into `folder`."""

    type = "🔢 - TOKENIZER"
    name = "seodang word counts"

    def __init__(self, folder: str | Path) -> None:
        super().__init__()
        self.folder = Path(folder)

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Documents in, the same documents out."""
        del world_size
        for stale in (self.folder / FOLDER).glob(f"{rank:05d}-*.arrow"):
            stale.unlink()
        counters: dict[Group, Counter] = {}
        written = 0
        for batch in batched(data or (), BATCH_DOCUMENTS):
            texts: dict[Group, list[bytes]] = {}
            for document in batch:
                texts.setdefault(_group(document), []).append(nfc(document.text).encode())
            for group, own in texts.items():
                for joined, offsets in batches(own):
                    counters.setdefault(group, Counter(group)).add(joined, offsets)
                    if are_full(counters.values()):
                        largest = max(counters, key=lambda group: (counters[group].words.size, group))
                        written = self._write(rank, written, counters.pop(largest))
            self.stat_update("total", value=len(batch))
            yield from batch
        for counter in counters.values():
            written = self._write(rank, written, counter)
        self.stat_update("runs", value=written)

    def _write(self, rank: int, number: int, counter: Counter) -> int:
        write_run(self.folder, rank, number, counter.run())
        return number + 1


def _group(document: Document) -> Group:
    metadata = document.metadata
    return Group(str(metadata.get("lang") or metadata.get("language") or ""), str(metadata.get("domain") or ""))
