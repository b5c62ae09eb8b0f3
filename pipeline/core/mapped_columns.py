"""Columns of an Arrow file whose record batches all have one size, read in place from a memory map.

Contract: any entry is found by a division. Opening reads the footer and looks up four record batches: the one writer of
such files (`pipeline.core.plans.SegmentWriter`) lays them out at equal distances, which is checked at both ends, so the
addresses of the others follow. Held: 8 bytes a column and record batch. Cost of `take`: a place of memory an entry and
column; the map is told not to read ahead.

Shapes: C columns, B record batches, N entries.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numba import njit
from numba.np.numpy_support import carray

from pipeline.core.errors import InputError
from pipeline.core.pointers import int32_at, int64_at

WIDE = 8  # bytes of an int64; the other columns are int32


class MappedColumns:
    """int32 and int64 columns without nulls, `entries` of them a record batch."""

    def __init__(self, path: Path, schema: pa.Schema, entries: int) -> None:
        if not path.is_file():
            raise InputError(
                "the plan has no such file", where=str(path), fix="delete the mix step's folder, run it again"
            )
        try:
            with path.open("rb") as stream:
                self._map = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
            if hasattr(mmap, "MADV_RANDOM"):  # Linux: otherwise each of a batch's scattered rows reads 128 KiB
                self._map.madvise(mmap.MADV_RANDOM)
            reader = pa.ipc.open_file(pa.BufferReader(pa.py_buffer(self._map)))
        except (ValueError, OSError) as error:  # Arrow's own errors are among them
            raise InputError(f"not a whole Arrow file: {error}", where=str(path)) from None
        if reader.schema != schema:
            raise InputError("columns differ from the contract", where=str(path))
        self._path = path
        self.entries = entries
        self.names = tuple(schema.names)
        self._bytes_C = [field.type.bit_width // 8 for field in schema]
        self._wide_C = np.array(self._bytes_C) == WIDE
        self.address_CB = self._addresses(reader)

    def _addresses(self, reader: pa.ipc.RecordBatchFileReader) -> np.ndarray:
        """[C, B] uint64 where each column of each record batch begins; the last batch is shorter."""
        last = reader.num_record_batches - 1
        address_CB = np.zeros((len(self.names), last + 1), np.uint64)
        if last > 1:
            first_C, second_C = self._looked_up(reader, 0), self._looked_up(reader, 1)
            address_CB[:, :last] = first_C[:, None] + np.arange(last, dtype=np.uint64) * (second_C - first_C)[:, None]
        for number in sorted({0, max(last - 1, 0), max(last, 0)} if last >= 0 else ()):
            found_C = self._looked_up(reader, number)
            if 0 < number < last and (found_C != address_CB[:, number]).any():
                raise InputError("its record batches do not lie at equal distances", where=str(self._path))
            address_CB[:, number] = found_C
        return address_CB

    def _looked_up(self, reader: pa.ipc.RecordBatchFileReader, number: int) -> np.ndarray:
        columns = reader.get_batch(number).columns
        places = [c.buffers()[1].address + c.offset * size for c, size in zip(columns, self._bytes_C, strict=True)]
        return np.array(places, np.uint64)

    def take(self, names: Sequence[str], entry_N: np.ndarray) -> dict[str, np.ndarray]:
        """[N] values of each named column."""
        chosen_C = np.array([self.names.index(name) for name in names], np.int64)
        narrow_CN, wide_CN = _taken(self.address_CB, self.entries, self._wide_C, chosen_C, entry_N)
        return {
            name: wide_CN[place] if self._wide_C[column] else narrow_CN[place]
            for place, (name, column) in enumerate(zip(names, chosen_C.tolist(), strict=True))
        }

    def batches(self) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        """(first entry, columns) of each record batch, read one after the other."""
        reader = pa.ipc.open_file(pa.memory_map(str(self._path)))
        for number in range(reader.num_record_batches):
            batch = reader.get_batch(number)
            yield number * self.entries, {name: batch[name].to_numpy() for name in self.names}


@njit(cache=True, nogil=True)
def _taken(address_CB: np.ndarray, entries: int, wide_C: np.ndarray, chosen_C: np.ndarray, entry_N: np.ndarray) -> Any:
    """([chosen, N] int32, [chosen, N] int64): each column has its row in one of the two."""
    narrow_CN = np.empty((chosen_C.shape[0], entry_N.shape[0]), np.int32)
    wide_CN = np.empty((chosen_C.shape[0], entry_N.shape[0]), np.int64)
    for n in range(entry_N.shape[0]):
        number = entry_N[n] // entries
        place = entry_N[n] - number * entries
        for c in range(chosen_C.shape[0]):
            address = address_CB[chosen_C[c], number]
            if wide_C[chosen_C[c]]:
                wide_CN[c, n] = carray(int64_at(address), (entries,))[place]
            else:
                narrow_CN[c, n] = carray(int32_at(address), (entries,))[place]
    return narrow_CN, wide_CN
