"""Tokenizer training as steps: order-independence, exact sizes and quotas, messages for too little text."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import regex
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from tokenizer_run import TokenizerRun, corpus, document

from pipeline.core.chat import SPECIAL_TOKENS
from pipeline.core.errors import ConfigError, InputError
from pipeline.core.files import write_json
from pipeline.core.record import read_record
from pipeline.core.steps import StepTask
from pipeline.core.tokenizer import Tokenizer
from stages.tokenizer.patterns import SUPERWORD, WORD
from stages.tokenizer.spelling import SMALLEST, alphabet, spell, unspell
from stages.tokenizer.superbpe import build, train
from stages.tokenizer.train import WORK, QuotaConfig, TokenizerConfig, TrainTokenizerConfig, tokenizer_settings

PUBLISHED = (
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+"
)
SIZE, SUPERWORDS = 600, 60


def trained_config(**options: object) -> TokenizerConfig:
    return TokenizerConfig(train=TrainTokenizerConfig(**{"vocabulary": SIZE, "superword_share": 0.1, **options}))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TokenizerRun:
    return TokenizerRun(tmp_path_factory.mktemp("trained"), [corpus()], trained_config()).make()


@settings(max_examples=400, deadline=None)
@given(
    st.text(alphabet="aB é가あ़ि 12.,'sT\r\n\t-/_\u0301\u3000", max_size=60)
    | st.lists(st.sampled_from(["it's", " ", "  ", "the", "가나", "\n", "3", "…", "'LL", "a/b", "re"])).map("".join)
)
def test_flat_pattern_cuts_like_the_published_one(text: str) -> None:
    pieces = regex.findall(SUPERWORD, text)
    assert pieces == regex.findall(PUBLISHED, text)
    assert "".join(pieces) == text
    assert [word for piece in pieces for word in regex.findall(WORD, piece)] == regex.findall(WORD, text)


def test_words_of_the_pattern() -> None:
    assert regex.findall(SUPERWORD, "in the year 1999, (we  saw\nit: the end)") == [
        "in the year", " ", "1", "9", "9", "9", ",", " (", "we", " ", " saw", "\n", "it", ":", " the end", ")",
    ]  # fmt: skip


@pytest.mark.parametrize(("shards", "workers"), [(1, 1), (3, 1), (4, 2)])
def test_same_bytes_for_any_order_sharding_and_number_of_tasks(
    trained: TokenizerRun, tmp_path: Path, shards: int, workers: int
) -> None:
    rows = corpus()[::-1]
    other = TokenizerRun(tmp_path, [rows[shard::shards] for shard in range(shards)], trained_config(), workers).make()
    for file in ("tokenizer.json", "tokenizer_config.json"):
        assert (trained.folder() / file).read_bytes() == (other.folder() / file).read_bytes()
    assert trained.facts == other.facts
    assert trained.facts["fingerprint"] == hashlib.sha256(trained.file.read_bytes()).hexdigest()


def test_vocabulary_and_superword_quotas_are_exact(trained: TokenizerRun) -> None:
    assert trained.facts["vocabulary"] == SIZE
    assert trained.facts["superwords"] == SUPERWORDS
    assert trained.facts["superwords_by_class"] == {"en": 20, "ko": 30, "multilingual": 10}
    by_language = trained.facts["superwords_by_language"]
    assert by_language["ko"] == 30
    assert by_language["es"] == 10
    assert by_language["en"] + by_language.get("code", 0) == 20
    tokenizer = Tokenizer.load(trained.folder())
    assert tokenizer.vocabulary_size == SIZE
    superwords = [tokenizer.token(number) for number in range(SIZE - SUPERWORDS, SIZE)]
    shape = r"(?:[^\r\n\p{L}\p{N}]?\p{L}[\p{L}\p{M}]*|[\p{L}\p{M}]+)(?: \p{L}[\p{L}\p{M}]*)+"
    assert all(regex.fullmatch(shape, word) for word in superwords), superwords
    assert all(len(word.split()) <= 4 for word in superwords)
    korean = [word for word in superwords if regex.search(r"\p{Hangul}", word)]
    assert len(korean) == 30


def test_special_tokens_stand_at_their_reserved_ids(trained: TokenizerRun) -> None:
    tokenizer = Tokenizer.load(trained.folder())
    known = {"<|pad|>": 0, "<|bos|>": 1, "<|system|>": 50, "<|user|>": 51, "<|assistant|>": 52, "<|endofturn|>": 53}
    known |= {"<think>": 54, "</think>": 55}
    assert {token: tokenizer.special_ids[token] for token in known} == known
    vocabulary = json.loads(trained.file.read_text(encoding="utf-8"))["model"]["vocab"]
    assert {vocabulary[token] for token in SPECIAL_TOKENS} == set(range(64))
    assert {vocabulary[spell(token)] for token in alphabet() if token} == set(range(64, SMALLEST))


def test_it_loads_in_transformers_with_both_prompts(trained: TokenizerRun) -> None:
    loaded = transformers.AutoTokenizer.from_pretrained(trained.folder())
    ours = Tokenizer.load(trained.folder())
    messages = [{"role": "user", "content": "the river 강물은"}]
    for thinking in (True, False):
        found = loaded.apply_chat_template(
            messages, add_generation_prompt=True, enable_thinking=thinking, tokenize=True, return_dict=False
        )
        assert list(found) == ours.encode_prompt(messages, thinking=thinking)
    text = "the river rises 강물은 봄에 가장 123\n"
    assert loaded(text, add_special_tokens=False)["input_ids"] == ours.encode(text)


@settings(max_examples=200, deadline=None)
@given(token=st.binary(max_size=12))
def test_every_byte_string_has_a_spelling(token: bytes) -> None:
    assert unspell(spell(token)) == token


def test_every_token_of_valid_text_encodes_to_itself(trained: TokenizerRun) -> None:
    tokenizer = Tokenizer.load(trained.folder())
    for number in range(SMALLEST, SIZE):
        text = tokenizer.token(number)
        if "\ufffd" not in text:
            assert tokenizer.encode(text) == [number], text


def test_superwords_shorten_text(trained: TokenizerRun) -> None:
    texts = [row["text"] for row in corpus()]
    plain = build(train(lambda: texts, SIZE - SUPERWORDS, 0.0, 2))
    text = "".join(texts)
    assert len(Tokenizer.load(trained.folder()).encode(text)) < len(plain.encode(text).ids)


def test_too_little_text_names_a_vocabulary_that_works(tmp_path: Path) -> None:
    rows = corpus(20)
    with pytest.raises(ConfigError, match=r"vocabulary: 9000") as caught:
        TokenizerRun(tmp_path, [rows], trained_config(vocabulary=9000)).make()
    works = int(regex.search(r"set `vocabulary: (\d+)`", str(caught.value))[1])
    assert SMALLEST < works < 9000
    assert TokenizerRun(tmp_path, [rows], trained_config(vocabulary=works)).make().facts["vocabulary"] == works
    assert not list(tmp_path.glob("tokenizer-*/.partial*"))


def test_a_class_without_text_is_an_error_or_gives_its_share_away(tmp_path: Path) -> None:
    rows = corpus(languages=("en", "de"))
    with pytest.raises(ConfigError, match="0 of 22 ko") as caught:
        TokenizerRun(tmp_path, [rows], trained_config(vocabulary=440)).make()
    assert "quotas: {shortage: fill}" in str(caught.value)
    filled = TokenizerRun(tmp_path, [rows], trained_config(vocabulary=440, quotas=QuotaConfig(shortage="fill"))).make()
    assert filled.facts["superwords_by_class"] == {"en": 30, "ko": 0, "multilingual": 14}
    by_count = TokenizerRun(tmp_path, [rows], trained_config(vocabulary=440, quotas=None)).make()
    assert sum(by_count.facts["superwords_by_class"].values()) == 44


def test_progress_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("stages.tokenizer.train.TOLD_SECONDS", -1.0)
    monkeypatch.setattr("stages.tokenizer.merging.SLICE_MERGES", 100)
    TokenizerRun(tmp_path, [corpus()], trained_config()).make()
    told = capsys.readouterr().err
    assert "tokenizer: words, 420 of 540 tokens" in told
    assert "tokenizer: superwords, 600 of 600 tokens" in told


def test_no_documents_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no documents"):
        TokenizerRun(tmp_path, [[]], trained_config()).make()


def test_the_sample_is_bounded_and_does_not_depend_on_order(tmp_path: Path) -> None:
    rows = corpus(200)
    limit = sum(len(row["text"].encode()) for row in rows) // 2
    config = trained_config(maximum_bytes=limit)
    one = TokenizerRun(tmp_path / "one", [rows], config).make()
    other = TokenizerRun(tmp_path / "other", [rows[100:][::-1], rows[:100]], config).make()
    assert one.facts == other.facts
    assert 0.98 * limit < one.facts["sampled_bytes"] <= limit
    counted = read_record(other.folder("tokenizer.count")).counts
    assert counted["bytes_out"] == one.facts["sampled_bytes"]
    assert counted["documents_out"] == one.facts["sampled_documents"]
    single = trained_config(maximum_bytes=1, vocabulary=321, superword_share=0.0)
    assert TokenizerRun(tmp_path / "single", [rows], single).make().facts["sampled_documents"] == 1


def test_text_is_counted_as_nfc(tmp_path: Path) -> None:
    rows = [document("a", "cafe\u0301 cafe\u0301 cafe\u0301\n")]
    config = trained_config(vocabulary=323, superword_share=0.0)
    run = TokenizerRun(tmp_path, [rows], config).make()
    tokenizer = Tokenizer.load(run.folder())
    assert "\u00e9" in [tokenizer.token(number) for number in range(SMALLEST, 323)]


def test_a_given_tokenizer_is_taken_over(trained: TokenizerRun, tmp_path: Path) -> None:
    config = TokenizerConfig(path=str(trained.file))
    assert config.identity() == TokenizerConfig(path="/elsewhere/tokenizer.json").identity()
    task = StepTask("t", "t", config.identity(), {}, tmp_path / "taken", tmp_path, {"tokenizer": (str(trained.file),)})
    result = WORK.make_shard(task, 0)
    assert (tmp_path / "taken" / "tokenizer.json").read_bytes() == trained.file.read_bytes()
    assert result.facts["vocabulary"] == SIZE
    assert WORK.finish(task, [result])["fingerprint"] == Tokenizer.load(trained.file).fingerprint


def test_config_is_one_of_three() -> None:
    for options in ({}, {"train": TrainTokenizerConfig(), "path": "x"}):
        with pytest.raises(ValidationError, match="one of `train`, `extend` and `path`"):
            TokenizerConfig(**options)
    with pytest.raises(ValidationError, match="above 0"):
        QuotaConfig(en=0, ko=0, multilingual=0)


def test_settings_name_the_template(tmp_path: Path) -> None:
    write_json(tmp_path / "s.json", tokenizer_settings())
    assert "enable_thinking" in json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))["chat_template"]
