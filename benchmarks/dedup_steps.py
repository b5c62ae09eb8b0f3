"""A deduplication from a document shard to a document shard, files and all, in this process; and its input.

Contract: every part of a block runs as in a pipeline, one shard after the other; hashes of outputs and logs, which
belong to the pipeline and not to the work, are left out; records hold the counts that later parts ask for. Input: one
Parquet file as cleaning writes it.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.inputs import Corpus
from pipeline.core.config import Located
from pipeline.core.documents import DOCUMENT_SCHEMA, document_files, read_table
from pipeline.core.record import Record, write_record
from pipeline.core.steps import StepOutput, StepTask
from stages.catalog import block_config, entry, load
from stages.clean_output import table_writer

INPUT = "given"


def write_input(folder: Path, corpus: Corpus) -> Path:
    """The corpus as the only shard of a step; returns the step's folder."""
    table = corpus.table()
    with table_writer(folder / INPUT / "documents" / "00000.parquet", DOCUMENT_SCHEMA) as writer:
        for first in range(0, table.num_rows, 256):
            writer.add(table.slice(first, 256))
    return folder / INPUT


def deduplicated(block: str, given: Path, folder: Path, **options: Any) -> Mapping[str, int]:
    """Run a global block over the documents of a step, outputs anew below `folder`; returns the last part's counts."""
    shutil.rmtree(folder, ignore_errors=True)
    outputs = {INPUT: StepOutput(INPUT, given)}
    counts: Counter[str] = Counter()
    for part in load(entry(block).make)(block_config(block, Located(options)), block):
        inputs = {role: outputs[name] for role, name in part.after.items()}
        if part.reads_documents:
            inputs["documents"] = outputs[INPUT]
        task = StepTask(part.name, "0" * 64, part.config, inputs, folder / part.name, folder, part.paths)
        work: Any = load(part.work)
        counts = Counter()
        for shard in range(work.shard_count(task)):
            counts.update(work.make_shard(task, shard).counts)
        record = Record(part.name, part.kind, part.version, task.fingerprint, {}, {}, dict(counts), {}, {}, {}, {})
        write_record(task.folder, record, {})
        outputs[part.name] = StepOutput(part.name, task.folder)
    return counts


def texts_of(folder: Path) -> dict[str, str]:
    """Id -> text of the documents of a step."""
    tables = [read_table(file, DOCUMENT_SCHEMA, ["id", "text"]) for file in document_files(folder)]
    return {row["id"]: row["text"] for table in tables for row in table.to_pylist()}
