"""Words: cases of each language, every character in exactly one word, one batch as single texts, and peers."""

from __future__ import annotations

import importlib.util
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.core.errors import ConfigError
from stages.vietnamese import LIST
from stages.words import segmenter, split

LANGS = ("en", "de", "es", "vi", "ja", "ko", None)
TEXT = st.text() | st.text(
    st.sampled_from("aB1 .,:/-=<>'’\"@_#…\n\t가나는에서読みますのデータ。Đquy định"), max_size=60
)
PEERS = {"en": "spacy", "de": "spacy", "es": "spacy", "vi": "pyvi", "ja": "sudachipy", "ko": "kiwipiepy"}


@pytest.mark.skipif(importlib.util.find_spec("spacy") is not None, reason="spaCy is installed")
def test_missing_tokenizers_are_named_with_what_to_install() -> None:
    with pytest.raises(ConfigError, match="spacy"):
        segmenter("datatrove", "en")


@pytest.mark.parametrize(
    ("lang", "text", "words"),
    [
        ("en", "It's 12.50, isn't it?", ["It", "'s", "12.50", ",", "isn", "'t", "it", "?"]),
        (
            "en",
            "A well-known host.name/path: 10:30, 'so' ... e.g.--",
            [
                "A",
                "well",
                "-",
                "known",
                "host.name",
                "/",
                "path",
                ":",
                "10:30",
                ",",
                "'",
                "so",
                "'",
                "...",
                "e.g",
                ".",
                "--",
            ],
        ),
        ("en", "See https://a.b/c?d=1.", ["See", "https://a.b/c?d=1", "."]),
        ("de", "Straße, über 1.000,50 €", ["Straße", ",", "über", "1.000,50", "€"]),
        ("es", "¿Qué tal?", ["¿", "Qué", "tal", "?"]),
        ("ko", "도서관에서 책을 읽었다.", ["도서관", "에서", "책", "을", "읽", "었", "다", "."]),
        ("ko", "학교에서는 FastAPI를", ["학교", "에서", "는", "FastAPI", "를"]),
        ("ja", "私は本を読みます。", ["私", "は", "本", "を", "読み", "ます", "。"]),
        (
            "ja",
            "情報処理の高い技術がデータにある",
            ["情報", "処理", "の", "高い", "技術", "が", "データ", "に", "ある"],
        ),
        ("en", "--reload /etc/passwd src/ a@b.org", ["--reload", "/etc", "/", "passwd", "src/", "a@b.org"]),
        ("de", "USB-Stick", ["USB-Stick"]),
        ("vi", "Quy định của Việt Nam: mở cửa.", ["Quy định", "của", "Việt Nam", ":", "mở", "cửa", "."]),
        ("vi", "TT. 1.000 ngày 01/2018", ["TT.", "1.000", "ngày", "01", "/", "2018"]),
        (None, "Ünïcödé слово", ["Ünïcödé", "слово"]),
    ],
)
def test_words_of_each_language(lang: str, text: str, words: list[str]) -> None:
    assert segmenter("seodang", lang)(text) == words


@settings(deadline=None, max_examples=300)
@example("ก ข", "en")
@given(TEXT, st.sampled_from(LANGS))
def test_every_character_but_white_space_is_in_one_word(text: str, lang: str | None) -> None:
    text = text.encode("utf-8", "replace").decode()
    words = segmenter("seodang", lang)(text)
    assert all(words)
    assert "".join("".join(word.split()) for word in words) == "".join(text.split())
    if lang != "vi":
        assert not any(char.isspace() for word in words for char in word)


@settings(deadline=None)
@given(st.lists(TEXT, max_size=6), st.sampled_from(LANGS))
def test_a_batch_gives_the_words_of_its_texts(texts: list[str], lang: str | None) -> None:
    raw = [text.encode("utf-8", "replace") for text in texts]
    offsets = np.cumsum([0, *map(len, raw)], dtype=np.int64)
    data = np.frombuffer(b"".join(raw), np.uint8)
    found = split("seodang", data, offsets, [lang] * len(raw))
    words = [data[a:b].tobytes().decode() for a, b in zip(found.starts, found.ends, strict=True)]
    for number, one in enumerate(raw):
        assert words[found.first[number] : found.first[number + 1]] == segmenter("seodang", lang)(one.decode())


def test_vietnamese_list_is_sorted_lower_case_and_of_two_syllables() -> None:
    words = LIST.read_text(encoding="utf-8").split("\n")[:-1]
    assert words == sorted(set(words))
    assert all(len(word.split(" ")) == 2 for word in words)
    assert not any(char.isascii() and char.isupper() for word in words for char in word)


@pytest.mark.parametrize(("lang", "package"), PEERS.items())
def test_as_many_words_as_the_dictionary_segmenter(lang: str, package: str, data_root: Path) -> None:
    """Within a quarter of its count: thresholds over counts stay what they were published for."""
    pytest.importorskip(package)
    rows: Any = pq.read_table(data_root / "html_gold.parquet", columns=["text", "lang"]).to_pylist()
    texts = [row["text"][:1500] for row in rows if row["lang"] == lang]
    texts = random.Random(0).sample(texts, 12)
    ours, theirs = (sum(len(segmenter(name, lang)(text)) for text in texts) for name in ("seodang", "datatrove"))
    assert 0.8 < ours / theirs < 1.25
