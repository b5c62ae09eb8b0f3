"""The signature files of a step, and reading them without loading them: what deduplication keeps instead of texts.

Contract: one set of files an input shard, below `STEP/keys/`; D documents, E of them with keys, B bands, C checks:

`00000.documents.npy`  [D] records: id (two uint64, its 32 hex digits), quality, size in bytes, cluster size (int64)
`00000.checks.npy`     [D, C] uint8: the low byte of each signature value, or all bytes of a hash
`00000.keys.npy`       [B, E] uint64 bucket keys, ascending in each band
`00000.rows.npy`       [B, E] uint32 the document of each key

A document's number (its node) counts rows over all shards of all folders, earlier folders first. Cost: 344 bytes a
document with 16 bands of 7 values. Two values that differ have equal low bytes once in 256 times, so that of two texts
of similarity s a share of s + (1 - s) / 256 of the checks are equal: a tenth of the estimate's own error. Files are
mapped and opened one at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.core.errors import InputError
from pipeline.core.files import PARTIAL, atomic_path
from pipeline.core.steps import StepTask
from stages.dedup.cluster import ascending_order
from stages.dedup.layout import EARLIER, KEYS

FOLDER = "keys"
DOCUMENT = np.dtype([("high", "<u8"), ("low", "<u8"), ("quality", "<i8"), ("size", "<i8"), ("cluster_size", "<i8")])
ID_DIGITS = 32


@dataclass(frozen=True)
class Signed:
    """Signature files in order: those of earlier folders, then this run's own.

    Attributes:
        stems: Path of each shard's files without their endings.
        first_nodes: [shards + 1] int64.
        ages: [shards] int64 number of the folder; the last is this run's own.
    """

    stems: tuple[Path, ...]
    first_nodes: np.ndarray
    ages: np.ndarray

    @property
    def own(self) -> range:
        """Places of this run's own shards."""
        last = int(self.ages[-1])
        return range(int(np.searchsorted(self.ages, last)), len(self.stems))

    def shards_of(self, nodes: np.ndarray) -> np.ndarray:
        """[nodes] int64 place of each node's shard."""
        return np.searchsorted(self.first_nodes, nodes, side="right") - 1

    def documents(self, nodes: np.ndarray) -> np.ndarray:
        """[nodes] records of `DOCUMENT`, of ascending nodes."""
        return self._gather(nodes, "documents")

    def checks(self, nodes: np.ndarray) -> np.ndarray:
        """[nodes, C] uint8, of ascending nodes."""
        return self._gather(nodes, "checks")

    def key_ranges(self, low: int, high: int) -> Iterator[list[tuple[np.ndarray, np.ndarray]]]:
        """For each shard: (keys, nodes) of each band, of the keys in low <= key < high."""
        for stem, first in zip(self.stems, self.first_nodes[:-1], strict=True):
            keys, rows = load_array(stem, "keys"), load_array(stem, "rows")
            cuts = [slice(place_of_key(band, low), place_of_key(band, high)) for band in keys]
            yield [
                (np.array(band_keys[cut]), band_rows[cut].astype(np.int64) + first)
                for band_keys, band_rows, cut in zip(keys, rows, cuts, strict=True)
            ]

    def _gather(self, nodes: np.ndarray, ending: str) -> np.ndarray:
        cuts = np.searchsorted(nodes, self.first_nodes)
        parts = [
            load_array(self.stems[shard], ending)[nodes[cuts[shard] : cuts[shard + 1]] - self.first_nodes[shard]]
            for shard in np.flatnonzero(np.diff(cuts))
        ]
        return np.concatenate(parts) if parts else load_array(self.stems[0], ending)[:0]


def write_keys(
    folder: Path, shard: int, documents: np.ndarray, checks: np.ndarray, keys: np.ndarray, rows: np.ndarray
) -> None:
    """Write one shard's files.

    Args:
        folder: The step's.
        shard: Number of the input shard.
        documents: [D] records of `DOCUMENT`.
        checks: [D, C] uint8.
        keys: [E, B] uint64 bucket keys of the documents in `rows`.
        rows: [E] int64 the documents that have keys.
    """
    stem = folder / FOLDER / f"{shard:05d}"
    order = np.array([ascending_order(band) for band in np.ascontiguousarray(keys.T)], np.int64)
    save_array(stem, "documents", documents)
    save_array(stem, "checks", checks)
    save_array(stem, "keys", np.take_along_axis(keys.T, order, axis=1))
    save_array(stem, "rows", rows.astype(np.uint32)[order])


def open_signed(task: StepTask) -> Signed:
    """The signatures that a task compares: `task.paths` of earlier folders, then its own input."""
    folders = [*map(Path, task.paths.get(EARLIER, ())), task.inputs[KEYS].folder]
    return signed_folders(folders)


def signed_folders(folders: Sequence[Path]) -> Signed:
    """The signatures of finished signature steps, oldest first. Raises `InputError` where there are none."""
    stems: list[Path] = []
    ages: list[int] = []
    counts: list[int] = []
    for age, folder in enumerate(folders):
        files = sorted(p for p in (folder / FOLDER).glob("*.documents.npy") if not p.name.startswith(PARTIAL))
        if not files:
            raise InputError("no signatures", where=str(folder), fix="run the signature step again")
        for file in files:
            stems.append(file.with_name(file.name.removesuffix(".documents.npy")))
            ages.append(age)
            counts.append(load_array(stems[-1], "documents").shape[0])
    return Signed(tuple(stems), np.cumsum([0, *counts]).astype(np.int64), np.array(ages, np.int64))


def id_numbers(ids: pa.Array | pa.ChunkedArray, where: str) -> np.ndarray:
    """[documents, 2] uint64 of ids of 32 hex digits. Raises `InputError` for any other id."""
    try:
        digits = "".join(ids.to_pylist())
        numbers = np.frombuffer(bytes.fromhex(digits), ">u8").reshape(-1, 2)
    except ValueError:
        numbers = np.empty((0, 2), np.uint64)
    if numbers.shape[0] != len(ids):
        raise InputError("an id is not 32 hex digits", where=where, fix="write documents through a clean step")
    return numbers.astype(np.uint64)


def id_text(documents: np.ndarray) -> pa.StringArray:
    """The ids of records of `DOCUMENT`; at most 60 million."""
    numbers = np.stack([documents["high"], documents["low"]], axis=1).astype(">u8")
    ends = np.arange(documents.shape[0] + 1, dtype=np.int32) * np.int32(ID_DIGITS)
    buffers = (pa.py_buffer(ends), pa.py_buffer(numbers.tobytes().hex().encode()))
    return pa.StringArray.from_buffers(documents.shape[0], *buffers)


def node_count(signed: Signed) -> int:
    return int(signed.first_nodes[-1])


def place_of_key(band: np.ndarray, key: int) -> int:
    """How many keys of an ascending band are below `key`; few pages of the file are read, for keys are hashes."""
    count = band.shape[0]
    if key >= 1 << 64:
        return count
    wide = 8 * math.isqrt(count) + 8  # 16 standard deviations of a uniform sample's place
    low = max(0, key * count // (1 << 64) - wide)
    high = min(count, low + 2 * wide)
    wanted = np.uint64(key)
    if (low > 0 and band[low - 1] >= wanted) or (high < count and band[high] < wanted):
        return int(np.searchsorted(band, wanted))
    return low + int(np.searchsorted(band[low:high], wanted))


def load_array(stem: Path, ending: str) -> np.ndarray:
    """Mapped, not read; an empty file cannot be mapped."""
    path = _path(stem, ending)
    try:
        return np.load(path, mmap_mode="r")
    except ValueError:
        return np.load(path)


def save_array(stem: Path, ending: str, array: np.ndarray) -> None:
    """Write a .npy file atomically."""
    with atomic_path(_path(stem, ending)) as partial, partial.open("wb") as handle:
        np.save(handle, np.ascontiguousarray(array))


def _path(stem: Path, ending: str) -> Path:
    return stem.with_name(f"{stem.name}.{ending}.npy" if ending else f"{stem.name}.npy")
