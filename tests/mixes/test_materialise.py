"""Rows for other trainers, read back by their own readers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mixes.loader import MixLoader
from mixes.materialise import materialise
from pipeline.core.errors import ConfigError, InputError
from pipeline.core.files import hash_file


@pytest.fixture
def planned(house: Any, documents_of: Any) -> Any:
    rng = np.random.default_rng(2)
    house.encode("web", documents_of("web", rng.integers(2, 150, 60).tolist()), masked=True)
    house.encode("reason", documents_of("reason", rng.integers(2, 40, 80).tolist()))
    mix = {"web": {"from": ("web",), "weight": 0.6}, "reason": {"from": ("reason",), "weight": 0.4}}
    house.append(mix, budget_tokens=64 * 24, rows_per_batch=4)
    house.append(mix, budget_tokens=64 * 8, rows_per_batch=4)
    return house


def expected_rows(plan: Any) -> list[tuple[list[int], list[int], list[str], list[bool]]]:
    """(tokens, document lengths, sources, loss flags) of every row as the loader serves them."""
    found = []
    for position in range(plan.rows):
        batch = MixLoader(plan).batch(position, 1)
        used = int(batch.pieces.length_P.sum())
        names = [batch.sources[number] for number in batch.pieces.source_P]
        lengths = batch.pieces.length_P.tolist()
        found.append((batch.token_ids_RT[0, :used].tolist(), lengths, names, batch.loss_mask_RT[0, :used].tolist()))
    return found


def test_megatron_reads_the_rows(planned: Any, tmp_path: Path) -> None:
    indexed = pytest.importorskip("megatron.core.datasets.indexed_dataset", reason="megatron-core is not installed")
    facts = materialise(planned.plan, planned.plan.segments, "megatron", tmp_path / "out")
    reader = indexed.IndexedDataset(str(tmp_path / "out" / "rows"), multimodal=False, mmap=True)
    sources = np.load(tmp_path / "out" / "rows.sources.npy")
    flags = np.fromfile(tmp_path / "out" / "rows.loss.bin", np.uint8)
    rows, end = [], 0
    for first, last in zip(reader.document_indices[:-1], reader.document_indices[1:], strict=True):
        pieces = [reader[number].tolist() for number in range(first, last)]
        tokens = [token for piece in pieces for token in piece]
        counted = flags[end : end + len(tokens)].astype(bool).tolist()
        end += len(tokens)
        names = [facts["sources"][number] for number in sources[first:last]]
        rows.append((tokens, [len(piece) for piece in pieces], names, counted))
    assert rows == expected_rows(planned.plan)


def test_mosaicml_reads_the_rows(planned: Any, tmp_path: Path) -> None:
    mds = pytest.importorskip("streaming.base.format.mds.reader", reason="mosaicml-streaming is not installed")
    facts = materialise(planned.plan, planned.plan.segments, "mds", tmp_path / "out")
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    rows = []
    for shard in index["shards"]:
        reader = mds.MDSReader.from_json(str(tmp_path / "out"), None, shard)
        for number in range(reader.samples):
            sample = reader[number]
            lengths = np.frombuffer(sample["document_lengths"], np.int32)
            names = [facts["sources"][source] for source in np.frombuffer(sample["document_sources"], np.int32)]
            used = int(lengths.sum())
            assert not sample["tokens"][used:].any()
            flags = sample["loss_mask"][:used].astype(bool).tolist()
            rows.append((sample["tokens"][:used].tolist(), lengths.tolist(), names, flags))
    assert rows == expected_rows(planned.plan)


def test_hugging_face_reads_the_rows(planned: Any, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    materialise(planned.plan, planned.plan.segments, "parquet", tmp_path / "out")
    files = sorted(str(path) for path in (tmp_path / "out").glob("train-*.parquet"))
    read = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    rows = [(r["input_ids"], r["document_lengths"], r["document_sources"], r["loss_mask"]) for r in read]
    assert rows == expected_rows(planned.plan)


def test_the_last_file_says_what_was_written(planned: Any, tmp_path: Path) -> None:
    told: list[int] = []
    facts = materialise(planned.plan, planned.plan.segments[:1], "parquet", tmp_path / "out", told.append)
    assert (facts["rows"], facts["tokens"], told[-1]) == (24, planned.plan.segments[0].tokens, 24)
    assert facts["files"] == {"train-00000.parquet": hash_file(tmp_path / "out" / "train-00000.parquet")}
    with pytest.raises(InputError, match="the folder holds `materialised.json` already"):
        materialise(planned.plan, planned.plan.segments[:1], "parquet", tmp_path / "out")
    (tmp_path / "out" / "materialised.json").unlink()  # as a kill before the end leaves it
    assert materialise(planned.plan, planned.plan.segments[:1], "parquet", tmp_path / "out") == facts


def test_mistakes_are_told(planned: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown format `parket`") as caught:
        materialise(planned.plan, planned.plan.segments, "parket", tmp_path)
    assert "did you mean `parquet`?" in caught.value.fix
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("x")
    with pytest.raises(InputError, match="the folder holds `mine.txt` already"):
        materialise(planned.plan, planned.plan.segments, "mds", tmp_path / "out")
