"""The scanner cuts where the two patterns cut in `tokenizers`, and where `regex` and tiktoken cut what all know."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st
from real_documents import real_texts
from tokenizers import Regex, pre_tokenizers

from stages.tokenizer.patterns import SUPERWORD, WORD
from stages.tokenizer.scanner import (
    CODE_POINTS,
    LETTER,
    LINE_END,
    MARK,
    NUMBER,
    SPACE,
    Pattern,
    character_classes,
    scan,
)

PATTERNS: dict[Pattern, str] = {"word": WORD, "superword": SUPERWORD}
# Whatever a rule looks at: contractions in both cases and with the long s, marks, digits, all kinds of spaces.
TELLING = "aZſéßが강ệ\u0301\u0e31\u20dd09²٣'’sSdMtTrReEvVlL -/.(_😀\n\r\t\x0b\x0c\x85\xa0\u2028\u3000\u200b<|>"


def cut(texts: Sequence[str], pattern: Pattern) -> list[list[str]]:
    data = [text.encode("utf-8") for text in texts]
    offsets = np.cumsum([0, *map(len, data)])
    joined = b"".join(data)
    ends = scan(np.frombuffer(joined, np.uint8), offsets, pattern)
    starts = np.concatenate([[0], ends])[:-1]
    chunks: list[list[str]] = [[] for _ in texts]
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        chunks[int(np.searchsorted(offsets, start, "right")) - 1].append(joined[start:end].decode("utf-8"))
    return chunks


@lru_cache(maxsize=4)
def splitter(pattern: str) -> pre_tokenizers.Split:
    return pre_tokenizers.Split(Regex(pattern), behavior="isolated")


def peer_cut(text: str, pattern: Pattern) -> list[str]:
    return [piece for piece, _ in splitter(PATTERNS[pattern]).pre_tokenize_str(text)]


@pytest.mark.parametrize(
    ("text", "words", "superwords"),
    [
        ("It is 2024.", ["It", " is", " ", "2", "0", "2", "4", "."], ["It is", " ", "2", "0", "2", "4", "."]),
        ("don't  go on", ["don", "'t", " ", " go", " on"], ["don", "'t", " ", " go on"]),
        ("(a b)\n\nc", ["(a", " b", ")\n", "\n", "c"], ["(a b", ")\n", "\n", "c"]),
        ("'S'ſ'LLama", ["'S", "'ſ", "'LL", "ama"], ["'S", "'ſ", "'LL", "ama"]),
        ("강물은 봄에", ["강물은", " 봄에"], ["강물은 봄에"]),
        ("x \t y /\n", ["x", " \t", " y", " /\n"], ["x", " \t", " y", " /\n"]),
        ("", [], []),
    ],
)  # fmt: skip
def test_cuts_written_out(text: str, words: list[str], superwords: list[str]) -> None:
    assert cut([text], "word") == [words]
    assert cut([text], "superword") == [superwords]


@pytest.mark.parametrize("pattern", PATTERNS)
@settings(max_examples=400, deadline=None)
@given(texts=st.lists(st.one_of(st.text(), st.text(alphabet=TELLING, max_size=24)), min_size=1, max_size=3))
def test_any_text_is_cut_as_in_tokenizers(pattern: Pattern, texts: list[str]) -> None:
    assert cut(texts, pattern) == [peer_cut(text, pattern) for text in texts]


@given(text=st.text())
@settings(max_examples=200, deadline=None)
def test_every_superword_boundary_is_a_word_boundary(text: str) -> None:
    data = np.frombuffer(text.encode("utf-8"), np.uint8)
    offsets = np.array([0, data.size])
    assert set(scan(data, offsets, "superword").tolist()) <= set(scan(data, offsets, "word").tolist())


def test_the_classes_are_those_of_tokenizers_for_every_code_point() -> None:
    points = np.array([point for point in range(CODE_POINTS) if not 0xD800 <= point < 0xE000])
    every = "".join(map(chr, points))
    ours = character_classes()[points]
    expected = {r"\p{L}": [LETTER], r"\p{M}": [MARK], r"\p{N}": [NUMBER], r"\s": [SPACE, LINE_END]}
    for property_name, classes in expected.items():
        outside = np.zeros(points.size, bool)
        for _, (start, end) in pre_tokenizers.Split(Regex(f"{property_name}+"), "removed").pre_tokenize_str(every):
            outside[start:end] = True
        assert points[np.isin(ours, classes) == outside].tolist() == [], property_name


def test_where_other_unicode_versions_differ_a_code_point_is_unassigned_in_one_of_them() -> None:
    ours = character_classes()
    names = {"L": LETTER, "M": MARK, "N": NUMBER}
    ours_named = np.where(np.isin(ours, list(names.values())), ours, 0).tolist()
    categories = [unicodedata.category(chr(point)) for point in range(CODE_POINTS)]
    python_differs = [
        point
        for point, category in enumerate(categories)
        if category != "Cn" and names.get(category[0], 0) != ours_named[point]
    ]
    assert python_differs == []
    regex_differs = [
        point
        for name, kind in names.items()
        for point in np.flatnonzero(ours == kind).tolist()
        if not regex.fullmatch(rf"\p{{{name}}}", chr(point))
    ]
    assert regex_differs == []


@pytest.mark.slow
@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_real_document_is_cut_as_in_tokenizers(data_root: Path, pattern: Pattern) -> None:
    for where, text in real_texts(data_root):
        assert cut([text], pattern) == [peer_cut(text, pattern)], where
