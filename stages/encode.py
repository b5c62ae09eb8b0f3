"""Encoding: documents to token shards, one token shard for each document shard.

Contract: the token shard of `pipeline.core.shards`. Text is encoded as text (what looks like a special token is not
one), every document ends in exactly one EOS. Documents with `messages` are written in the chat format with a
`.bin.loss` file that counts what assistants write; in such a shard all tokens of plain documents count. Tool
declarations of a chat stand in `extra` under `tools`. Cost: the encoder's, about 2.5 MB/s on one core.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.core.config import Config
from pipeline.core.documents import DOCUMENT_SCHEMA, document_files, read_table
from pipeline.core.errors import ConfigError, InputError, nearest
from pipeline.core.record import ShardResult
from pipeline.core.shards import DOCUMENT_TABLE_SCHEMA, write_shard
from pipeline.core.steps import StepTask
from pipeline.core.tokenizer import Tokenizer
from stages.dedup.signatures import text_bytes

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
        tokenizer = Tokenizer.load(task.inputs[TOKENIZER_ROLE].folder)
        file = _files(task)[shard]
        documents = read_table(file, DOCUMENT_SCHEMA)
        pieces = list(encoded(documents, tokenizer))
        token_ids = np.concatenate([ids for ids, _ in pieces]) if pieces else np.empty(0, np.uint32)
        chats = any(flags is not None for _, flags in pieces)
        loss = np.concatenate([_flags(ids, flags) for ids, flags in pieces]) if chats else None
        lengths = np.array([ids.shape[0] for ids, _ in pieces], np.int64)
        table = document_table(documents, lengths, _quality(file, documents, task.config.quality_signal))
        write_shard(task.folder / "tokens" / f"{shard:05d}", token_ids, table, eos_id=tokenizer.eos_id, loss=loss)
        return _result(documents, lengths, loss, tokenizer)

    def finish(self, task: StepTask, results: Sequence[ShardResult]) -> Mapping[str, Any]:
        tokens: dict[str, Counter[str]] = {"tokens_by_source": Counter(), "tokens_by_language": Counter()}
        for result in results:
            for name, total in tokens.items():
                total.update(result.facts[name])
        tokenizer = Tokenizer.load(task.inputs[TOKENIZER_ROLE].folder)
        return {
            **{name: dict(sorted(total.items())) for name, total in tokens.items()},
            "tokenizer": tokenizer.fingerprint,
            "vocabulary": tokenizer.vocabulary_size,
        }


WORK = EncodeWork()


def encoded(documents: pa.Table, tokenizer: Tokenizer) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """([tokens] uint32 ids ending in EOS, [tokens] uint8 loss flags of a chat or None) of each document."""
    eos = np.array([tokenizer.eos_id], np.uint32)
    for start in range(0, documents.num_rows, BATCH_DOCUMENTS):
        batch = documents.slice(start, BATCH_DOCUMENTS)
        messages, extras = batch["messages"].to_pylist(), batch["extra"].to_pylist()
        texts = ["" if said else text for text, said in zip(batch["text"].to_pylist(), messages, strict=True)]
        for ids, said, extra in zip(tokenizer.encode_batch(texts), messages, extras, strict=True):
            if said:
                yield tokenizer.encode_chat(said, tools=(orjson.loads(extra).get("tools") or ()) if extra else ())
            else:
                yield np.concatenate([ids, eos]), None


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


def _flags(token_ids: np.ndarray, flags: np.ndarray | None) -> np.ndarray:
    return np.ones(token_ids.shape[0], np.uint8) if flags is None else flags


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
