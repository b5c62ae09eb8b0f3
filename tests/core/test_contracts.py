"""The contracts on disk: exact round trips, independent readers, refusal of what does not fit."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.documents import (
    DOCUMENT_SCHEMA,
    document_id,
    read_table,
    table_from_rows,
    text_hash,
    write_table,
)
from pipeline.core.errors import InputError
from pipeline.core.files import atomic_path, clear_partials, read_json, write_json
from pipeline.core.plans import (
    PIECES_SCHEMA,
    Segment,
    SegmentRows,
    SegmentWriter,
    ShardRef,
    SourcePlan,
    read_plan,
    sealed,
    write_chain,
)
from pipeline.core.runlog import RunLog, StepLine, read_lines
from pipeline.core.shards import TokenShard, sidecar, write_shard

EOS = 53
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@given(texts=st.lists(words, min_size=1, max_size=5))
@settings(max_examples=30, deadline=None)
def test_documents_survive_parquet(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    rows = [
        {
            "id": document_id("s", str(k)),
            "text_hash": text_hash(text),
            "text": text,
            "source": "s",
            "parents": [text],
            "messages": [{"role": "user", "content": text, "reasoning": None, "tool_calls": []}],
            "lang_score": 0.5,
        }
        for k, text in enumerate(texts)
    ]
    path = tmp_path_factory.mktemp("d") / "0.parquet"
    write_table(path, table_from_rows(rows))
    back = read_table(path, DOCUMENT_SCHEMA).to_pylist()
    assert [row["text"] for row in back] == texts
    assert back[0]["messages"] == rows[0]["messages"]
    assert back[0]["parents"] == rows[0]["parents"]
    assert back[0]["url"] is None


def test_ids_are_fixed_for_life() -> None:
    """These two values stand in every store ever written."""
    assert document_id("web-ko", "https://example.org/1") == "23a491368c3a1a509f7f61265bb87147"
    assert text_hash("가") == "125e9315c24ca9dbef1b6b513152b5d1"
    assert document_id("a", "bc") != document_id("ab", "c")


def test_a_foreign_parquet_file_is_named(tmp_path: Path) -> None:
    write_table(tmp_path / "x.parquet", pa.table({"id": ["1"]}))
    with pytest.raises(InputError, match=r"x\.parquet: columns differ from the contract: missing \['cluster_size'"):
        read_table(tmp_path / "x.parquet", DOCUMENT_SCHEMA)
    (tmp_path / "y.parquet").write_bytes(b"PAR1 cut")
    with pytest.raises(InputError, match="not a readable Parquet file"):
        read_table(tmp_path / "y.parquet", DOCUMENT_SCHEMA)


def shard_of(folder: Path, documents: list[list[int]], loss: np.ndarray | None = None) -> Path:
    lengths = [len(d) + 1 for d in documents]
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    rows = [
        {"id": f"{k:032x}", "source": "s", "start": int(starts[k]), "length": lengths[k]} for k in range(len(documents))
    ]
    from pipeline.core.shards import DOCUMENT_TABLE_SCHEMA

    token_ids = np.array([t for d in documents for t in (*d, EOS)], np.uint32)
    stem = folder / "tokens" / "00000"
    write_shard(stem, token_ids, table_from_rows(rows, DOCUMENT_TABLE_SCHEMA), eos_id=EOS, loss=loss)
    return stem


@given(documents=st.lists(st.lists(st.integers(60, 2**31 - 1), max_size=9), min_size=1, max_size=9))
@settings(max_examples=30, deadline=None)
def test_shards_are_read_by_a_reader_written_from_megatrons_format(
    documents: list[list[int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    stem = shard_of(tmp_path_factory.mktemp("s"), documents)
    raw = sidecar(stem, ".idx").read_bytes()
    assert raw[:9] == b"MMIDIDX\x00\x00"
    version, dtype_code, sequences, boundaries = struct.unpack_from("<QBQQ", raw, 9)
    assert (version, dtype_code, sequences, boundaries) == (1, 4, len(documents), len(documents) + 1)
    at = 9 + struct.calcsize("<QBQQ")
    lengths = np.frombuffer(raw, np.int32, sequences, at)
    pointers = np.frombuffer(raw, np.int64, sequences, at + 4 * sequences)
    data = sidecar(stem, ".bin").read_bytes()
    found = [
        np.frombuffer(data, np.int32, length, offset).tolist() for length, offset in zip(lengths, pointers, strict=True)
    ]
    assert found == [[*d, EOS] for d in documents]
    shard = TokenShard.open(stem)
    assert [shard.document(k).tolist() for k in range(len(documents))] == found


def test_shards_are_read_by_datatroves_reader(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datatrove.utils.dataset", reason="datatrove's reader needs its extras")
    documents = [[70, 71, 72], [80], [90, 91]]
    stem = shard_of(tmp_path, documents)
    reader = datasets.DatatroveFileDataset(str(sidecar(stem, ".bin")), seq_len=8, token_size=4, return_positions=True)
    first = reader[0]
    assert first["input_ids"].tolist()[:9] == [70, 71, 72, EOS, 80, EOS, 90, 91, EOS]
    assert first["positions"].tolist()[:9] == [0, 1, 2, 3, 0, 1, 0, 1, 2]


def test_shards_are_read_by_megatrons_own_reader(tmp_path: Path) -> None:
    indexed = pytest.importorskip("megatron.core.datasets.indexed_dataset", reason="megatron-core is not installed")
    documents = [[70, 71, 72], [], [90, 2**31 - 1]]
    reader = indexed.IndexedDataset(str(shard_of(tmp_path, documents)), multimodal=False, mmap=True)
    assert [reader[k].tolist() for k in range(len(reader))] == [[*document, EOS] for document in documents]
    assert reader.document_indices.tolist() == [0, 1, 2, 3]


def test_a_cut_shard_is_an_error_naming_it(tmp_path: Path) -> None:
    stem = shard_of(tmp_path, [[70, 71], [72]])
    binary = sidecar(stem, ".bin")
    binary.write_bytes(binary.read_bytes()[:-4])
    with pytest.raises(InputError, match=r"00000\.bin: token shard holds 16 bytes, its index says 20"):
        TokenShard.open(stem)
    sidecar(stem, ".bin.index").unlink()
    with pytest.raises(InputError, match="no `.bin.index` file"):
        TokenShard.open(stem)


def segment(name: str, rows: int, first_row: int) -> Segment:
    share = SourcePlan("web", "s", 1.0, 1.0, rows * 4, rows * 4, rows, rows)
    return Segment(
        name, 4, rows, 1, first_row, 5, 1, "t" * 64, ("web",), ("s",), (ShardRef("e/tokens/00000", "h", "g", 4),), (share,),
        rows * 4, 0, 0, folder=name,
    )  # fmt: skip


def make_chain(store: Path) -> tuple[Segment, Segment]:
    first = sealed(segment("a", 2, 0), "")
    second = sealed(segment("b", 3, 2), first.fingerprint)
    for chain in ((first,), (first, second)):
        rows = chain[-1].rows
        k, zero = np.arange(rows), np.zeros(rows, np.int32)
        columns = dict(zip(PIECES_SCHEMA.names, (zero, 4 * k, zero + 4, zero, k, zero, zero), strict=True))
        with SegmentWriter(store / chain[-1].folder) as writer:
            writer.append(np.ones(rows, np.int64), columns)
        write_chain(store / chain[-1].folder, chain)
    return first, second


def test_a_plan_is_a_chain_and_an_appended_segment_changes_nothing_before_it(tmp_path: Path) -> None:
    first, second = make_chain(tmp_path)
    plan = read_plan(tmp_path, tmp_path / "b")
    assert (plan.rows, plan.fingerprint) == (5, second.fingerprint)
    assert plan.holds(first.fingerprint)
    assert not plan.holds("0" * 64)
    assert [plan.segment_at(p).name for p in range(5)] == ["a", "a", "b", "b", "b"]
    with pytest.raises(InputError, match="row 5 is outside the plan's 5 rows"):
        plan.segment_at(5)
    rows = SegmentRows(plan, second)
    assert rows.first_piece(np.arange(4)).tolist() == [0, 1, 2, 3]
    assert rows.attention(np.arange(3)).tolist() == [16, 16, 16]
    assert rows.piece_count == 3
    assert rows.pieces(np.array([2, 0]))["start"].tolist() == [8, 0]
    assert read_plan(tmp_path, tmp_path / "a").fingerprint == first.fingerprint


def test_a_changed_segment_is_refused(tmp_path: Path) -> None:
    make_chain(tmp_path)
    stored = read_json(tmp_path / "b" / "segments.json")
    stored["segments"][0]["rows"] = 7
    write_json(tmp_path / "b" / "segments.json", stored)
    with pytest.raises(InputError, match="segment `a` was changed after it was made"):
        read_plan(tmp_path, tmp_path / "b")


def test_the_folder_of_a_segment_is_not_identity() -> None:
    moved = replace(segment("a", 2, 0), folder="elsewhere")
    assert sealed(moved, "").fingerprint == sealed(segment("a", 2, 0), "").fingerprint


def line(step: int) -> StepLine:
    return StepLine("p", step, step * 2, 2, 8, 7, 1.5, 0.1, 1.0, 1e-3, 0.5, "f" * 64)


def test_a_run_log_is_cut_back_to_the_resumed_step(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    log = RunLog.open(path, keep_steps=0)
    for step in (1, 2, 3):
        log.write(line(step))
    log.close()
    with path.open("ab") as handle:
        handle.write(b'{"step": 4, "lo')
    assert [item["step"] for item in read_lines(path)] == [1, 2, 3]
    log = RunLog.open(path, keep_steps=2)
    log.write(line(3))
    log.close()
    assert [item["step"] for item in read_lines(path)] == [1, 2, 3]


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")

    def fails() -> None:
        with atomic_path(target) as partial:
            partial.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fails()
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert target.read_text() == "old"


def test_what_killed_processes_left_is_cleared_files_and_folders_alike(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / ".partial-step-1" / "deep").mkdir(parents=True)
    (tmp_path / "checkpoints" / ".partial-step-1" / "deep" / ".partial-7-x").write_text("half")
    (tmp_path / ".partial-7-a.parquet").write_text("half")
    (tmp_path / "kept").write_text("whole")
    clear_partials(tmp_path)
    assert [path.name for path in sorted(tmp_path.rglob("*"))] == ["checkpoints", "kept"]
