"""Going on from an older vocabulary: what is kept, what goes, exact sizes, and the commands."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from tokenizer_run import TokenizerRun, corpus
from tokenizers import Tokenizer as Plain
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from pipeline.core.errors import ConfigError, InputError
from pipeline.core.tokenizer import Tokenizer
from stages.tokenizer.counts import Group, Run, count_texts
from stages.tokenizer.retain import WEIGHT_SCALE, group_weights, producible, read_older, retain
from stages.tokenizer.spelling import SMALLEST, unspell
from stages.tokenizer.train import ExtendTokenizerConfig, TokenizerConfig

OLDER, NEWER, SUPERWORDS = 460, 560, 60


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vocabulary in the older style: NFKC, several digits in a token, trained on English and German."""
    tokenizer = Plain(models.BPE())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=OLDER,
        show_progress=False,
        special_tokens=["<old>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    texts = [row["text"] for row in corpus(80, ("en", "de"))]
    numbers = ["1999 2000 2024 1999 2000 ...\n\n ...\n\n"] * 40
    tokenizer.train_from_iterator([*texts, *numbers], trainer)
    path = tmp_path_factory.mktemp("older") / "tokenizer.json"
    tokenizer.save(str(path))
    return path


def runs_of(languages: tuple[str, ...] = ("en", "ko", "es"), count: int = 60) -> list[Run]:
    rows = corpus(count, languages)
    return [
        run
        for language in languages
        for run in count_texts(Group(language, ""), (row["text"].encode() for row in rows if row["lang"] == language))
    ]


def extended(older: Path, **options: object) -> TokenizerConfig:
    share = {"vocabulary": NEWER, "superword_share": SUPERWORDS / NEWER, "from": str(older)}
    return TokenizerConfig(extend=ExtendTokenizerConfig(**{**share, **options}))


@pytest.mark.parametrize(
    ("token", "possible"),
    [
        (b" the", True),
        (b"ing", True),
        (b"12", False),
        (b"\n\n", True),
        (b",\n", True),
        (b",\n\n", False),
        (b" of the", False),
        (b"a ", False),
        ("강".encode()[:2], True),
        ("다강".encode()[1:-1], True),
        ("e\u0301".encode(), False),
        (b"\xff\xfe", False),
    ],
)
def test_tokens_that_words_can_still_give(token: bytes, possible: bool) -> None:
    assert producible([b"x", token, b"y"]) == [True, possible, True]


def test_the_most_used_tokens_stay_and_are_closed_under_merges(older: Path) -> None:
    runs = runs_of()
    kept = retain(older, lambda: iter(runs), 0.65, {})
    facts = kept.facts
    assert facts["older_tokens"] == OLDER - 1
    assert facts["older_tokens_kept"] == round(0.65 * facts["older_tokens"])
    assert facts["older_tokens_used"] <= facts["older_tokens_possible"] < facts["older_tokens"]
    tokens = kept.start.tokens
    assert len(set(tokens[64:])) == len(tokens) - 64
    for number, token in enumerate(tokens[SMALLEST:], start=SMALLEST):
        made = [(left, right) for left, right, result in kept.start.merges if result == number]
        assert made
        assert all(tokens[left] + tokens[right] == token for left, right in made)
        assert all(max(pair) < number for pair in made)
    assert not any(part in token for token in tokens for part in (b"19", b"20", b"\n\n "))
    everything = retain(older, lambda: iter(runs), 1.0, {})
    assert everything.facts["older_tokens_kept"] == everything.facts["older_tokens_used"]
    assert set(tokens) <= set(everything.start.tokens)


def test_usage_is_counted_over_the_text(older: Path) -> None:
    english, german = (retain(older, lambda one=one: iter(runs_of((one,))), 1.0, {}) for one in ("en", "de"))
    assert b" mountains" in english.start.tokens
    assert b" mountains" not in german.start.tokens
    assert b" steigt" in german.start.tokens


def test_groups_weigh_by_the_root_of_their_size() -> None:
    runs = runs_of(("en", "ko"))
    sizes = {run.group: sum(map(len, words_of(run))) for run in runs}
    weights = group_weights(lambda: iter(runs), {})
    for group, weight in weights.items():
        assert weight * sizes[group] / WEIGHT_SCALE == pytest.approx(sizes[group] ** 0.5, rel=0.02)
    doubled = group_weights(lambda: iter(runs), {"ko": 2, "en": 0})
    assert doubled == {Group("en", ""): 0, Group("ko", ""): pytest.approx(2 * weights[Group("ko", "")], abs=1)}
    with pytest.raises(ConfigError, match="did you mean `ko`"):
        group_weights(lambda: iter(runs), {"kp": 2})


def words_of(run: Run) -> list[bytes]:
    bounds = run.word_bounds
    return [
        run.word_bytes[bounds[n] : bounds[n + 1]].tobytes()
        for n, count in enumerate(run.word_counts.tolist())
        for _ in range(count)
    ]


def test_the_extended_vocabulary_has_its_exact_size_and_begins_with_what_is_kept(older: Path, tmp_path: Path) -> None:
    run = TokenizerRun(tmp_path, [corpus()], extended(older)).make()
    facts = run.facts
    assert facts["vocabulary"] == NEWER
    assert facts["superwords_by_class"] == {"en": 20, "ko": 30, "multilingual": 10}
    assert facts["older_tokens_kept"] == min(round(0.7 * (OLDER - 1)), facts["older_tokens_used"])
    tokenizer = Tokenizer.load(run.folder())
    assert tokenizer.vocabulary_size == NEWER
    old = {unspell(token) for token in json.loads(older.read_text())["model"]["vocab"] if token != "<old>"}
    model = json.loads(run.file.read_text(encoding="utf-8"))["model"]["vocab"]
    spelled = sorted((token for token, number in model.items() if number >= 64), key=model.__getitem__)
    kept = facts["older_tokens_kept"]
    assert {unspell(token) for token in spelled[:kept]} <= old
    text = "the river rises 강물은 봄에 가장 높고 12\n"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    for number in range(SMALLEST, NEWER):
        if "\ufffd" not in (token := tokenizer.token(number)):
            assert tokenizer.encode(token) == [number], token


def test_extending_does_not_depend_on_shards(older: Path, tmp_path: Path) -> None:
    rows = corpus()
    one = TokenizerRun(tmp_path / "one", [rows], extended(older)).make()
    other = TokenizerRun(tmp_path / "other", [rows[1::2], rows[::2]], extended(older)).make()
    assert one.file.read_bytes() == other.file.read_bytes()


def test_more_kept_than_fits_names_the_share_that_does(older: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="set `keep` to at most 0") as caught:
        TokenizerRun(tmp_path, [corpus()], extended(older, vocabulary=400, keep=1.0)).make()
    share = float(str(caught.value).rsplit("most ", 1)[1])
    assert 0 < share < 1


def test_other_kinds_of_tokenizers_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text("{}")
    with pytest.raises(InputError, match="not a BPE tokenizer.json"):
        read_older(path)
    Plain(models.BPE(vocab={"▁a": 0, "b": 1, "▁ab": 2}, merges=[("▁a", "b")])).save(str(path))
    with pytest.raises(InputError, match="not byte-level BPE"):
        read_older(path)


@pytest.mark.slow
def test_the_commands_train_and_extend(tmp_path: Path, command_line: Callable[..., CompletedProcess[str]]) -> None:
    store = ("--set", f"store={tmp_path}/store")
    done = command_line("tokenizer", "train", "tests/golden.yaml", "--json", *store)
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert made["vocabulary"] == 1024
    done = command_line("tokenizer", "extend", made["path"], "tests/golden.yaml", "--json", *store)
    assert done.returncode == 0, done.stderr
    wider = json.loads(done.stdout)
    assert wider["vocabulary"] == 1024
    assert wider["older_tokens_kept"] == round(0.7 * 960)
    assert wider["path"] != made["path"]
    wrong = command_line("tokenizer", "extend", "nowhere.json", "tests/golden.yaml", *store)
    assert wrong.returncode == 2
    assert "no such tokenizer" in wrong.stderr
