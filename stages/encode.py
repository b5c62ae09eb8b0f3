"""Encoding: documents to token shards, one token shard for each document shard.

Contract: the token shard of `pipeline.core.shards`. Text is encoded as text (what looks like a special token is not
one), every document ends in exactly one EOS. Documents with `messages` are written in the chat format with a
`.bin.loss` file that counts what assistants write; in such a shard all tokens of plain documents count. Tool
declarations of a chat stand in `extra` under `tools`. A tokenizer that our encoder does not cover is encoded by
`tokenizers`; the facts then say why under `encoded_by_tokenizers`. Cost: the encoder's (`python -m benchmarks shards`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.core.chat import EOS, Run
from pipeline.core.config import Config
from pipeline.core.documents import DOCUMENT_SCHEMA, document_files, read_table
from pipeline.core.errors import ConfigError, InputError, nearest
from pipeline.core.files import hash_file
from pipeline.core.record import ShardResult
from pipeline.core.shards import DOCUMENT_TABLE_SCHEMA, write_shard
from pipeline.core.steps import StepTask
from pipeline.core.tokenizer import FILE, Tokenizer, training_runs
from stages.dedup.signatures import text_bytes
from stages.tokenizer.encoder import Encoder, shared_encoder

VERSION = 2
BATCH_DOCUMENTS = 256
TOKENIZER_ROLE = "tokenizer"
_COLUMNS = ("id", "source", "lang", "domain", "license", "maker", "parents", "cluster_size")


class EncodeConfig(Config):
    """Options of the encode step."""

    quality_signal: str = ""  # a signal's column, name@version, for the document table; empty: null


class EncodeWork:
    """The step's work: roles `tokenizer`, and any others with documents."""

    def shard_count(self, task: StepTask) -> int:
        return len(_files(task))

    def make_shard(self, task: StepTask, shard: int) -> ShardResult:
        encoder = _encoder(task)
        file = _files(task)[shard]
        documents = read_table(file, DOCUMENT_SCHEMA)
        batches = list(encoded(documents, encoder))
        token_ids = np.concatenate([np.empty(0, np.uint32), *(batch.token_ids for batch in batches)])
        lengths = np.concatenate([np.empty(0, np.int64), *(batch.lengths for batch in batches)])
        chats = any(batch.has_chats for batch in batches)
        loss = np.concatenate([batch.loss for batch in batches]) if chats else None
        table = document_table(documents, lengths, _quality(file, documents, task.config.quality_signal))
        stem = task.folder / "tokens" / f"{shard:05d}"
        write_shard(stem, token_ids, table, eos_id=encoder.tokenizer.eos_id, loss=loss)
        return _result(documents, lengths, loss, encoder.tokenizer)

    def finish(self, task: StepTask, results: Sequence[ShardResult]) -> Mapping[str, Any]:
        tokens: dict[str, Counter[str]] = {"tokens_by_source": Counter(), "tokens_by_language": Counter()}
        for result in results:
            for name, total in tokens.items():
                total.update(result.facts[name])
        encoder = _encoder(task)
        return {
            **{name: dict(sorted(total.items())) for name, total in tokens.items()},
            "tokenizer": encoder.tokenizer.fingerprint,
            "vocabulary": encoder.tokenizer.vocabulary_size,
            **({"encoded_by_tokenizers": encoder.reason} if encoder.reason else {}),
        }


WORK = EncodeWork()


@dataclass(frozen=True)
class EncodedBatch:
    """Documents in a row, each ending in EOS."""

    token_ids: np.ndarray  # [tokens] uint32
    loss: np.ndarray  # [tokens] uint8: 1 = counts in the loss
    lengths: np.ndarray  # [documents] int64 tokens
    has_chats: bool


def encoded(documents: pa.Table, encoder: Encoder) -> Iterator[EncodedBatch]:
    """Batches of the documents in their order."""
    for start in range(0, documents.num_rows, BATCH_DOCUMENTS):
        batch = documents.slice(start, BATCH_DOCUMENTS)
        texts, messages, extras = (batch[name].to_pylist() for name in ("text", "messages", "extra"))
        runs = [_runs(text, said, extra) for text, said, extra in zip(texts, messages, extras, strict=True)]
        yield _encoded_runs(runs, encoder, has_chats=any(messages))


def _runs(text: str, messages: list[dict[str, Any]] | None, extra: str | None) -> list[Run]:
    if not messages:
        return [Run(text, False, True), Run(EOS, True, True)]
    return training_runs(messages, (orjson.loads(extra).get("tools") or ()) if extra else ())


def _encoded_runs(documents: Sequence[Sequence[Run]], encoder: Encoder, *, has_chats: bool) -> EncodedBatch:
    """All text of the batch goes through the encoder at once; special tokens are put between by their ids."""
    runs = [run for document in documents for run in document]
    is_special = np.array([run.special for run in runs])
    text_ids, offsets = encoder.encode_joined([run.text for run in runs if not run.special])
    run_lengths = np.ones(len(runs), np.int64)
    run_lengths[~is_special] = np.diff(offsets)
    special_places = np.repeat(is_special, run_lengths)
    token_ids = np.empty(special_places.shape[0], np.uint32)
    token_ids[special_places] = [encoder.tokenizer.special_ids[run.text] for run in runs if run.special]
    token_ids[~special_places] = text_ids
    return EncodedBatch(
        token_ids=token_ids,
        loss=np.repeat(np.array([run.counts for run in runs], np.uint8), run_lengths),
        lengths=np.add.reduceat(run_lengths, np.cumsum([0, *map(len, documents[:-1])])),
        has_chats=has_chats,
    )


def document_table(documents: pa.Table, lengths: np.ndarray, quality: pa.Array) -> pa.Table:
    """`DOCUMENT_TABLE_SCHEMA` rows; `lengths` is [documents] int64 tokens, EOS included."""
    starts = np.cumsum(lengths) - lengths
    columns = {name: documents[name] for name in _COLUMNS}
    columns |= {"quality": quality, "start": pa.array(starts), "length": pa.array(lengths)}
    return pa.table([columns[name] for name in DOCUMENT_TABLE_SCHEMA.names], names=DOCUMENT_TABLE_SCHEMA.names).cast(
        DOCUMENT_TABLE_SCHEMA
    )


def _files(task: StepTask) -> list[Path]:
    roles = sorted(role for role in task.inputs if role != TOKENIZER_ROLE)
    files = [file for role in roles for file in document_files(task.inputs[role].folder)]
    if not files:
        raise InputError("no documents to encode", where=task.name, fix="see what the steps before it dropped")
    return files


def _encoder(task: StepTask) -> Encoder:
    file = task.inputs[TOKENIZER_ROLE].folder / FILE
    return shared_encoder(file, hash_file(file))


def _quality(file: Path, documents: pa.Table, signal: str) -> pa.Array:
    """float32 values of a signal for each document; null where there is none, as in sets without any signals."""
    folder = file.parent.parent / "signals"
    if not signal or not folder.is_dir():
        return pa.nulls(documents.num_rows, pa.float32())
    found: dict[str, float] = {}
    seen: set[str] = set()
    for path in sorted(folder.glob("[!.]*.parquet")):
        names = pq.read_schema(path).names
        seen.update(names)
        if signal in names:
            part = pq.read_table(path, columns=["id", signal])
            found.update(zip(part["id"].to_pylist(), part[signal].to_pylist(), strict=True))
    if signal not in seen:
        close = nearest(signal, seen)
        raise ConfigError(
            f"the documents have no signal `{signal}`",
            where=str(folder),
            fix=f"did you mean `{close}`?" if close else "leave `encode.quality_signal` empty",
        )
    return pa.array([found.get(identity) for identity in documents["id"].to_pylist()], pa.float32())


def _result(documents: pa.Table, lengths: np.ndarray, loss: np.ndarray | None, tokenizer: Tokenizer) -> ShardResult:
    size = text_bytes(documents)
    tokens = int(lengths.sum())
    by: dict[str, Counter[str]] = {"source": Counter(), "lang": Counter()}
    for column, total in by.items():
        for value, length in zip(documents[column].to_pylist(), lengths.tolist(), strict=True):
            total[value or "und"] += length
    return ShardResult(
        counts={
            "documents_in": documents.num_rows,
            "documents_out": documents.num_rows,
            "bytes_in": size,
            "bytes_out": size,
            "tokens": tokens,
            "tokens_in_loss": tokens if loss is None else int(loss.sum()),
        },
        licenses=dict(sorted(Counter(value for value in documents["license"].to_pylist() if value).items())),
        facts={
            "tokens_by_source": dict(sorted(by["source"].items())),
            "tokens_by_language": dict(sorted(by["lang"].items())),
            "tokenizer": tokenizer.fingerprint,
        },
    )
