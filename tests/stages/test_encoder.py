"""The encoder gives the ids of `tokenizers` and tiktoken for any text, in any order, from any state of its cache."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from real_documents import real_texts

from pipeline.core.errors import InputError
from pipeline.core.tokenizer import FILE, Tokenizer
from stages.tokenizer.encoder import Encoder
from stages.tokenizer.encoder_tables import PUBLISHED_SUPERWORD, Unsupported, crosses_words, merge_tables
from stages.tokenizer.patterns import SUPERWORD, WORD
from stages.tokenizer.superbpe import build, train

SENTENCES = [
    "The water in the river rises when the snow in the mountains melts. It is the start of the year.\n" * 6,
    "def read(path):\n    with open(path) as handle:\n        return handle.read()  # don't\n" * 6,
    "강물은 산의 눈이 녹을 때 불어난다. 강물은 봄에 가장 높다.\n" * 6,
    "川の水は山の雪が溶けると増えます。\u3000 春に一番高くなります。\n" * 6,
    "Nước sông dâng lên khi tuyết trên núi tan. Nước sông cao nhất vào mùa xuân.\n" * 6,
]
WORDS_OF_TEXTS = sorted({word + " " for text in SENTENCES for word in text.split()})
LEARNT = st.lists(
    st.sampled_from([*WORDS_OF_TEXTS, "the river ", "강물은 ", " ", "\n", "'s", "2", "<think>"]), max_size=20
)
TEXT = st.one_of(st.text(), LEARNT.map("".join), st.text(alphabet="thericsnow강물은 \u3000\u0301'\n", max_size=40))


def saved(folder: Path, pattern: str, superword_share: float) -> Tokenizer:
    trained = train(lambda: SENTENCES, 700, superword_share, 2)
    build(trained, pattern).save(str(folder / FILE), pretty=False)
    return Tokenizer.load(folder)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """With superwords."""
    return saved(tmp_path_factory.mktemp("superword"), SUPERWORD, 0.05)


@pytest.fixture(scope="module")
def encoder(tokenizer: Tokenizer) -> Encoder:
    return Encoder.of(tokenizer, kept_chunks=16)  # so small that chunks push each other out all the time


def ids(encoder: Encoder, texts: Sequence[str]) -> list[list[int]]:
    return [found.tolist() for found in encoder.encode_texts(texts)]


@given(texts=st.lists(TEXT, max_size=4))
@settings(max_examples=400, deadline=None)
def test_ids_are_those_of_tokenizers(encoder: Encoder, tokenizer: Tokenizer, texts: list[str]) -> None:
    assert encoder.reason is None
    assert ids(encoder, texts) == [tokenizer.encode(text) for text in texts]


@given(text=TEXT)
@settings(max_examples=200, deadline=None)
def test_decode_of_encode_is_the_nfc_text(encoder: Encoder, text: str) -> None:
    (found,) = encoder.encode_texts([text])
    expected = unicodedata.normalize("NFC", text)
    assert encoder.tokenizer.decode(found) == expected
    assert encoder.decode_bytes(found) == expected.encode("utf-8")


@given(data=st.one_of(st.binary(), st.lists(st.one_of(st.binary(max_size=3), TEXT.map(str.encode))).map(b"".join)))
@settings(max_examples=200, deadline=None)
def test_any_bytes_can_be_expressed(encoder: Encoder, data: bytes) -> None:
    assert encoder.decode_bytes(encoder.encode_bytes(data)) == data


@pytest.mark.parametrize("size", [63, 64, 65, 66, 200, 5000])
def test_long_chunks_are_merged_as_short_ones(encoder: Encoder, tokenizer: Tokenizer, size: int) -> None:
    texts = ["the" * size, "e" * size, " " * size, "강물은" * size, "the river " * size, "-=" * size]
    assert ids(encoder, texts) == [tokenizer.encode(text) for text in texts]


def test_chunks_of_every_length_are_kept_and_found_again(tokenizer: Tokenizer) -> None:
    encoder = Encoder.of(tokenizer, kept_chunks=1 << 12)
    texts = [("rivers and mountains " * 8)[:size] + "." for size in range(1, 160)]
    expected = [tokenizer.encode(text) for text in texts]
    assert ids(encoder, texts) == expected
    assert ids(encoder, texts) == expected
    assert ids(encoder, list(reversed(texts))) == expected[::-1]


@pytest.mark.parametrize("pattern", [WORD, PUBLISHED_SUPERWORD])
def test_both_patterns_and_the_published_spelling_are_known(tmp_path: Path, pattern: str) -> None:
    tokenizer = saved(tmp_path, pattern, 0.05)
    encoder = Encoder.of(tokenizer)
    assert encoder.reason is None
    assert ids(encoder, SENTENCES) == [tokenizer.encode(text) for text in SENTENCES]


def test_another_pattern_is_left_to_tokenizers_and_says_why(tmp_path: Path) -> None:
    tokenizer = saved(tmp_path, r"\p{L}+|\s|[^\p{L}\s]+", 0.0)
    encoder = Encoder.of(tokenizer)
    assert encoder.reason == r"its pattern is not one of ours: \p{L}+|\s|[^\p{L}\s]+"
    assert ids(encoder, SENTENCES) == [tokenizer.encode(text) for text in SENTENCES]
    assert ids(encoder, []) == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"ignore_merges": True}, "ignore_merges = True"),
        ({"dropout": 0.1}, "dropout = 0.1"),
        ({"byte_fallback": True}, "byte_fallback = True"),
        ({"type": "Unigram"}, "is Unigram, not BPE"),
        ({"vocab": {"a": 0}}, "no token for 255 bytes"),
    ],
)  # fmt: skip
def test_models_with_other_rules_are_refused(tokenizer: Tokenizer, change: dict[str, object], reason: str) -> None:
    description = tokenizer.description()
    description["model"] |= change
    with pytest.raises(Unsupported, match=reason):
        merge_tables(description)


@pytest.mark.parametrize(
    ("token", "crosses"),
    [
        (b"the river", True), (b"e ", True), (b" the", False), (b"\n ", False), (b". T", False), (b"e  ", False),
        ("\u3000 ".encode(), False), (b"\x80 ", True), ("은 ".encode()[1:], True), ("은 봄".encode()[:-1], True), (b"e \x80", False),
    ],
)  # fmt: skip
def test_which_tokens_reach_over_a_word_boundary(token: bytes, crosses: bool) -> None:
    assert crosses_words(token) == crosses


def test_a_lone_surrogate_is_refused(encoder: Encoder) -> None:
    with pytest.raises(InputError, match="character 1 is half of a surrogate pair"):
        encoder.encode_texts(["a\ud800"])


def test_results_never_depend_on_what_was_encoded_before(tokenizer: Tokenizer) -> None:
    fresh, used = Encoder.of(tokenizer), Encoder.of(tokenizer, kept_chunks=2)
    for text in SENTENCES * 3:
        used.encode_texts([text])
    np.testing.assert_array_equal(fresh.encode_joined(SENTENCES)[0], used.encode_joined(SENTENCES)[0])


@pytest.mark.slow
def test_every_real_document_is_encoded_as_by_tokenizers(data_root: Path, tokenizer: Tokenizer) -> None:
    encoder = Encoder.of(tokenizer)
    for where, text in real_texts(data_root):
        assert encoder.encode_texts([text])[0].tolist() == tokenizer.encode(text), where
