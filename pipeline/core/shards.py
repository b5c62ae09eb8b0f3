"""The token shard: encoded documents as flat files that several trainers read (contract 2, version 2).

`NAME.bin`           little-endian uint32 token ids, nothing else
`NAME.bin.index`     little-endian uint64 cumulative document ends, in tokens (datatrove's reader)
`NAME.idx`           Megatron's index, dtype code 4 (int32: same bits while ids < 2**31)
`NAME.docs.parquet`  the document table (`DOCUMENT_TABLE_SCHEMA`), one row a document, in order
`NAME.bin.loss`      optional: one byte a token, 1 = counts in the loss
`NAME.sums`          little-endian uint64 xxh3-64 of each 64 KiB of `.bin`, then of each 64 KiB of `.bin.loss`, so
                     that a reader of a few documents can tell whether what it reads is what was written

Every document ends in exactly one EOS, counted in its length; there is no BOS. Boundaries come from the index, never
from EOS. Cost of reading: memory maps, nothing is copied.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import xxhash

from pipeline.core.documents import read_table, write_table
from pipeline.core.errors import InputError
from pipeline.core.files import hash_file, write_bytes

SHARDS_VERSION = 2
TOKEN_DTYPE = np.dtype("<u4")
END_DTYPE = np.dtype("<u8")
SUM_DTYPE = np.dtype("<u8")
SUM_BYTES = 1 << 16  # a block: read whole to check the least of it; its sum is 0.01 % of it
MEGATRON_HEADER = b"MMIDIDX\x00\x00"
MEGATRON_INT32 = 4

DOCUMENT_TABLE_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("lang", pa.string()),
        pa.field("domain", pa.string()),
        pa.field("license", pa.string()),
        pa.field("maker", pa.string()),
        pa.field("parents", pa.list_(pa.string())),
        pa.field("quality", pa.float32()),
        pa.field("cluster_size", pa.int32()),
        pa.field("start", pa.int64(), nullable=False),  # tokens
        pa.field("length", pa.int64(), nullable=False),  # tokens, EOS included
    ],
    metadata={"seodang.shards": str(SHARDS_VERSION)},
)


def sidecar(stem: Path, ending: str) -> Path:
    """`NAME` + `.bin`, `.bin.index`, `.idx`, `.docs.parquet` or `.bin.loss`."""
    return stem.with_name(stem.name + ending)


def write_shard(
    stem: Path,
    token_ids: np.ndarray,
    documents: pa.Table,
    *,
    eos_id: int,
    loss: np.ndarray | None = None,
) -> None:
    """Write a shard and its sidecars; the document table comes last.

    Args:
        stem: Path without ending.
        token_ids: [tokens] integer ids, documents one after the other, each ended by `eos_id`.
        documents: `DOCUMENT_TABLE_SCHEMA` rows in order, `start` and `length` in tokens.
        loss: [tokens] 0 or 1, or None when every token counts.
    """
    lengths = documents["length"].to_numpy().astype(np.int64)
    ends = np.cumsum(lengths).astype(END_DTYPE)
    assert (lengths > 0).all(), "a document has no tokens: every one ends in EOS"
    assert int(lengths.sum()) == token_ids.shape[0], (int(lengths.sum()), token_ids.shape)
    assert (documents["start"].to_numpy() == np.concatenate([[0], ends[:-1]])).all(), "starts do not follow lengths"
    assert (token_ids[ends.astype(np.int64) - 1] == eos_id).all(), "a document does not end in EOS"
    data = np.ascontiguousarray(token_ids, TOKEN_DTYPE).tobytes()
    write_bytes(sidecar(stem, ".bin"), data)
    write_bytes(sidecar(stem, ".bin.index"), ends.tobytes())
    write_bytes(sidecar(stem, ".idx"), _megatron_index(lengths))
    if loss is not None:
        assert loss.shape == token_ids.shape, (loss.shape, token_ids.shape)
        write_bytes(sidecar(stem, ".bin.loss"), loss.astype(np.uint8).tobytes())
    flags = b"" if loss is None else loss.astype(np.uint8).tobytes()
    write_bytes(sidecar(stem, ".sums"), block_sums(data).tobytes() + block_sums(flags).tobytes())
    write_table(sidecar(stem, ".docs.parquet"), documents.cast(DOCUMENT_TABLE_SCHEMA))


def block_sums(data: bytes | memoryview) -> np.ndarray:
    """[blocks] uint64 xxh3-64 of each `SUM_BYTES` of `data`, the last block shorter."""
    view = memoryview(data)
    starts = range(0, len(view), SUM_BYTES)
    return np.array([xxhash.xxh3_64_intdigest(view[start : start + SUM_BYTES]) for start in starts], SUM_DTYPE)


def _megatron_index(lengths: np.ndarray) -> bytes:
    """Megatron-Core `_IndexWriter` layout: header, version, dtype code, counts, int32 lengths, int64 byte offsets,
    int64 document boundaries in sequences (one sequence a document)."""
    count = lengths.shape[0]
    pointers = np.zeros(count, np.int64)
    np.cumsum(lengths[:-1] * TOKEN_DTYPE.itemsize, out=pointers[1:])
    head = MEGATRON_HEADER + struct.pack("<QBQQ", 1, MEGATRON_INT32, count, count + 1)
    return head + lengths.astype("<i4").tobytes() + pointers.tobytes() + np.arange(count + 1, dtype="<i8").tobytes()


@dataclass(frozen=True)
class TokenShard:
    """An opened shard: memory-mapped tokens, document ends, optional loss flags and the document table."""

    stem: Path
    token_ids: np.ndarray  # [tokens] uint32
    ends: np.ndarray  # [documents] uint64
    loss: np.ndarray | None  # [tokens] uint8

    @classmethod
    def open(cls, stem: Path) -> TokenShard:
        """Raises `InputError` when a file is missing or the sizes disagree."""
        for ending in (".bin", ".bin.index", ".docs.parquet", ".sums"):
            if not sidecar(stem, ending).is_file():
                raise InputError(f"token shard has no `{ending}` file", where=str(stem), fix="run its step again")
        ends = np.fromfile(sidecar(stem, ".bin.index"), END_DTYPE)
        tokens = int(ends[-1]) if ends.size else 0
        size = sidecar(stem, ".bin").stat().st_size
        if size != tokens * TOKEN_DTYPE.itemsize:
            raise InputError(
                f"token shard holds {size} bytes, its index says {tokens * TOKEN_DTYPE.itemsize}",
                where=str(sidecar(stem, ".bin")),
                fix="the file is cut or corrupted: delete the step's folder and run it again",
            )
        token_ids = np.memmap(sidecar(stem, ".bin"), TOKEN_DTYPE, "r") if tokens else np.empty(0, TOKEN_DTYPE)
        loss_path = sidecar(stem, ".bin.loss")
        loss = np.memmap(loss_path, np.uint8, "r") if loss_path.is_file() and tokens else None
        return cls(stem, token_ids, ends, loss)

    def documents(self) -> pa.Table:
        return read_table(sidecar(self.stem, ".docs.parquet"), DOCUMENT_TABLE_SCHEMA)

    def document(self, index: int) -> np.ndarray:
        """Token ids of document `index`, EOS included."""
        start = int(self.ends[index - 1]) if index else 0
        return self.token_ids[start : int(self.ends[index])]


def shard_stems(folder: Path) -> list[Path]:
    """The token shards of an encode step's output folder, in order."""
    ending = ".docs.parquet"
    return sorted(p.with_name(p.name[: -len(ending)]) for p in (folder / "tokens").glob(f"[!.]*{ending}"))


def shard_hashes(stem: Path) -> dict[str, str]:
    """xxh3-128 of each of the shard's files, by ending."""
    endings = (".bin", ".bin.index", ".idx", ".docs.parquet", ".bin.loss", ".sums")
    return {ending: hash_file(sidecar(stem, ending)) for ending in endings if sidecar(stem, ending).is_file()}
