"""Every per-document block of the catalog runs inside a plain datatrove pipeline, with the result it has in ours."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datatrove.data import Document
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter

from pipeline.core.config import Located
from pipeline.core.datatrove_bridge import from_datatrove
from stages.adapters import DatatroveBlock, SeodangStep
from stages.block import verify
from stages.catalog import BLOCKS, block_config, make_block, resolve
from stages.classifier.build import train_classifier
from stages.classifier.spec import ClassifierSpec

PAGE = (
    "<html lang='en'><body><article><p>The river runs past the old mill, and the people of the village have walked "
    "there with their dogs since the bridge was built.</p></article></body></html>"
)
TEXTS = [
    "The river runs past the old mill, and the people of the village have walked there with their dogs.\r\n" * 3,
    "Write to ada@example.com, or call 010-0000-1234, and be so kind as to bring the book that you have with you.",
    "spam " * 90,
    "이 글은 도서관에 관한 글이며, 사서는 날마다 책을 정리하고 저녁이 되면 불을 끄고 집으로 돌아간다.",
]
# Options that a block cannot do without.
OPTIONS: dict[str, dict[str, Any]] = {
    "datatrove": {"block": "datatrove.pipeline.filters:RegexFilter", "arguments": {"regex_exp": "spam"}},
    "decontaminate": {"against": ("benchmark.jsonl",)},
    "extract": {"seconds_per_page": 0},
    "rules": {"thresholds": {"default": {"gopher_too_short": 10}}},
}
PER_DOCUMENT = sorted(name for name, one in BLOCKS.items() if one.scope == "document")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier's folder."""
    folder = tmp_path_factory.mktemp("classifier")
    for label, words in (("positive", "river mill bridge people dogs"), ("negative", "spam pills casino bonus win")):
        rows = [{"text": f"{words} {n} {words}", "lang": "en"} for n in range(80)]
        (folder / f"{label}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = {"kind": "jsonl", "lang_key": "lang"}
    spec = {
        "name": "quality",
        "labels": {
            label: {"sources": ({**source, "paths": (f"{label}.jsonl",)},)} for label in ("positive", "negative")
        },
        "languages": ("en",),
        "train": {"epochs": 2},
        "minimum_documents": 20,
    }
    train_classifier(ClassifierSpec.model_validate(spec), folder, folder / "model")
    return folder / "model"


@pytest.fixture
def made(tmp_path: Path, trained: Path) -> Callable[[str], Any]:
    """A block of the catalog with the least options it can do with."""
    (tmp_path / "benchmark.jsonl").write_text(json.dumps({"question": "What is the capital of the old river?"}) + "\n")
    options = {
        **OPTIONS,
        "classifier": {"model": (f"{trained}/*.bin", f"{trained}/classifier.json"), "minimum": {"default": 0.5}},
    }

    def make(name: str) -> Any:
        found = resolve(name, block_config(name, Located(options.get(name, {}))), 0, tmp_path)
        return make_block(found.spec, 0, found.paths)

    return make


def documents() -> list[Document]:
    page = Document(text=PAGE, id="page", metadata={"extra": '{"content_type":"text/html"}'})
    return [*(Document(text=text, id=f"doc-{n}", metadata={"lang": "en"}) for n, text in enumerate(TEXTS)), page]


@pytest.mark.parametrize("name", PER_DOCUMENT)
def test_a_block_gives_the_same_inside_datatrove(name: str, made: Callable[[str], Any]) -> None:
    table = from_datatrove(documents(), "crawl")
    ours = made(name).apply(table)
    verify(table, ours)
    step = SeodangStep(made(name), "crawl")
    there = from_datatrove(step.run(iter(documents())), "crawl")
    assert there.equals(ours.kept)
    dropped = {key: stat.total for key, stat in step.stats.stats.items() if key.startswith("dropped_")}
    assert sum(dropped.values()) == len(ours.reasons)
    assert set(dropped) == {f"dropped_{reason}" for reason in ours.reasons}


@pytest.mark.parametrize("name", PER_DOCUMENT)
def test_a_block_runs_between_datatroves_reader_and_writer(
    name: str, made: Callable[[str], Any], tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    lines = [json.dumps({"id": one.id, "text": one.text, **one.metadata}) for one in documents()]
    (tmp_path / "in" / "x.jsonl").write_text("\n".join(lines))
    reader = JsonlReader(str(tmp_path / "in"), glob_pattern="*.jsonl")
    writer = JsonlWriter(str(tmp_path / "out"), output_filename="${rank}.jsonl", compression=None)
    passed = list(writer.run(SeodangStep(made(name), "crawl").run(reader.run())))
    files = sorted((tmp_path / "out").glob("*.jsonl"))  # none where every document is dropped
    written = [json.loads(line) for path in files for line in path.read_text().splitlines()]
    assert [one["id"] for one in written] == [one.id for one in passed]
    assert {one["id"] for one in written} <= {one.id for one in documents()}


@pytest.mark.parametrize("name", PER_DOCUMENT)
def test_a_block_may_stand_behind_datatroves_adapter_in_ours(name: str, made: Callable[[str], Any]) -> None:
    table = from_datatrove(documents(), "crawl")
    alone = made(name).apply(table)
    wrapped = DatatroveBlock(SeodangStep(made(name), "crawl")).apply(table)
    verify(table, wrapped)
    assert wrapped.kept.equals(alone.kept)
    assert wrapped.dropped_at.tolist() == alone.dropped_at.tolist()


# Those that need no network: datatrove fetches models and lists for the others when they are made. Blocks of several
# stages (its deduplication, tokenizers, statistics) are pipelines of their own and no block of one.
DATATROVE_BLOCKS = [
    ("datatrove.pipeline.filters:RegexFilter", {"regex_exp": "spam"}),
    ("datatrove.pipeline.filters:SamplerFilter", {"rate": 0.5, "seed": 1}),
    ("datatrove.pipeline.formatters:PIIFormatter", {}),
    ("datatrove.pipeline.formatters:FTFYFormatter", {}),
    ("datatrove.pipeline.formatters:SymbolLinesFormatter", {"symbols_to_remove": ("|",)}),
    ("datatrove.pipeline.filters:C4ParagraphFilter", {}),
    ("datatrove.pipeline.filters:C4QualityFilter", {"min_num_sentences": -1}),
    ("datatrove.pipeline.filters:GopherQualityFilter", {"min_doc_words": 5}),
    ("datatrove.pipeline.filters:GopherRepetitionFilter", {}),
    ("datatrove.pipeline.filters:FineWebQualityFilter", {}),
    ("datatrove.pipeline.extractors:Trafilatura", {"timeout": 20}),
]
NEED_SPACY = ("GopherQualityFilter", "GopherRepetitionFilter", "FineWebQualityFilter")


@pytest.mark.parametrize(("path", "arguments"), DATATROVE_BLOCKS)
def test_datatroves_blocks_run_inside_ours(path: str, arguments: dict[str, Any], tmp_path: Path) -> None:
    if path.endswith(NEED_SPACY):
        pytest.importorskip("spacy")
    config = block_config("datatrove", Located({"block": path, "arguments": arguments}))
    found = resolve("datatrove", config, 0, tmp_path)
    table = from_datatrove(documents(), "crawl")
    result = make_block(found.spec, 0, {}).apply(table)
    verify(table, result)
    assert {reason.split(".")[0] for reason in result.reasons} <= {"datatrove"}
    assert result.kept.schema.equals(table.schema)
