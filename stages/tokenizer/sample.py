"""Which documents a tokenizer is trained on, and counting them: the two sharded steps before training.

`tokenizer.sample` adds up, shard by shard, the bytes of documents by the first 16 bits of the hash of their id, and
finds below which hash documents together have at most `maximum_bytes` (at least one document is taken).
`tokenizer.count` counts the words and phrases of those documents, one task a document shard; see
`stages.tokenizer.counts` for what it writes. Contract: the documents taken depend on ids and sizes alone, the sums of
the counts on the documents taken, so that any sharding and any number of tasks train the same tokenizer. Cost:
sampling reads two columns; counting is the scanner's and about as much again. Phrases are pieces of documents: a count
step holds text, as a document step does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash
from pydantic import Field

from pipeline.core.config import Config
from pipeline.core.documents import DOCUMENT_SCHEMA, document_files, read_table
from pipeline.core.errors import InputError
from pipeline.core.files import atomic_path
from pipeline.core.record import ShardResult
from pipeline.core.steps import StepTask
from pipeline.core.tokenizer import nfc
from stages.dedup.signatures import text_buffers
from stages.tokenizer.counts import Group, count_texts, write_run

SAMPLE_STEP, COUNT_STEP = "tokenizer.sample", "tokenizer.count"  # names in the graph
SAMPLE_KIND, COUNT_KIND = "stages.tokenizer.sample", "stages.tokenizer.count"
SAMPLE_VERSION, COUNT_VERSION = 1, 1
SAMPLE, COUNTS = "sample", "counts"  # roles
BUCKETS = 1 << 16


class SampleConfig(Config):
    """Identity of the sampling step."""

    maximum_bytes: int = Field(default=1_000_000_000, gt=0)  # of UTF-8 text


class CountConfig(Config):
    """Nothing: counts follow from the documents and the sample."""


class SampleWork:
    """Work of `tokenizer.sample`: a histogram a document shard, then the bound."""

    def shard_count(self, task: StepTask) -> int:
        return len(_document_files(task))

    def make_shard(self, task: StepTask, shard: int) -> ShardResult:
        table = read_table(_document_files(task)[shard], DOCUMENT_SCHEMA, ["id", "text"])
        sizes, documents = np.zeros(BUCKETS, np.int64), np.zeros(BUCKETS, np.int64)
        places = buckets(table["id"])
        np.add.at(sizes, places, _sizes(table["text"]))
        np.add.at(documents, places, 1)
        with atomic_path(task.folder / "sizes" / f"{shard:05d}.npy") as partial, partial.open("wb") as handle:
            np.save(handle, np.stack([sizes, documents]))
        return ShardResult(counts={"documents_in": table.num_rows, "documents_out": table.num_rows})

    def finish(self, task: StepTask, results: Sequence[ShardResult]) -> Mapping[str, Any]:
        """The facts: `below` is the first bucket that is not taken. Raises `InputError` without documents."""
        sizes, documents = np.zeros(BUCKETS, np.int64), np.zeros(BUCKETS, np.int64)
        for shard in range(len(results)):
            found = np.load(task.folder / "sizes" / f"{shard:05d}.npy")
            sizes += found[0]
            documents += found[1]
        if not documents.any():
            raise InputError("no documents to train a tokenizer on", where=task.name, fix=SEE_DROPPED)
        fitting = int(np.searchsorted(np.cumsum(sizes), task.config.maximum_bytes, side="right"))
        below = max(fitting, int(np.flatnonzero(documents)[0]) + 1)
        return {
            "below": below,
            "sampled_documents": int(documents[:below].sum()),
            "sampled_bytes": int(sizes[:below].sum()),
        }


SAMPLE_WORK = SampleWork()
SEE_DROPPED = "see what the clean step dropped"


class CountWork:
    """Work of `tokenizer.count`: the runs of each document shard."""

    def shard_count(self, task: StepTask) -> int:
        return len(_document_files(task))

    def make_shard(self, task: StepTask, shard: int) -> ShardResult:
        below = int(task.inputs[SAMPLE].record.facts["below"])
        table = read_table(_document_files(task)[shard], DOCUMENT_SCHEMA, ["id", "text", "lang", "domain"])
        taken = table.filter(pa.array(buckets(table["id"]) < below))
        number = 0
        for group, texts in _grouped(taken):
            for run in count_texts(group, texts):
                write_run(task.folder, shard, number, run)
                number += 1
        return ShardResult(
            counts={
                "documents_in": table.num_rows,
                "documents_out": taken.num_rows,
                "bytes_out": int(_sizes(taken["text"]).sum()),
                "runs": number,
            }
        )

    def finish(self, task: StepTask, results: Sequence[ShardResult]) -> Mapping[str, Any]:
        return {name: task.inputs[SAMPLE].record.facts[name] for name in ("sampled_documents", "sampled_bytes")}


COUNT_WORK = CountWork()


def buckets(ids: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """[documents] int64: the first 16 bits of the hash of each id."""
    hashes = [xxhash.xxh3_64_intdigest(identity.encode()) >> 48 for identity in ids.to_pylist()]
    return np.array(hashes, np.int64)


def _document_files(task: StepTask) -> list[Path]:
    roles = sorted(role for role in task.inputs if role != SAMPLE)
    files = [file for role in roles for file in document_files(task.inputs[role].folder)]
    if not files:
        raise InputError("no documents to train a tokenizer on", where=task.name, fix=SEE_DROPPED)
    return files


def _sizes(texts: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """[documents] int64 bytes."""
    _, offsets = text_buffers(texts)
    return np.diff(offsets)


def _grouped(documents: pa.Table) -> Iterator[tuple[Group, Iterator[bytes]]]:
    """The NFC texts of each language and domain."""
    languages, domains = (documents[name].to_pylist() for name in ("lang", "domain"))
    groups = [Group(language or "", domain or "") for language, domain in zip(languages, domains, strict=True)]
    for group in sorted(set(groups)):
        rows = [row for row, found in enumerate(groups) if found == group]
        texts = documents["text"].take(pa.array(rows, pa.int64()))
        yield group, (nfc(text.as_py()).encode() for text in texts)
