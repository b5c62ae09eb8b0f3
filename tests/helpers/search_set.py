"""A search set over the samples, for tests: its settings, and its index built in a folder of the test's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.core.steps import StepOutput, StepTask
from synth.subagents.config import SearchConfig
from synth.subagents.index import SearchIndex
from synth.subagents.index_step import WORK as INDEX_WORK

LANGUAGES = ("de", "en", "es", "ja", "ko", "vi")


def config(**more: Any) -> SearchConfig:
    return SearchConfig.model_validate({"kind": "search", "from": "articles", "questions": 18, **more})


def indexed_task(settings: SearchConfig, library: Any, make_task: Any, folder: Path, **paths: Any) -> StepTask:
    """The task of the set, with the index of the samples as its input."""
    rows = [library.row(lang, slug) for lang in LANGUAGES for slug in library.slugs(lang)]
    task = make_task("index.s", settings.corpus, [rows[::2], rows[1::2]])
    for shard in range(INDEX_WORK.shard_count(task)):
        INDEX_WORK.make_shard(task, shard)
    inputs = {"index": StepOutput("index.s", task.folder)}
    return StepTask("synth.s", "f" * 64, settings, inputs, folder / "synth.s", folder, paths)


def index_of(task: StepTask) -> SearchIndex:
    return SearchIndex(task.inputs["index"].folder / "index")
