"""Tokenizer training: order-independence, exact sizes, superwords, messages for too little text."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.core.documents import document_id, table_from_rows, text_hash, write_documents
from pipeline.core.errors import ConfigError, InputError
from pipeline.core.steps import StepOutput, StepTask
from pipeline.core.tokenizer import Tokenizer
from stages.tokenizer.patterns import SUPERWORD, WORD
from stages.tokenizer.superbpe import SMALLEST, build, train
from stages.tokenizer.train import WORK, TokenizerConfig, TrainTokenizerConfig

PUBLISHED = (
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+"
)
WORDS = [
    "the",
    "water",
    "in",
    "river",
    "rises",
    "when",
    "snow",
    "mountains",
    "melt",
    "evening",
    "children",
    "walk",
    "along",
    "old",
    "bridge",
    "she",
    "bread",
    "table",
    "window",
    "강물은",
    "봄에",
    "가장",
    "높고",
    "산의",
    "눈은",
    "녹는다",
    "el",
    "agua",
    "del",
    "río",
    "sube",
    "cuando",
    "la",
    "nieve",
    "montaña",
]


def corpus(count: int = 60) -> list[str]:
    """Sentences of few words, so that many pairs of words repeat."""
    generator = random.Random(7)
    return [
        ". ".join(" ".join(generator.choices(WORDS, k=12)) for _ in range(3)) + f". {number}\n"
        for number in range(count)
    ]


def step(
    tmp_path: Path, texts: list[str], config: TokenizerConfig, name: str = "tokenizer", shards: int = 2
) -> StepTask:
    folder = tmp_path / f"documents-{name}"
    rows = [{"id": document_id("s", text), "text_hash": text_hash(text), "text": text, "source": "s"} for text in texts]
    for shard in range(shards):
        write_documents(folder, shard, table_from_rows(rows[shard::shards]))
    return StepTask(name, name, config, {"documents": StepOutput("split", folder)}, tmp_path / name, tmp_path, {})


def trained_config(**options: object) -> TokenizerConfig:
    return TokenizerConfig(train=TrainTokenizerConfig(**{"vocabulary": 420, "superword_share": 0.05, **options}))


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


def test_same_bytes_for_any_order_and_sharding(tmp_path: Path) -> None:
    texts = corpus()
    first = WORK.make_shard(step(tmp_path, texts, trained_config(), "a", shards=1), 0)
    second = WORK.make_shard(step(tmp_path, texts[::-1], trained_config(), "b", shards=3), 0)
    assert first == second
    for file in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    data = (tmp_path / "a" / "tokenizer.json").read_bytes()
    assert first.facts["fingerprint"] == hashlib.sha256(data).hexdigest()


def test_vocabulary_and_superword_share_are_exact(tmp_path: Path) -> None:
    result = WORK.make_shard(step(tmp_path, corpus(), trained_config()), 0)
    assert result.facts["vocabulary"] == 420
    assert result.facts["superwords"] == 21
    tokenizer = Tokenizer.load(tmp_path / "tokenizer")
    assert tokenizer.vocabulary_size == 420
    superwords = [tokenizer.token(number) for number in range(420 - 21, 420)]
    assert all(
        regex.fullmatch(r"[^\r\n\p{L}\p{N}]?\p{L}[\p{L}\p{M}]*(?: \p{L}[\p{L}\p{M}]*)+", word) for word in superwords
    )
    text = "".join(corpus())
    plain = build(train(corpus, 399, 0.0, 2))
    assert len(tokenizer.encode(text)) < len(plain.encode(text).ids)


def test_stage_one_is_the_library_trainer() -> None:
    from tokenizers import Regex, models, pre_tokenizers, trainers
    from tokenizers import Tokenizer as Plain

    peer = Plain(models.BPE())
    peer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORD), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=400 - 64, min_frequency=2, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    peer.train_from_iterator(corpus(), trainer)
    ours = train(corpus, 400, 0.0, 2)
    assert {token: number + 64 for token, number in peer.get_vocab().items()} == {
        token: number for number, token in enumerate(ours.tokens) if number >= 64
    }


def test_every_token_of_valid_text_encodes_to_itself() -> None:
    trained = train(corpus, 420, 0.05, 2)
    tokenizer = build(trained)
    for number in range(SMALLEST, 420):
        text = tokenizer.decode([number])
        if "\ufffd" not in text:
            assert tokenizer.encode(text).ids == [number], text


def test_too_little_text_names_a_vocabulary_that_works(tmp_path: Path) -> None:
    texts = corpus(20)
    with pytest.raises(ConfigError, match=r"vocabulary: 9000") as caught:
        WORK.make_shard(step(tmp_path, texts, trained_config(vocabulary=9000)), 0)
    works = int(regex.search(r"set `vocabulary: (\d+)`", str(caught.value))[1])
    assert SMALLEST < works < 9000
    result = WORK.make_shard(step(tmp_path, texts, trained_config(vocabulary=works), "works"), 0)
    assert result.facts["vocabulary"] == works
    assert not (tmp_path / "tokenizer" / "tokenizer.json").exists()


def test_no_documents_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no documents"):
        WORK.make_shard(step(tmp_path, [], trained_config()), 0)


def test_sample_is_bounded_and_does_not_depend_on_order(tmp_path: Path) -> None:
    texts = corpus()
    limit = sum(len(text.encode()) for text in texts) // 2
    results = [
        WORK.make_shard(step(tmp_path, some, trained_config(vocabulary=400, maximum_bytes=limit), name), 0)
        for name, some in (("a", texts), ("b", texts[::-1]))
    ]
    assert results[0] == results[1]
    assert 0.9 * limit < results[0].facts["sampled_bytes"] <= limit


def test_a_given_tokenizer_is_taken_over(tmp_path: Path) -> None:
    WORK.make_shard(step(tmp_path, corpus(), trained_config(), "made"), 0)
    path = tmp_path / "made" / "tokenizer.json"
    config = TokenizerConfig(path=str(path))
    assert config.identity() == TokenizerConfig(path="/elsewhere/tokenizer.json").identity()
    task = StepTask("t", "t", config.identity(), {}, tmp_path / "taken", tmp_path, {"tokenizer": (str(path),)})
    result = WORK.make_shard(task, 0)
    assert (tmp_path / "taken" / "tokenizer.json").read_bytes() == path.read_bytes()
    assert result.facts["vocabulary"] == 420
    assert WORK.finish(task, [result])["fingerprint"] == Tokenizer.load(path).fingerprint


def test_config_is_one_of_two() -> None:
    for options in ({}, {"train": TrainTokenizerConfig(), "path": "x"}):
        with pytest.raises(ValidationError, match="either `train` or `path`"):
            TokenizerConfig(**options)
