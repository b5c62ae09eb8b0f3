"""The tokenizer's steps over given documents, through the real graph."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.core.config import Config
from pipeline.core.documents import document_id, table_from_rows, text_hash, write_documents
from pipeline.core.record import Record, read_record, write_record
from pipeline.core.steps import Step
from pipeline.executors import LocalExecutor
from pipeline.graph import Graph, Silent
from stages.tokenizer.sample import COUNT_KIND, COUNT_STEP, SAMPLE_KIND, SAMPLE_STEP, CountConfig, SampleConfig
from stages.tokenizer.train import KIND, VERSION, TokenizerConfig

Row = Mapping[str, Any]
WORDS = {
    "en": [
        "the",
        "water",
        "in",
        "river",
        "rises",
        "when",
        "snow",
        "mountains",
        "melt",
        "evening",
        "children",
        "walk",
        "along",
        "old",
        "bridge",
        "she",
        "bread",
        "table",
    ],
    "ko": [
        "강물은",
        "봄에",
        "가장",
        "높고",
        "산의",
        "눈은",
        "녹는다",
        "저녁에",
        "아이들이",
        "다리를",
        "건너",
        "집으로",
        "갔다",
        "할",
        "수",
        "있다",
    ],
    "es": [
        "el",
        "agua",
        "del",
        "río",
        "sube",
        "cuando",
        "la",
        "nieve",
        "montaña",
        "se",
        "funde",
        "por",
        "tarde",
        "los",
        "niños",
        "caminan",
    ],
    "de": [
        "das",
        "Wasser",
        "im",
        "Fluss",
        "steigt",
        "wenn",
        "der",
        "Schnee",
        "auf",
        "den",
        "Bergen",
        "schmilzt",
        "am",
        "Abend",
        "gehen",
        "die",
        "Kinder",
    ],
}


def corpus(count: int = 60, languages: Sequence[str] = ("en", "ko", "es")) -> list[Row]:
    """Documents of few words, so that many pairs of words repeat; every fifth English one is code."""
    rows: list[Row] = []
    for language in languages:
        dice = random.Random(f"corpus {language}")
        for number in range(count):
            sentences = [" ".join(dice.choices(WORDS[language], k=12)) for _ in range(3)]
            text = ". ".join(sentences) + f". {number}\n"
            domain = "code" if language == "en" and number % 5 == 0 else ""
            rows.append(document(f"{language}-{number}", text, lang=language, domain=domain or None))
    return rows


def document(record: str, text: str, **columns: object) -> Row:
    return {"id": document_id("s", record), "text_hash": text_hash(text), "text": text, "source": "s", **columns}


class TokenizerRun:
    """Documents in the given shards, and the steps up to the tokenizer."""

    def __init__(self, store: Path, shards: Sequence[Sequence[Row]], config: TokenizerConfig, workers: int = 1) -> None:
        given = Step("split", "test.given", 1, Config(), {}, "", {"rows": repr(shards)})
        self.graph = Graph(store, [given])
        node = self.graph.node("split")
        if not node.finished:
            for number, rows in enumerate(shards):
                write_documents(node.folder, number, table_from_rows(rows))
            write_record(node.folder, Record("split", "", 1, node.fingerprint, {}, {}, {}, {}, {}, {}, {}), {})
        assert config.trained is not None
        documents = {"documents": "split"}
        sample = SampleConfig(maximum_bytes=config.trained.maximum_bytes)
        work = "stages.tokenizer.sample"
        self.graph.add(Step(SAMPLE_STEP, SAMPLE_KIND, 1, sample, documents, f"{work}:SAMPLE_WORK"))
        counted = {**documents, "sample": SAMPLE_STEP}
        self.graph.add(Step(COUNT_STEP, COUNT_KIND, 1, CountConfig(), counted, f"{work}:COUNT_WORK"))
        paths = {} if config.file is None else {"tokenizer": (config.file,)}
        content = {} if config.file is None else {"tokenizer": Path(config.file).read_text(encoding="utf-8")[-64:]}
        self.graph.add(
            Step("tokenizer", KIND, VERSION, config.identity(), {"counts": COUNT_STEP}, "stages.tokenizer.train:WORK",
                 content, paths)
        )  # fmt: skip
        self.workers = workers

    def make(self) -> TokenizerRun:
        self.graph.run(["tokenizer"], LocalExecutor(self.workers), Silent())
        return self

    def folder(self, name: str = "tokenizer") -> Path:
        return self.graph.node(name).folder

    @property
    def file(self) -> Path:
        return self.folder() / "tokenizer.json"

    @property
    def facts(self) -> Mapping[str, Any]:
        return read_record(self.folder()).facts
