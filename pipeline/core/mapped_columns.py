"""Columns of an Arrow file whose record batches all have one size, read in place from a memory map.

Contract: any entry is found by a division. Opening reads the footer; a record batch is looked up when it is first
touched, and nothing is kept of it but its columns' addresses: 8 bytes a column and record batch. Compiled loops get
the table of addresses through `reading`, which looks up what a loop missed and runs it once more. Cost of `take`: a
place of memory an entry and column.

Shapes: C columns, B record batches, N entries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
            self._reader = pa.ipc.open_file(pa.memory_map(str(path)))
        except pa.ArrowInvalid as error:
            raise InputError(f"not a whole Arrow file: {error}", where=str(path)) from None
        if self._reader.schema != schema:
            raise InputError("columns differ from the contract", where=str(path))
        self.entries = entries
        self.names = tuple(schema.names)
        self._bytes_C = [field.type.bit_width // 8 for field in schema]
        self._wide_C = np.array(self._bytes_C) == WIDE
        self._address_CB = np.zeros((len(self.names), self._reader.num_record_batches), np.uint64)
        self._missed_B = np.zeros(self._reader.num_record_batches, np.bool_)

    def reading(self, kernel: Callable[..., Any], *arguments: Any) -> Any:
        """What `kernel(address_CB, missed_B, entries, *arguments)` found: it returns (found, whether that is all), and
        marks the record batches whose addresses it missed."""
        while True:
            found, complete = kernel(self._address_CB, self._missed_B, self.entries, *arguments)
            if complete:
                return found
            for number in np.flatnonzero(self._missed_B).tolist():
                self._look_up(number)
            self._missed_B[:] = False

    def take(self, names: Sequence[str], entry_N: np.ndarray) -> dict[str, np.ndarray]:
        """[N] values of each named column."""
        chosen_C = np.array([self.names.index(name) for name in names], np.int64)
        narrow_CN, wide_CN = self.reading(_taken, self._wide_C, chosen_C, entry_N)
        return {
            name: wide_CN[place] if self._wide_C[column] else narrow_CN[place]
            for place, (name, column) in enumerate(zip(names, chosen_C.tolist(), strict=True))
        }

    def batches(self) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        """(first entry, columns) of each record batch."""
        for number in range(self._reader.num_record_batches):
            batch = self._reader.get_batch(number)
            yield number * self.entries, {name: batch[name].to_numpy() for name in self.names}

    def _look_up(self, number: int) -> None:
        batch = self._reader.get_batch(number)
        for place, (column, size) in enumerate(zip(batch.columns, self._bytes_C, strict=True)):
            self._address_CB[place, number] = column.buffers()[1].address + column.offset * size


@njit(cache=True, nogil=True)
def _taken(
    address_CB: np.ndarray, missed_B: np.ndarray, entries: int, wide_C: np.ndarray, chosen_C: np.ndarray,
    entry_N: np.ndarray,
) -> Any:  # fmt: skip
    """(([chosen, N] int32, [chosen, N] int64), complete): each column has its row in one of the two."""
    complete = True
    narrow_CN = np.empty((chosen_C.shape[0], entry_N.shape[0]), np.int32)
    wide_CN = np.empty((chosen_C.shape[0], entry_N.shape[0]), np.int64)
    for n in range(entry_N.shape[0]):
        number = entry_N[n] // entries
        place = entry_N[n] - number * entries
        if address_CB[0, number] == 0:
            missed_B[number], complete = True, False
            continue
        for c in range(chosen_C.shape[0]):
            address = address_CB[chosen_C[c], number]
            if wide_C[chosen_C[c]]:
                wide_CN[c, n] = carray(int64_at(address), (entries,))[place]
            else:
                narrow_CN[c, n] = carray(int32_at(address), (entries,))[place]
    return (narrow_CN, wide_CN), complete
