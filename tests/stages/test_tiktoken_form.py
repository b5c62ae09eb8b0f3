"""The tiktoken form: the same ids in tiktoken, or no form at all."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from real_documents import real_texts

from pipeline.core.tokenizer import FILE, Tokenizer
from stages.tokenizer.encoder import Encoder
from stages.tokenizer.patterns import SUPERWORD
from stages.tokenizer.superbpe import Trained, build, train
from stages.tokenizer.tiktoken_form import RANKS, SETTINGS, read_tiktoken_form, write_tiktoken_form

tiktoken = pytest.importorskip("tiktoken")
SENTENCES = [
    "The water in the river rises when the snow in the mountains melts. It is the start of the year.\n" * 6,
    "강물은 산의 눈이 녹을 때 불어난다. 강물은 봄에 가장 높다.\n" * 6,
    "Nước sông dâng lên khi tuyết trên núi tan. Nước sông cao nhất vào mùa xuân.\n" * 6,
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("form")
    build(train(lambda: SENTENCES, 600, 0.05, 2)).save(str(folder / FILE))
    assert write_tiktoken_form(Tokenizer.load(folder), folder) is None
    return folder


@pytest.fixture(scope="module")
def encoding(folder: Path) -> Any:
    return tiktoken.Encoding(**read_tiktoken_form(folder))


@given(text=st.one_of(st.text(), st.text(alphabet="thericsnow강물은 \u3000'\n2", max_size=40)))
@settings(max_examples=300, deadline=None)
def test_ids_in_tiktoken_are_those_of_tokenizers(encoding: Any, folder: Path, text: str) -> None:
    text = unicodedata.normalize("NFC", text)
    ids = encoding.encode_ordinary(text)
    assert ids == Tokenizer.load(folder).encode(text)
    assert encoding.decode(ids) == text


def test_special_tokens_are_tokens_only_when_asked_for(encoding: Any, folder: Path) -> None:
    tokenizer = Tokenizer.load(folder)
    assert encoding.encode("a<|endofturn|>", allowed_special="all")[-1] == tokenizer.eos_id == 53
    assert encoding.encode_ordinary("a<|endofturn|>") == tokenizer.encode("a<|endofturn|>")
    assert encoding.n_vocab == tokenizer.vocabulary_size


def test_tiktoken_itself_reads_the_ranks(folder: Path, encoding: Any) -> None:
    from tiktoken.load import load_tiktoken_bpe

    assert load_tiktoken_bpe(str(folder / RANKS)) == read_tiktoken_form(folder)["mergeable_ranks"]


def with_merges(folder: Path, merges: list[tuple[str, str]], tokens: list[str]) -> Tokenizer:
    bytes_only = train(lambda: ["x"], 320, 0.0, 2)
    build(Trained([*bytes_only.tokens, *tokens], merges, 0, True), SUPERWORD).save(str(folder / FILE))
    return Tokenizer.load(folder)


@pytest.mark.parametrize(
    ("merges", "tokens", "reason"),
    [
        # Of `abc` tiktoken makes ab, then ab + c, which is a token; the rules stop at ab, c.
        ([("a", "b"), ("b", "c"), ("a", "bc")], ["ab", "bc", "abc"], "1 tokens are not what their bytes are merged into, id 322"),
        # Of `abc` the rules make bc first, tiktoken ab: the lower id.
        ([("b", "c"), ("a", "b")], ["ab", "bc"], "id 321 b'bc' is made by an earlier rule than an id before it"),
    ],
)  # fmt: skip
def test_a_vocabulary_that_tiktoken_would_read_otherwise_gets_no_form(
    tmp_path: Path, merges: list[tuple[str, str]], tokens: list[str], reason: str
) -> None:
    tokenizer = with_merges(tmp_path, merges, tokens)
    assert (write_tiktoken_form(tokenizer, tmp_path) or "").startswith(reason)
    assert not (tmp_path / RANKS).exists()
    assert not (tmp_path / SETTINGS).exists()


def test_a_second_rule_for_a_token_that_is_never_reached_changes_nothing(tmp_path: Path) -> None:
    tokenizer = with_merges(tmp_path, [("b", "c"), ("a", "b"), ("a", "bc"), ("ab", "c")], ["bc", "ab", "abc"])
    assert write_tiktoken_form(tokenizer, tmp_path) is None
    encoding = tiktoken.Encoding(**read_tiktoken_form(tmp_path))
    for text in ("abc", "ab bc", "abcabc", "aabcc"):
        assert encoding.encode_ordinary(text) == tokenizer.encode(text)


@pytest.mark.slow
def test_every_real_document_has_the_same_ids_in_tiktoken(data_root: Path, encoding: Any, folder: Path) -> None:
    encoder = Encoder.of(Tokenizer.load(folder))
    for where, text in real_texts(data_root):
        assert encoding.encode_ordinary(text) == encoder.encode_texts([text])[0].tolist(), where
