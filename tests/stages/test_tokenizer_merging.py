"""The merge loop: the merges of the `tokenizers` trainer, in order; what every encoder makes of the words; rules."""

from __future__ import annotations

import json
import random
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_run import corpus
from tokenizers import Regex, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Plain

from pipeline.core.chat import RESERVED_IDS, SPECIAL_TOKENS
from pipeline.core.tokenizer import nfc
from stages.tokenizer import merging
from stages.tokenizer.counts import Group, count_texts
from stages.tokenizer.merging import Merged, Rules, Sequences, ends_inside, merge, token_traits
from stages.tokenizer.patterns import WORD
from stages.tokenizer.phrases import NEIGHBOUR_SLOTS
from stages.tokenizer.quotas import parts, quotas, refilled
from stages.tokenizer.spelling import alphabet
from stages.tokenizer.superbpe import Plan, build, train, train_runs
from stages.tokenizer.words import count_words

LETTERS = [bytes([letter]) for letter in b"abc "]


def peer_merges(texts: list[str], vocabulary: int, minimum_count: int = 2) -> list[tuple[str, str]]:
    """Of the library's own trainer with the same pattern."""
    tokenizer = Plain(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORD), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=minimum_count,
        show_progress=False,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(texts, trainer)
    return [(left, right) for left, right in json.loads(tokenizer.to_str())["model"]["merges"]]


def sequences(texts: list[str], weights: list[list[int]]) -> Sequences:
    """Texts over `LETTERS`, as ids."""
    lengths = np.array([len(text) for text in texts], np.int32)
    ids = np.array([b"abc ".index(letter) for text in texts for letter in text.encode()], np.int32)
    starts = np.cumsum(lengths, dtype=np.int64) - lengths
    return Sequences(ids, starts, lengths, np.array(weights, np.int64))


def merged_tokens(merged: Merged, known: int = len(LETTERS)) -> list[str]:
    return [token.decode() for token in merged.tokens[known:]]


def simple_merges(texts: Counter[str], tokens: int) -> list[tuple[str, str]]:
    """Textbook BPE: count all pairs anew for each merge; ties to the smaller ids."""
    ids = {letter.decode(): number for number, letter in enumerate(LETTERS)}
    cuts = {text: list(text) for text in texts}
    found: list[tuple[str, str]] = []
    while len(ids) < tokens:
        pairs: Counter[tuple[str, str]] = Counter()
        for text, cut in cuts.items():
            for pair in pairwise(cut):
                pairs[pair] += texts[text]
        for pair in found:
            del pairs[pair]
        if not pairs:
            break
        left, right = min(pairs, key=lambda pair: (-pairs[pair], ids[pair[0]], ids[pair[1]]))
        found.append((left, right))
        ids.setdefault(left + right, len(ids))
        for cut in cuts.values():
            place = 0
            while place + 1 < len(cut):
                if cut[place] == left and cut[place + 1] == right:
                    cut[place : place + 2] = [left + right]
                place += 1
    return found


@settings(max_examples=200, deadline=None)
@given(texts=st.dictionaries(st.text("abc", min_size=1, max_size=14), st.integers(1, 9), min_size=1, max_size=8))
def test_merges_are_textbook_bpe(texts: dict[str, int]) -> None:
    merged = merge(sequences(list(texts), [[count] for count in texts.values()]), LETTERS, (), Rules(14))
    spelled = [(merged.tokens[left].decode(), merged.tokens[right].decode()) for left, right, _ in merged.merges]
    wanted = simple_merges(Counter(texts), 14)
    if len({left + right for left, right in wanted}) == len(wanted):  # else a token has two cuts: see the module
        assert spelled == wanted


@pytest.mark.parametrize("slice_merges", [1, 7, 512])
def test_merges_are_the_librarys_in_order(slice_merges: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merging, "SLICE_MERGES", slice_merges)
    texts = [row["text"] for row in corpus()]
    assert train(lambda: texts, 600, 0.0, 2).merges == peer_merges(texts, 600)


def test_merges_of_real_documents_are_the_librarys_in_order(data_root: Path) -> None:
    table = pq.read_table(data_root / "html_gold.parquet", columns=["text"]).slice(0, 400)
    texts = [nfc(text) for text in table["text"].to_pylist()]
    for minimum_count in (1, 5):
        ours = train(lambda: texts, 6000, 0.0, minimum_count)
        theirs = peer_merges(texts, 6000, minimum_count)
        assert ours.merges == theirs
        assert ours.complete == (len(ours.tokens) == 6000)


def test_every_word_is_left_as_the_library_encodes_it() -> None:
    rows = corpus(40)
    runs = list(count_texts(Group("en", ""), (row["text"].encode() for row in rows)))
    words = count_words(lambda: iter(runs))
    merge(words.sequences, alphabet(), (), Rules(500))
    tokenizer = build(train(lambda: [row["text"] for row in rows], 500, 0.0, 1), WORD)
    bounds, data = words.table.bounds, words.table.items
    for word in range(words.table.size):
        text = data[bounds[word] : bounds[word + 1]].tobytes().decode()
        assert words.sequences.of(word).tolist() == tokenizer.encode(text).ids


@settings(max_examples=100, deadline=None)
@given(
    texts=st.dictionaries(st.text("abc", min_size=1, max_size=9), st.integers(1, 9), min_size=2, max_size=8),
    cut=st.integers(0, 9),
)
def test_replayed_merges_go_on_as_if_never_stopped(texts: dict[str, int], cut: int) -> None:
    def fresh() -> Sequences:
        return sequences(list(texts), [[count] for count in texts.values()])

    whole = merge(fresh(), LETTERS, (), Rules(12))
    inherited = whole.merges[:cut]
    known = max([len(LETTERS) - 1, *(result for _, _, result in inherited)]) + 1
    resumed = merge(fresh(), whole.tokens[:known], inherited, Rules(12))
    assert resumed.merges == whole.merges
    assert resumed.counts == whole.counts
    assert resumed.tokens == whole.tokens


def test_counts_are_64_bits() -> None:
    merged = merge(sequences(["ab", "cab"], [[2**40], [2**41]]), LETTERS, (), Rules(6))
    assert merged.counts[:2] == [2**40 + 2**41, 2**41]


def test_quotas_take_the_class_with_most_weight_and_are_exact() -> None:
    texts = ["a b", "b c", "c a", "a c"]
    weights = [[9, 1, 0], [8, 0, 1], [1, 5, 4], [7, 0, 0]]
    rules = Rules(64, classes=(0, 1, 1), quotas=(1, 9), minimum_words=2)
    merged = merge(sequences(texts, weights), [*LETTERS, b" a", b" b", b" c"], ((3, 0, 4), (3, 1, 5), (3, 2, 6)), rules)
    assert merged_tokens(merged, 7) == ["a b", "c a"]
    assert merged.by_class == (1, 1)
    assert merged.by_column == (1, 1, 0)
    assert not merged.complete


def test_superwords_are_whole_characters_of_two_to_so_many_words() -> None:
    tokens = [b"", b" \xea\xb0", b"\x80", b" x", "\uac00".encode(), b" y"]
    starts, lengths = np.array([0, 3, 5], np.int64), np.array([3, 2, 3], np.int32)
    weights = np.array([[5], [9], [7]], np.int64)
    ids = np.array([4, 3, 5, 2, 3, 4, 1, 2], np.int32)
    merged = merge(Sequences(ids, starts, lengths, weights), tokens, (), Rules(9, minimum_words=2, maximum_words=2))
    assert merged.tokens[6:] == [b" x y"]


@pytest.mark.parametrize(
    ("token", "traits"),
    [
        (b"", (0, 0, 0, 0, 0)),
        (b" ", (0, 0, 0, 1, 1)),
        (b" of the", (2, 0, 0, 1, 0)),
        ("다 ".encode(), (1, 0, 0, 0, 1)),
        (b"\x80\xeb\x8b", (1, 1, 1, 0, 0)),
    ],
)
def test_traits_of_tokens(token: bytes, traits: tuple[int, ...]) -> None:
    assert token_traits(token) == traits


@settings(max_examples=100, deadline=None)
@given(text=st.text(min_size=1, max_size=3), cut=st.integers(1, 3))
def test_a_cut_character_is_known(text: str, cut: int) -> None:
    data = text.encode()
    short = data[: max(1, len(data) - cut)]
    try:
        short.decode()
        whole = True
    except UnicodeDecodeError:
        whole = False
    assert ends_inside(short) != whole


@pytest.mark.parametrize("most_positions", [3000, 300])
def test_cutting_rare_phrases_early_changes_nothing(most_positions: int) -> None:
    rows = corpus(80)
    groups = {language: [row for row in rows if row["lang"] == language] for language in ("en", "ko", "es")}
    runs = [
        run
        for language, own in groups.items()
        for run in count_texts(Group(language, ""), (row["text"].encode() for row in own))
    ]
    ratios = {"en": 2, "ko": 3, "multilingual": 1}
    whole = train_runs(lambda: iter(runs), Plan(600, 60, ratios=ratios))
    assert whole.complete
    dice = random.Random(1)
    dice.shuffle(runs)
    assert train_runs(lambda: iter(runs), Plan(600, 60, ratios=ratios, most_positions=most_positions)) == whole


@settings(max_examples=100, deadline=None)
@given(total=st.integers(0, 10**6), ratios=st.lists(st.integers(0, 9), min_size=1, max_size=5).filter(any))
def test_parts_are_exact_and_fair(total: int, ratios: list[int]) -> None:
    found = parts(total, ratios)
    assert sum(found) == total
    assert all(abs(part - total * ratio / sum(ratios)) < 1 for part, ratio in zip(found, ratios, strict=True))


def test_the_reports_quotas() -> None:
    ratios = {"en": 2, "ko": 3, "multilingual": 1}
    assert quotas(30_720, ratios) == {"en": 10_240, "ko": 15_360, "multilingual": 5_120}
    reached = {"en": 10_240, "ko": 100, "multilingual": 5_120}
    assert refilled(quotas(30_720, ratios), reached) == {"en": 20_413, "ko": 100, "multilingual": 10_207}
    assert refilled({"en": 1, "ko": 1, "multilingual": 0}, {"en": 0, "ko": 0, "multilingual": 0}) is None


def test_sizes_that_kernels_rely_on() -> None:
    assert NEIGHBOUR_SLOTS & (NEIGHBOUR_SLOTS - 1) == 0
    assert all(not token for token in alphabet()[:RESERVED_IDS])
