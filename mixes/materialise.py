"""A plan's rows written out, in the order in which they are served, for other trainers.

Contract: one folder, `materialised.json` last, which names the plan, the format and a hash per file; a folder without
it is not finished, and an interrupted run is made again from the start. Document boundaries, sources and loss flags go
along in each format's own way:

`megatron`  `rows.bin`/`rows.idx` (Megatron-Core): a sequence a piece, a document a row, no padding; `rows.loss.bin`,
            one byte a token, where some tokens do not count; `rows.sources.npy`, the source of each sequence
`mds`       MosaicML Streaming shards: `tokens` ndarray:uint32:T (0 in padding), `loss_mask` ndarray:uint8:T,
            `document_lengths` and `document_sources` bytes of int32
`parquet`   for Hugging Face `datasets`: `input_ids`, `loss_mask`, `document_lengths`, `document_sources`, no padding

Megatron takes the rows as the unit of shuffling only with its own shuffling switched off. Cost: the loader's, and the
files' own bytes; memory of one shard.

Shapes: R rows of a batch, T context tokens, P pieces.
"""

from __future__ import annotations

import json
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mixes.loader import Batch, MixLoader
from pipeline.core.errors import InputError, unknown_name
from pipeline.core.files import atomic_path, hash_file, list_files, write_bytes, write_json
from pipeline.core.plans import Plan, Segment
from pipeline.core.shards import MEGATRON_HEADER, MEGATRON_INT32

SHARD_BYTES = 1 << 26  # of MDS and Parquet: 64 MiB, MosaicML's own limit
BATCH_TOKENS = 1 << 20
DONE = "materialised.json"
TOKEN_BYTES = 4


def materialise(
    plan: Plan, segments: Sequence[Segment], name: str, folder: Path, told: Callable[[int], None] = lambda rows: None
) -> dict[str, Any]:
    """Write the rows of `segments`, which follow each other in `plan`, in format `name`.

    Args:
        plan: The chain.
        segments: Of one context length.
        name: A key of `FORMATS`.
        folder: Made, or empty, or an unfinished earlier try.
        told: Called with the number of rows written so far.

    Returns:
        The content of `materialised.json`.

    Raises:
        ConfigError: an unknown format.
        InputError: the folder holds something else, or the segments differ in context length.
    """
    if name not in FORMATS:
        raise unknown_name("format", name, FORMATS)
    contexts = sorted({segment.context_tokens for segment in segments})
    if len(contexts) > 1:
        raise InputError(f"segments of {contexts} tokens", where="export", fix="export one phase at a time")
    _clear(folder)
    writer = FORMATS[name](folder, contexts[0], segments[0].sources)
    rows = 0
    for batch in _batches(plan, segments):
        writer.write(batch)
        rows += batch.token_ids_RT.shape[0]
        told(rows)
    writer.close()
    files = {path.name: hash_file(path) for path in list_files(folder)}
    facts = {
        "format": name,
        "plan": segments[-1].fingerprint,
        "tokenizer": segments[-1].tokenizer,
        "context_tokens": contexts[0],
        "rows": rows,
        "tokens": writer.tokens,
        "sources": list(writer.sources),
        "files": files,
    }
    write_json(folder / DONE, facts)
    return facts


def _clear(folder: Path) -> None:
    """Remove what an unfinished try left; refuse a folder that holds anything else."""
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set[str]()
    ours = {name for name in names if name.startswith(("rows.", "train-", "shard.", "index.json", ".partial-"))}
    if DONE in names or names - ours:
        other = sorted(names - ours)[0]
        raise InputError(f"the folder holds `{other}` already", where=str(folder), fix="give an empty or new folder")
    for name in ours:
        (folder / name).unlink()
    folder.mkdir(parents=True, exist_ok=True)


def _batches(plan: Plan, segments: Sequence[Segment]) -> Iterator[Batch]:
    loader = MixLoader(plan, ahead=1)
    try:
        for segment in segments:
            step = max(1, BATCH_TOKENS // segment.context_tokens)
            for offset in range(0, segment.rows, step):
                yield loader.batch(segment.first_row + offset, min(step, segment.rows - offset))
    finally:
        loader.close()


class Writer(ABC):
    """Takes batches in order."""

    def __init__(self, folder: Path, context_tokens: int, sources: Sequence[str]) -> None:
        self.folder = folder
        self.context_tokens = context_tokens
        self.sources = list(sources)
        self.tokens = 0

    def write(self, batch: Batch) -> None:
        self.tokens += int(batch.pieces.length_P.sum())
        for source in batch.sources:
            if source not in self.sources:
                self.sources.append(source)
        place = np.array([self.sources.index(source) for source in batch.sources], np.int32)
        self.add(batch, place[batch.pieces.source_P])

    @abstractmethod
    def add(self, batch: Batch, source_P: np.ndarray) -> None: ...

    @abstractmethod
    def close(self) -> None: ...


def _filled(batch: Batch) -> np.ndarray:
    """[R, T] bool: a token of a document stands there."""
    used_R = np.bincount(batch.pieces.row_P, batch.pieces.length_P, batch.token_ids_RT.shape[0])
    return np.arange(batch.token_ids_RT.shape[1]) < used_R[:, None]


class MegatronWriter(Writer):
    """`rows.bin` and what stands beside it."""

    def __init__(self, folder: Path, context_tokens: int, sources: Sequence[str]) -> None:
        super().__init__(folder, context_tokens, sources)
        self._lengths: list[np.ndarray] = []
        self._sources: list[np.ndarray] = []
        self._pieces_in_row: list[np.ndarray] = []
        self._all_count = True
        self._opened = [atomic_path(folder / "rows.bin"), atomic_path(folder / "rows.loss.bin")]
        self._paths = [one.__enter__() for one in self._opened]
        self._files = [path.open("wb") for path in self._paths]

    def add(self, batch: Batch, source_P: np.ndarray) -> None:
        filled = _filled(batch)
        self._files[0].write(batch.token_ids_RT[filled].astype("<i4").tobytes())
        flags = batch.loss_mask_RT[filled]
        self._all_count &= bool(flags.all())
        self._files[1].write(flags.astype(np.uint8).tobytes())
        self._lengths.append(batch.pieces.length_P)
        self._sources.append(source_P)
        self._pieces_in_row.append(np.bincount(batch.pieces.row_P, minlength=batch.token_ids_RT.shape[0]))

    def close(self) -> None:
        for file, opened in zip(self._files, self._opened, strict=True):
            file.close()
            opened.__exit__(None, None, None)
        if self._all_count:
            (self.folder / "rows.loss.bin").unlink()
        lengths = np.concatenate(self._lengths).astype("<i4")
        ends = np.cumsum(lengths, dtype=np.int64)
        rows = np.concatenate([[0], np.cumsum(np.concatenate(self._pieces_in_row))]).astype("<i8")
        head = MEGATRON_HEADER + struct.pack("<QBQQ", 1, MEGATRON_INT32, lengths.shape[0], rows.shape[0])
        pointers = ((ends - lengths) * TOKEN_BYTES).astype("<i8")
        write_bytes(self.folder / "rows.idx", head + lengths.tobytes() + pointers.tobytes() + rows.tobytes())
        with atomic_path(self.folder / "rows.sources.npy") as partial, partial.open("wb") as file:
            np.save(file, np.concatenate(self._sources).astype(np.int32))


class MdsWriter(Writer):
    """MosaicML's shards, version 2: count, offsets, configuration, samples; columns by name, sizes before values."""

    def __init__(self, folder: Path, context_tokens: int, sources: Sequence[str]) -> None:
        super().__init__(folder, context_tokens, sources)
        columns = {
            "document_lengths": ("bytes", None),
            "document_sources": ("bytes", None),
            "loss_mask": (f"ndarray:uint8:{context_tokens}", context_tokens),
            "tokens": (f"ndarray:uint32:{context_tokens}", TOKEN_BYTES * context_tokens),
        }
        self._config = {
            "version": 2,
            "format": "mds",
            "compression": None,
            "hashes": [],
            "size_limit": SHARD_BYTES,
            "column_names": list(columns),
            "column_encodings": [encoding for encoding, _ in columns.values()],
            "column_sizes": [size for _, size in columns.values()],
        }
        self._samples: list[bytes] = []
        self._bytes = 0
        self._shards: list[dict[str, Any]] = []

    def add(self, batch: Batch, source_P: np.ndarray) -> None:
        bounds = np.searchsorted(batch.pieces.row_P, np.arange(batch.token_ids_RT.shape[0] + 1)).tolist()
        tokens = batch.token_ids_RT.astype("<u4")
        flags = batch.loss_mask_RT.astype(np.uint8)
        for row, (first, last) in enumerate(pairwise(bounds)):
            lengths = batch.pieces.length_P[first:last].astype("<i4").tobytes()
            sources = source_P[first:last].astype("<i4").tobytes()
            sizes = np.array([len(lengths), len(sources)], "<u4").tobytes()
            sample = sizes + lengths + sources + flags[row].tobytes() + tokens[row].tobytes()
            if self._samples and self._bytes + len(sample) > SHARD_BYTES:
                self._flush()
            self._samples.append(sample)
            self._bytes += len(sample) + TOKEN_BYTES

    def _flush(self) -> None:
        config = json.dumps(self._config, sort_keys=True).encode()
        count = len(self._samples)
        ends = np.cumsum([0, *(len(sample) for sample in self._samples)])
        offsets = (ends + TOKEN_BYTES + TOKEN_BYTES * (count + 1) + len(config)).astype("<u4")
        data = np.array(count, "<u4").tobytes() + offsets.tobytes() + config + b"".join(self._samples)
        name = f"shard.{len(self._shards):05d}.mds"
        write_bytes(self.folder / name, data)
        raw = {"basename": name, "bytes": len(data), "hashes": {}}
        self._shards.append({**self._config, "samples": count, "raw_data": raw, "zip_data": None})
        self._samples, self._bytes = [], 0

    def close(self) -> None:
        if self._samples:
            self._flush()
        write_json(self.folder / "index.json", {"version": 2, "shards": self._shards})


class ParquetWriter(Writer):
    """`train-00000.parquet` and on."""

    SCHEMA = pa.schema(
        [
            pa.field("input_ids", pa.list_(pa.int32())),
            pa.field("loss_mask", pa.list_(pa.bool_())),
            pa.field("document_lengths", pa.list_(pa.int32())),
            pa.field("document_sources", pa.list_(pa.string())),
        ]
    )

    def __init__(self, folder: Path, context_tokens: int, sources: Sequence[str]) -> None:
        super().__init__(folder, context_tokens, sources)
        self._tables: list[pa.Table] = []
        self._rows = 0
        self._files = 0

    def add(self, batch: Batch, source_P: np.ndarray) -> None:
        filled = _filled(batch)
        rows = batch.token_ids_RT.shape[0]
        token_ends = np.concatenate([[0], np.cumsum(filled.sum(axis=1))]).astype(np.int32)
        piece_ends = np.searchsorted(batch.pieces.row_P, np.arange(rows + 1)).astype(np.int32)
        names = pa.array([self.sources[number] for number in source_P.tolist()], pa.string())
        columns = [
            pa.ListArray.from_arrays(token_ends, pa.array(batch.token_ids_RT[filled].astype(np.int32))),
            pa.ListArray.from_arrays(token_ends, pa.array(batch.loss_mask_RT[filled])),
            pa.ListArray.from_arrays(piece_ends, pa.array(batch.pieces.length_P)),
            pa.ListArray.from_arrays(piece_ends, names),
        ]
        self._tables.append(pa.table(columns, schema=self.SCHEMA))
        self._rows += rows
        if self._rows * self.context_tokens * TOKEN_BYTES >= SHARD_BYTES:
            self._flush()

    def _flush(self) -> None:
        with atomic_path(self.folder / f"train-{self._files:05d}.parquet") as partial:
            pq.write_table(pa.concat_tables(self._tables), partial, compression="zstd")
        self._files += 1
        self._tables, self._rows = [], 0

    def close(self) -> None:
        if self._tables:
            self._flush()


FORMATS: dict[str, type[Writer]] = {"megatron": MegatronWriter, "mds": MdsWriter, "parquet": ParquetWriter}
