"""Counting words and phrases: the counts of the patterns themselves, whatever the batches, runs and order."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.errors import InputError
from pipeline.core.tokenizer import nfc
from stages.tokenizer import counts
from stages.tokenizer.counts import Group, Run, count_texts, read_run, run_files, write_run
from stages.tokenizer.patterns import SUPERWORD, WORD
from stages.tokenizer.tables import SequenceTable

GROUP = Group("en", "code")
# `regex` may know code points that `tokenizers`' engine does not yet: only those of Python's own, older tables.
KNOWN = st.text(st.characters(exclude_categories=["Cs", "Cn"]), max_size=30)
PIECES = [
    "it's",
    " ",
    "  ",
    "the",
    "가나 다",
    "\n",
    "3",
    "…",
    "a/b",
    " re",
    "\u3000",
    "\u00a0 ",
    "\t",
    "a b c",
    "(x y",
    "क्षि",
    "\x1f ",
]


def counted(runs: list[Run]) -> tuple[Counter[str], Counter[str]]:
    """(words, phrases) summed over runs."""
    words: Counter[str] = Counter()
    phrases: Counter[str] = Counter()
    for run in runs:
        bounds = run.word_bounds
        spelled = [run.word_bytes[bounds[n] : bounds[n + 1]].tobytes().decode() for n in range(bounds.size - 1)]
        assert len(set(spelled)) == len(spelled)
        words.update(dict(zip(spelled, run.word_counts.tolist(), strict=True)))
        for n, count in enumerate(run.phrase_counts.tolist()):
            numbers = run.phrase_words[run.phrase_bounds[n] : run.phrase_bounds[n + 1]]
            phrases["".join(spelled[number] for number in numbers)] += count
    return words, phrases


def expected(texts: list[str]) -> tuple[Counter[str], Counter[str]]:
    """The same through the patterns."""
    words = Counter(word for text in texts for word in regex.findall(WORD, text))
    chunks = (chunk for text in texts for chunk in regex.findall(SUPERWORD, text))
    return words, Counter(chunk for chunk in chunks if len(regex.findall(WORD, chunk)) > 1)


def run_of(texts: list[str]) -> list[Run]:
    return list(count_texts(GROUP, (text.encode() for text in texts)))


@settings(max_examples=150, deadline=None)
@given(texts=st.lists(st.lists(st.sampled_from(PIECES)).map("".join) | KNOWN, max_size=4))
def test_counts_are_those_of_the_patterns(texts: list[str]) -> None:
    texts = [nfc(text) for text in texts]
    assert counted(run_of(texts)) == expected(texts)


def test_a_phrase_is_the_words_of_a_chunk() -> None:
    words, phrases = counted(run_of(["in the year 1999, (we  saw the\nend", "in the year"]))
    assert phrases == {"in the year": 2, " saw the": 1}
    assert words["in"] == 2
    assert words[" the"] == 3
    assert words[" "] == 2


def test_batches_and_runs_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"the house number {number % 7} is on the street of a town {number}" for number in range(300)]
    whole = counted(run_of(texts))
    monkeypatch.setattr(counts, "BATCH_BYTES", 200)
    monkeypatch.setattr(counts, "RUN_WORDS", 10)
    runs = run_of(texts)
    assert len(runs) > 10
    assert counted(runs) == whole


def test_a_run_is_written_and_read_as_it_is(tmp_path: Path) -> None:
    (run,) = run_of(["a b c a b c\n", "가나 다라"])
    write_run(tmp_path, 3, 0, run)
    (file,) = run_files(tmp_path)
    assert file.name == "00003-000.words.arrow"
    found = read_run(file)
    assert found.group == GROUP
    for name in ("word_bytes", "word_bounds", "word_counts", "phrase_words", "phrase_bounds", "phrase_counts"):
        np.testing.assert_array_equal(getattr(found, name), getattr(run, name))
    before = file.read_bytes()
    write_run(tmp_path, 3, 0, run)
    assert file.read_bytes() == before


def test_a_text_without_phrases_gives_a_run_too(tmp_path: Path) -> None:
    (run,) = run_of(["東京は日本の首都です。\n"])
    write_run(tmp_path, 0, 0, run)
    assert counted([read_run(run_files(tmp_path)[0])]) == counted([run])
    assert run.phrase_counts.size == 0


def test_a_broken_run_names_its_file(tmp_path: Path) -> None:
    write_run(tmp_path, 0, 0, run_of(["a b"])[0])
    (file,) = run_files(tmp_path)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(InputError, match="not a run of counts") as caught:
        read_run(file)
    assert caught.value.where == str(file)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=4), max_size=30), max_size=6))
def test_a_table_counts_like_a_dictionary(batches: list[list[list[int]]]) -> None:
    table = SequenceTable(np.int32, 2)
    known: dict[tuple[int, ...], list[int]] = {}
    for batch in batches:
        items = np.array([item for sequence in batch for item in sequence], np.int32)
        ends = np.cumsum([len(sequence) for sequence in batch], dtype=np.int64)
        weights = np.array([[1, len(sequence)] for sequence in batch], np.int64).reshape(-1, 2)
        numbers = table.add(items, ends, weights)
        for sequence, number in zip(batch, numbers.tolist(), strict=True):
            total = known.setdefault(tuple(sequence), [0, 0])
            total[0] += 1
            total[1] += len(sequence)
            assert list(known).index(tuple(sequence)) == number
    bounds, items = table.bounds, table.items
    found = [tuple(items[bounds[n] : bounds[n + 1]].tolist()) for n in range(table.size)]
    assert found == list(known)
    assert table.weights.tolist() == list(known.values())


def test_a_table_grows_and_keeps_what_it_has() -> None:
    table = SequenceTable(np.uint8)
    spelled = [f"{number:x}".encode() for number in range(50_000)]
    for part in (spelled[:100], spelled, spelled[::-1]):
        table.add(
            np.frombuffer(b"".join(part), np.uint8),
            np.cumsum([len(one) for one in part], dtype=np.int64),
            np.ones((len(part), 1), np.int64),
        )
    assert table.size == 50_000
    assert table.weights[:, 0].tolist() == [3] * 100 + [2] * 49_900


def test_real_documents_are_counted_like_the_patterns(data_root: Path) -> None:
    table = pq.read_table(data_root / "html_gold.parquet", columns=["text"]).slice(0, 150)
    texts = [nfc(text) for text in table["text"].to_pylist()]
    assert counted(run_of(texts)) == expected(texts)
