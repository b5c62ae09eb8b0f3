"""Peeking: any table of a step, paged, filtered over its columns; token shards come back as the text they encode."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.commands.peek import Page, body_of, chosen_table, decoded, find, tables_of
from pipeline.core.documents import DROPPED_SCHEMA, table_from_rows, write_documents, write_dropped, write_table
from pipeline.core.errors import ConfigError, InputError
from pipeline.core.shards import DOCUMENT_TABLE_SCHEMA, write_shard
from pipeline.core.tokenizer import Tokenizer


def documents(first: int, count: int) -> pa.Table:
    rows = [
        {"id": f"{n:032x}", "text_hash": "0", "text": f"text {n}", "source": "web", "lang": "ko" if n % 2 else "en"}
        for n in range(first, first + count)
    ]
    return table_from_rows(rows)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("step")
    for shard, (first, count) in enumerate([(0, 3), (3, 0), (3, 4)]):
        write_documents(folder, shard, documents(first, count))
    gone = [{"id": f"{n:032x}", "source": "web", "reason": f"rules.{'ab'[n % 2]}"} for n in range(5)]
    write_dropped(folder, 0, table_from_rows(gone, DROPPED_SCHEMA))
    signals = pa.table({"id": ["0" * 32, f"{1:032x}"], "words@1": [5.0, 9.0]})
    write_table(folder / "signals" / "00000.parquet", signals)
    write_table(folder / "signals" / ".partial-1-00001.parquet", signals)
    return folder


def ids(folder: Path, page: Page) -> tuple[list[int], int]:
    rows, total = find(tables_of(folder)[page.table], page)
    return [int(row["id"], 16) for row in rows], total


@settings(max_examples=30, deadline=None)
@given(limit=st.integers(1, 9))
def test_pages_put_together_are_the_table(folder: Path, limit: int) -> None:
    seen: list[int] = []
    while True:
        page, total = ids(folder, Page("documents", skip=len(seen), limit=limit))
        assert total == 7
        if not page:
            break
        assert len(page) <= limit
        seen += page
    assert seen == list(range(7))


def test_conditions_reach_every_column_and_the_place(folder: Path) -> None:
    assert ids(folder, Page("documents", where="lang = 'ko'", limit=9)) == ([1, 3, 5], 3)
    assert ids(folder, Page("documents", where="lang = 'ko'", skip=1, limit=1)) == ([3], 3)
    assert ids(folder, Page("documents", where="shard = '00002.parquet' AND row >= 2")) == ([5, 6], 2)
    assert ids(folder, Page("signals", where='"words@1" > 6')) == ([1], 1)
    assert ids(folder, Page("dropped", reason="rules.b")) == ([1, 3], 2)
    assert ids(folder, Page("dropped", reason="all", limit=9)) == ([0, 1, 2, 3, 4], 5)
    with pytest.raises(ConfigError, match=r"--where: not a condition.*\n.*columns: id, words@1, shard, row"):
        find(tables_of(folder)["signals"], Page("signals", where="wordz > 6"))


def test_which_table_is_meant(folder: Path, tmp_path: Path) -> None:
    found = tables_of(folder)
    assert set(found) == {"documents", "dropped", "signals"}
    assert len(found["signals"]) == 1
    assert chosen_table(Page(""), found, "s").table == "documents"
    assert chosen_table(Page("", reason="all"), found, "s").table == "dropped"
    assert chosen_table(Page(""), {"tokens": []}, "s").table == "tokens"
    with pytest.raises(ConfigError, match="did you mean `signals`"):
        chosen_table(Page("signal"), found, "s")
    with pytest.raises(ConfigError, match="two tables"):
        chosen_table(Page("signals", reason="all"), found, "s")
    with pytest.raises(InputError, match="holds no tables"):
        chosen_table(Page(""), tables_of(tmp_path), "s")


class Letters:
    """Stands in for a tokenizer: a token is a code point."""

    def decode(self, token_ids: list[int]) -> str:
        return "".join(map(chr, token_ids))


def test_token_shards_are_decoded_with_their_loss(tmp_path: Path) -> None:
    texts = ["한글.", "two.", "三つ."]
    lengths = [len(text) for text in texts]
    table = table_from_rows(
        [
            {"id": f"{n}", "source": "web", "start": sum(lengths[:n]), "length": length}
            for n, length in enumerate(lengths)
        ],
        DOCUMENT_TABLE_SCHEMA,
    )
    ids_of = np.array([ord(c) for text in texts for c in text], np.uint32)
    loss = np.ones(ids_of.shape[0], np.uint8)
    loss[lengths[0] : lengths[0] + 2] = 0
    write_shard(tmp_path / "tokens" / "00000", ids_of, table, eos_id=ord("."), loss=loss)
    rows, total = find(tables_of(tmp_path)["tokens"], Page("tokens", skip=1))
    tokenizer: Tokenizer = Letters()  # type: ignore[assignment]
    shown = [decoded(row, tmp_path, tokenizer) for row in rows]
    assert total == 3
    assert [(row["text"], row["tokens_in_loss"]) for row in shown] == [("two.", 2), ("三つ.", 3)]


def test_what_there_is_to_read_in_a_row() -> None:
    said = [
        {"role": "user", "reasoning": None, "content": "why?"},
        {"role": "assistant", "reasoning": "…", "content": "so"},
    ]
    assert body_of({"text": "", "messages": said}) == "[user] why?\n[assistant] …so"
    calls = [{"name": "look", "arguments": '{"at":1}'}, {"name": "go", "arguments": "{}"}]
    called = {"role": "assistant", "reasoning": "Hm.", "content": "", "tool_calls": calls}
    assert body_of({"text": "", "messages": [called]}) == '[assistant] Hm.\nlook {"at":1}\ngo {}'
    assert "not kept" in body_of({"text": None})
    assert body_of({"excerpt": "quoted"}) == "quoted"
    assert body_of({"words@1": 3}) == ""
