"""Columns read in place: the same values as Arrow's own reader gives, and files that are not what they should be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.errors import InputError
from pipeline.core.mapped_columns import MappedColumns

SCHEMA = pa.schema([pa.field("a", pa.int32(), nullable=False), pa.field("b", pa.int64(), nullable=False)])
ENTRIES = 32


def write(path: Path, sizes: list[int]) -> pa.Table:
    random = np.random.default_rng(sum(sizes))
    parts = [
        pa.RecordBatch.from_arrays(
            [pa.array(random.integers(-9, 9, n).astype(np.int32)), pa.array(random.integers(-(2**60), 2**60, n))],
            schema=SCHEMA,
        )
        for n in sizes
    ]
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
        for part in parts:
            writer.write_batch(part)
    return pa.Table.from_batches(parts, schema=SCHEMA)


@settings(max_examples=30, deadline=None)
@given(full=st.integers(0, 6), rest=st.integers(1, ENTRIES))
def test_values_are_those_of_arrow(tmp_path_factory: pytest.TempPathFactory, full: int, rest: int) -> None:
    path = tmp_path_factory.mktemp("columns") / "x.arrow"
    expected = write(path, [ENTRIES] * full + [rest])
    columns = MappedColumns(path, SCHEMA, ENTRIES)
    entry_N = np.random.default_rng(0).permutation(expected.num_rows)
    found = columns.take(("b", "a"), entry_N)
    assert found["a"].tolist() == expected["a"].to_numpy()[entry_N].tolist()
    assert found["b"].tolist() == expected["b"].to_numpy()[entry_N].tolist()
    parts = list(columns.batches())
    assert [first for first, _ in parts] == [number * ENTRIES for number in range(full + 1)]
    assert np.concatenate([part["b"] for _, part in parts]).tolist() == expected["b"].to_pylist()


def test_record_batches_of_other_sizes_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "x.arrow", [ENTRIES, ENTRIES, 3 * ENTRIES, ENTRIES, 1])
    with pytest.raises(InputError, match="do not lie at equal distances"):
        MappedColumns(tmp_path / "x.arrow", SCHEMA, ENTRIES)


def test_other_columns_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "x.arrow", [1])
    with pytest.raises(InputError, match="columns differ"):
        MappedColumns(tmp_path / "x.arrow", pa.schema(list(SCHEMA)[:1]), ENTRIES)


@pytest.mark.parametrize("keep", [0, 100])
def test_cut_files_are_named(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "x.arrow"
    write(path, [ENTRIES])
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"x\.arrow: not a whole Arrow file"):
        MappedColumns(path, SCHEMA, ENTRIES)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"x\.arrow: the plan has no such file"):
        MappedColumns(tmp_path / "x.arrow", SCHEMA, ENTRIES)
