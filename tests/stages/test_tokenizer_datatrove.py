"""Counting as a step of a datatrove pipeline: the runs of its tasks train the tokenizer that our own step trains."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from datatrove.data import Document
from datatrove.executor.local import LocalPipelineExecutor
from datatrove.pipeline.readers import JsonlReader
from tokenizer_run import TokenizerRun, corpus

from stages.tokenizer import counts
from stages.tokenizer.counts import read_run, run_files
from stages.tokenizer.datatrove_count import CountStep
from stages.tokenizer.superbpe import build, train_runs
from stages.tokenizer.train import TokenizerConfig, TrainTokenizerConfig, plan_of

OPTIONS = TrainTokenizerConfig(vocabulary=600, superword_share=0.1)


def fields(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": row["id"], "text": row["text"], "lang": row["lang"], "domain": row.get("domain")}


@pytest.mark.parametrize("tasks", [1, 3])
def test_runs_of_a_datatrove_pipeline_train_the_same_tokenizer(
    tasks: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = corpus()
    whole = TokenizerRun(tmp_path / "whole", [rows], TokenizerConfig(train=OPTIONS)).make()
    source = tmp_path / "documents"
    source.mkdir()
    for number in range(3):
        lines = "".join(json.dumps(fields(row)) + "\n" for row in rows[number::3])
        (source / f"{number}.jsonl").write_text(lines, encoding="utf-8")
    monkeypatch.setattr(counts, "RUN_WORDS", 40)
    folder = tmp_path / "runs"
    steps = [JsonlReader(str(source)), CountStep(folder)]
    LocalPipelineExecutor(steps, tasks=tasks, workers=1, logging_dir=str(tmp_path / "logs")).run()
    files = run_files(folder)
    assert len(files) > 3 * tasks
    assert {file.name[:5] for file in files} == {f"{rank:05d}" for rank in range(tasks)}
    trained = train_runs(lambda: map(read_run, files), plan_of(OPTIONS, 600))
    assert build(trained).to_str(pretty=False).encode() == whole.file.read_bytes()


def test_a_task_that_is_run_again_replaces_its_runs_and_passes_documents_on(tmp_path: Path) -> None:
    documents = [Document(text=f"the water {n}", id=str(n), metadata={"language": "en"}) for n in range(5)]
    assert list(CountStep(tmp_path).run(documents, rank=4)) == documents
    assert list(CountStep(tmp_path).run(documents[:2], rank=4)) == documents[:2]
    assert list(CountStep(tmp_path).run([], rank=5)) == []
    (file,) = run_files(tmp_path)
    run = read_run(file)
    assert file.name.startswith("00004-")
    assert run.group.name == "en"
    assert int(run.phrase_counts.sum()) == 2
