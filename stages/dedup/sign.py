"""Signatures of documents: step kind `stages.dedup.signatures`, a shard for each input shard.

Contract: the only step of a deduplication that reads texts, and each once: it writes the signature files
(`stages.dedup.keyfiles`) from which every later comparison is made, this run's and those of later crawls. Works:
`MINHASH` (near-duplicates), `WRITTEN` (those of what makers wrote, for synthetic sets), `TEXT` (equal NFC texts and
messages), `URL` (equal canonical URLs; documents without a URL have no keys). Equal texts and URLs are compared by
128-bit hashes. Memory: one batch of texts, and the shard's signature files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from pipeline.core.documents import document_files
from pipeline.core.errors import ConfigError, InputError, nearest
from pipeline.core.record import ShardResult
from pipeline.core.steps import StepTask
from pipeline.core.written import written_text
from stages.dedup.batches import table_batches
from stages.dedup.keyfiles import DOCUMENT, id_numbers, write_keys
from stages.dedup.layout import DOCUMENTS
from stages.dedup.methods import MinhashKeys, TextKeys, UrlKeys
from stages.dedup.signatures import band_keys, compared_texts, signatures, text_buffers
from stages.dedup.urls import canonical_url
from stages.stored_signals import signals_file

QUALITY_STEPS = 1_000_000  # a quality signal becomes an integer in these units
NO_QUALITY = np.iinfo(np.int64).min + 1
HASH_BYTES = 16


@dataclass(frozen=True)
class Signs:
    """Of one table: [D, C] uint8 checks; [E, B] uint64 keys of the rows [E]."""

    checks: np.ndarray
    keys: np.ndarray
    rows: np.ndarray


class SignWork:
    """The step's work: one method over the columns that it needs."""

    def __init__(self, columns: Sequence[str], sign: Callable[[pa.Table, Any], Signs]) -> None:
        self._columns = tuple(columns)
        self._sign = sign

    def shard_count(self, task: StepTask) -> int:
        return len(input_files(task))

    def make_shard(self, task: StepTask, shard: int) -> ShardResult:
        records = Records(task, shard)
        documents: list[np.ndarray] = []
        signs: list[Signs] = []
        rows: list[np.ndarray] = []
        count = 0
        for table in table_batches(records.file, ("id", "cluster_size", *self._columns)):
            documents.append(records.of(table))
            signs.append(self._sign(table, task.config))
            rows.append(signs[-1].rows + count)
            count += table.num_rows
        checks, keys = (np.concatenate([getattr(one, name) for one in signs]) for name in ("checks", "keys"))
        write_keys(task.folder, shard, np.concatenate(documents), checks, keys, np.concatenate(rows))
        return ShardResult(counts={"signed": count, "with_keys": keys.shape[0]})

    def finish(self, task: StepTask, results: Sequence[ShardResult]) -> Mapping[str, Any]:
        return {}


def input_files(task: StepTask) -> list[Path]:
    """The document shards of all document inputs. Raises `InputError` when there are none."""
    roles = [role for role in sorted(task.inputs) if role.split(".")[0] == DOCUMENTS]
    files = [file for role in roles for file in document_files(task.inputs[role].folder)]
    if not files:
        raise InputError("no documents to deduplicate", where=task.name, fix="see what the steps before it dropped")
    return files


def _minhash(table: pa.Table, config: MinhashKeys) -> Signs:
    if config.scheme == "datatrove":
        from stages.dedup.datatrove_scheme import datatrove_signatures

        values = datatrove_signatures(compared_texts(table), table["lang"].to_pylist(), config)
    else:
        values = signatures(compared_texts(table), config.shingle, config.bands * config.rows)
    return Signs(values.astype(np.uint8), band_keys(values, config.bands, config.rows), np.arange(table.num_rows))


def _written(table: pa.Table, config: MinhashKeys) -> Signs:
    texts = map(written_text, compared_texts(table).to_pylist(), table["extra"].to_pylist())
    values = signatures(pa.array(list(texts), pa.large_string()), config.shingle, config.bands * config.rows)
    return Signs(values.astype(np.uint8), band_keys(values, config.bands, config.rows), np.arange(table.num_rows))


def _text(table: pa.Table, config: TextKeys) -> Signs:
    del config
    hashes = table["text_hash"].to_pylist()
    for row, messages in enumerate(table["messages"].to_pylist()):
        if messages:
            hashes[row] = xxhash.xxh3_128_hexdigest(f"{hashes[row]}{messages!r}".encode())
    return _equal(hashes, np.arange(table.num_rows))


def _url(table: pa.Table, config: UrlKeys) -> Signs:
    urls = [canonical_url(url, config.ignored_parameters) if url else "" for url in table["url"].to_pylist()]
    rows = np.flatnonzero(np.array([bool(url) for url in urls], bool))
    return _equal([xxhash.xxh3_128_hexdigest(url.encode()) for url in urls], rows)


def _equal(hashes: Sequence[str], rows: np.ndarray) -> Signs:
    """Documents are a pair when their 128-bit hashes are equal; the bucket key is the first half."""
    data = bytes.fromhex("".join(hashes))
    checks = np.frombuffer(data, np.uint8).reshape(-1, HASH_BYTES)
    keys = np.frombuffer(data, "<u8").reshape(-1, 2)[:, :1]
    return Signs(checks, keys[rows], rows)


class Records:
    """What is known of the documents of an input shard beside their texts.

    Raises:
        ConfigError: No input has the quality signal that is asked for.
    """

    def __init__(self, task: StepTask, shard: int) -> None:
        files = input_files(task)
        self.file = files[shard]
        signal = task.config.quality_signal
        self._quality = _quality(self.file, signal, known_signals(files)) if signal else None

    def of(self, table: pa.Table) -> np.ndarray:
        """[rows] records of `DOCUMENT`; texts are not read to find equal ones, which are of one size."""
        ids = id_numbers(table["id"], str(self.file))
        out = np.zeros(table.num_rows, DOCUMENT)
        out["high"], out["low"] = ids[:, 0], ids[:, 1]
        if "text" in table.column_names:
            out["size"] = np.diff(text_buffers(table["text"])[1])
        out["cluster_size"] = table["cluster_size"].fill_null(1).to_numpy()
        if self._quality is not None:
            out["quality"] = [self._quality.get(identity, NO_QUALITY) for identity in table["id"].to_pylist()]
        return out


def known_signals(files: Sequence[Path]) -> set[str]:
    """Names of signals that any input has."""
    found = [signals_file(file) for file in files]
    return {name for file in found if file.is_file() for name in pq.read_schema(file).names} - {"id"}


def _quality(file: Path, signal: str, known: set[str]) -> dict[str, int]:
    """Id -> quality of the documents of a shard that have one."""
    if signal not in known:
        close = nearest(signal, sorted(known))
        raise ConfigError(
            f"no input has the signal `{signal}`",
            where="quality_signal",
            fix=f"{f'did you mean `{close}`? ' if close else ''}known: {', '.join(sorted(known)) or 'none'}",
        )
    signals = signals_file(file)
    if not signals.is_file() or signal not in pq.read_schema(signals).names:
        return {}
    part = pq.read_table(signals, columns=["id", signal]).drop_null()
    scaled = np.rint(part[signal].to_numpy() * QUALITY_STEPS).astype(np.int64)
    return dict(zip(part["id"].to_pylist(), scaled.tolist(), strict=True))


MINHASH = SignWork(("text", "messages", "lang"), _minhash)
WRITTEN = SignWork(("text", "messages", "extra"), _written)
TEXT = SignWork(("text_hash", "messages"), _text)
URL = SignWork(("text", "url"), _url)
