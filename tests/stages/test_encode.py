"""Encoding: token shards that other people's readers read, exact documents back, chats with loss flags."""

from __future__ import annotations

import json
import struct
import unicodedata
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.documents import document_id, table_from_rows, text_hash, write_documents
from pipeline.core.errors import ConfigError, InputError
from pipeline.core.shards import TokenShard, shard_stems
from pipeline.core.steps import StepOutput, StepTask
from pipeline.core.tokenizer import Tokenizer
from stages.encode import WORK, EncodeConfig
from stages.tokenizer.superbpe import build, train

TEXTS = ["the river and the snow <|endofturn|> end", "", "강물은 봄에 높다.\n\n12 <think>", "plain"]
CHAT = [{"role": "user", "content": "What?"}, {"role": "assistant", "reasoning": "Hm.", "content": "So."}]


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    trained = train(lambda: ["the river and the snow and the river are in the mountains " * 4] * 3, 340, 0.0, 2)
    build(trained).save(str(folder / "tokenizer.json"))
    return folder


def row(text: str, **columns: object) -> dict[str, object]:
    text = unicodedata.normalize("NFC", text)
    return {"id": document_id("web", text), "text_hash": text_hash(text), "text": text, "source": "web", **columns}


def step(tmp_path: Path, tokenizer: Path, shards: list[list[dict[str, object]]], **options: object) -> StepTask:
    folder = tmp_path / "documents"
    for number, rows in enumerate(shards):
        write_documents(folder, number, table_from_rows(rows))
    inputs = {"documents": StepOutput("split", folder), "tokenizer": StepOutput("tokenizer", tokenizer)}
    return StepTask("encode", "encode", EncodeConfig(**options), inputs, tmp_path / "encode", tmp_path, {})


def test_documents_come_back_and_end_in_one_eos(tmp_path: Path, tokenizer_folder: Path) -> None:
    rows = [row(text, lang="en", license="MIT", cluster_size=2, parents=["p"]) for text in TEXTS]
    task = step(tmp_path, tokenizer_folder, [rows[:3], rows[3:]])
    results = [WORK.make_shard(task, shard) for shard in range(WORK.shard_count(task))]
    tokenizer = Tokenizer.load(tokenizer_folder)
    shards = [TokenShard.open(stem) for stem in shard_stems(task.folder)]
    assert [stem.name for stem in shard_stems(task.folder)] == ["00000", "00001"]
    back = [shard.document(i) for shard in shards for i in range(len(shard.ends))]
    for text, ids in zip(TEXTS, back, strict=True):
        assert ids[-1] == tokenizer.eos_id
        assert (ids[:-1] >= 64).all()
        assert tokenizer.decode(ids[:-1]) == text
    assert all(shard.loss is None for shard in shards)
    table = shards[0].documents().to_pylist()
    assert [d["id"] for d in table] == [r["id"] for r in rows[:3]]
    assert table[0]["cluster_size"] == 2
    assert table[0]["parents"] == ["p"]
    assert table[0]["quality"] is None
    assert [d["length"] for d in table] == [len(ids) for ids in back[:3]]
    assert sum(r.counts["tokens"] for r in results) == sum(map(len, back))
    facts = WORK.finish(task, results)
    assert facts["tokens_by_language"] == {"en": sum(map(len, back))}
    assert facts["tokenizer"] == tokenizer.fingerprint


def test_chats_are_written_with_loss_flags(tmp_path: Path, tokenizer_folder: Path) -> None:
    tools = [{"name": "look", "parameters": {}}]
    rows = [row("x", messages=CHAT, extra=json.dumps({"tools": tools})), row("plain text")]
    task = step(tmp_path, tokenizer_folder, [rows])
    result = WORK.make_shard(task, 0)
    shard = TokenShard.open(shard_stems(task.folder)[0])
    tokenizer = Tokenizer.load(tokenizer_folder)
    ids, flags = tokenizer.encode_chat(CHAT, tools=tools)
    assert shard.document(0).tolist() == ids.tolist()
    assert shard.loss is not None
    assert shard.loss.tolist() == flags.tolist() + [1] * len(shard.document(1))
    assert tokenizer.decode(shard.document(0)).startswith('<|tool_declare|>\n# Tools\n<tool>{"name": "look"')
    assert result.counts["tokens_in_loss"] == int(shard.loss.sum()) < result.counts["tokens"]


def test_datatrove_reads_the_shard(tmp_path: Path, tokenizer_folder: Path) -> None:
    from datatrove.utils.dataset import DatatroveFileDataset

    task = step(tmp_path, tokenizer_folder, [[row(text + str(i)) for i in range(8) for text in TEXTS]])
    WORK.make_shard(task, 0)
    stem = shard_stems(task.folder)[0]
    shard = TokenShard.open(stem)
    theirs = DatatroveFileDataset(str(stem) + ".bin", seq_len=16, token_size=4, return_positions=True)
    items = [theirs[i] for i in range(len(theirs))]
    read = np.concatenate([item["input_ids"].numpy() for item in items])
    assert read.tolist() == shard.token_ids[: len(read)].tolist()
    assert len(read) > len(shard.token_ids) - 17
    starts = np.concatenate([[0], shard.ends[:-1]]).astype(np.int64)
    lengths = np.diff(np.concatenate([[0], shard.ends])).astype(np.int64)
    expected = np.arange(len(shard.token_ids)) - np.repeat(starts, lengths)
    for number, item in enumerate(items):  # positions restart at documents and at each window
        window = expected[number * 17 : number * 17 + 17]
        first = int(np.argmax(window == 0)) if (window == 0).any() else 17
        assert item["positions"].numpy()[first:].tolist() == window[first:].tolist()


def test_megatron_index_read_by_its_published_layout(tmp_path: Path, tokenizer_folder: Path) -> None:
    task = step(tmp_path, tokenizer_folder, [[row(text) for text in TEXTS]])
    WORK.make_shard(task, 0)
    stem = shard_stems(task.folder)[0]
    data = Path(f"{stem}.idx").read_bytes()
    assert data[:9] == b"MMIDIDX\x00\x00"
    version, dtype, sequences, documents = struct.unpack("<QBQQ", data[9:34])
    assert (version, dtype, sequences, documents) == (1, 4, 4, 5)
    lengths = np.frombuffer(data, np.int32, sequences, 34)
    pointers = np.frombuffer(data, np.int64, sequences, 34 + 4 * sequences)
    boundaries = np.frombuffer(data, np.int64, documents, 34 + 12 * sequences)
    assert len(data) == 34 + 12 * sequences + 8 * documents
    assert boundaries.tolist() == [0, 1, 2, 3, 4]
    raw = Path(f"{stem}.bin").read_bytes()
    tokenizer = Tokenizer.load(tokenizer_folder)
    texts = [
        tokenizer.decode(np.frombuffer(raw, np.int32, length, pointer)[:-1])
        for length, pointer in zip(lengths.tolist(), pointers.tolist(), strict=True)
    ]
    assert texts == TEXTS


def test_quality_signal_enters_the_table(tmp_path: Path, tokenizer_folder: Path) -> None:
    rows = [row(text) for text in TEXTS]
    task = step(tmp_path, tokenizer_folder, [rows], quality_signal="score@1")
    folder = tmp_path / "documents" / "signals"
    folder.mkdir()
    pq.write_table(pa.table({"id": [rows[1]["id"]], "score@1": [0.5]}), folder / "00000.parquet")
    WORK.make_shard(task, 0)
    assert TokenShard.open(shard_stems(task.folder)[0]).documents()["quality"].to_pylist() == [None, 0.5, None, None]
    wrong = step(tmp_path, tokenizer_folder, [rows], quality_signal="scores@1")
    with pytest.raises(ConfigError, match=r"did you mean `score@1`"):
        WORK.make_shard(wrong, 0)


def test_empty_shard_and_no_shards(tmp_path: Path, tokenizer_folder: Path) -> None:
    with pytest.raises(InputError, match="no documents to encode"):
        WORK.shard_count(step(tmp_path, tokenizer_folder, []))
    task = step(tmp_path, tokenizer_folder, [[]])
    assert WORK.make_shard(task, 0).counts["tokens"] == 0
    assert len(TokenShard.open(shard_stems(task.folder)[0]).ends) == 0


@settings(max_examples=30, deadline=None)
@given(texts=st.lists(st.text(max_size=30), min_size=1, max_size=6, unique=True))
def test_any_texts_survive(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path, texts: list[str]) -> None:
    task = step(tmp_path_factory.mktemp("any"), tokenizer_folder, [[row(text) for text in texts]])
    WORK.make_shard(task, 0)
    shard = TokenShard.open(shard_stems(task.folder)[0])
    tokenizer = Tokenizer.load(tokenizer_folder)
    back = [tokenizer.decode(shard.document(i)[:-1]) for i in range(len(shard.ends))]
    assert back == [unicodedata.normalize("NFC", text) for text in texts]
