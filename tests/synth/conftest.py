"""A step's inputs without a graph: cleaned documents in a folder, and the task of one synthesis step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unicodedata import normalize

import pytest
from fault_server import FaultServer, running
from search_set import indexed_task

from pipeline.core.config import Config
from pipeline.core.documents import document_id, table_from_rows, text_hash, write_documents
from pipeline.core.steps import StepOutput, StepTask

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
LANGUAGES = ("de", "en", "es", "ja", "ko", "vi")


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with running() as faults:
        yield faults


@dataclass(frozen=True)
class Library:
    """The texts written for the samples, and document rows made of them."""

    folder: Path

    def text(self, language: str, slug: str, kind: str = "texts") -> str:
        text = normalize("NFC", (self.folder / kind / language / f"{slug}.md").read_text(encoding="utf-8"))
        return text.split("\n---\n", 1)[1].strip() if text.startswith("---\n") else text.strip()

    def thought(self, language: str, slug: str) -> str:
        return self.text(language, slug, "thinking")

    def recorded(self) -> list[tuple[str, str]]:
        """(language, slug) of every document a thought was written for."""
        return [(path.parent.name, path.stem) for path in sorted((self.folder / "thinking").glob("*/*.md"))]

    def slugs(self, language: str, pattern: str = "*") -> list[str]:
        return sorted(path.stem for path in (self.folder / "texts" / language).glob(f"{pattern}.md"))

    def row(self, language: str, slug: str, **columns: Any) -> dict[str, Any]:
        """A cleaned document of the source `articles`."""
        text = columns.get("text") or self.text(language, slug)
        base = {"id": document_id("articles", f"{language}/{slug}"), "text_hash": text_hash(text), "text": text}
        base |= {"source": "articles", "lang": language, "license": "CC0-1.0", "domain": "science", "title": slug}
        return base | columns


@pytest.fixture(scope="session")
def library() -> Library:
    return Library(SAMPLES)


@pytest.fixture
def make_task(tmp_path: Path) -> Callable[..., StepTask]:
    """Write `shards` of document rows and give the task of a step on them."""

    def make(
        name: str,
        config: Config,
        shards: Sequence[Sequence[Mapping[str, Any]]] = (),
        paths: Mapping[str, tuple[str, ...]] | None = None,
    ) -> StepTask:
        documents = tmp_path / "clean"
        for number, rows in enumerate(shards):
            write_documents(documents, number, table_from_rows(rows))
        inputs = {"documents": StepOutput("clean", documents)} if shards else {}
        return StepTask(name, "f" * 64, config, inputs, tmp_path / name, tmp_path, paths or {})

    return make


@pytest.fixture
def indexed(library: Any, make_task: Callable[..., StepTask], tmp_path: Path) -> Callable[..., StepTask]:
    """The index of a search set over the samples, and the task of the set."""
    return lambda settings, **paths: indexed_task(settings, library, make_task, tmp_path, **paths)
