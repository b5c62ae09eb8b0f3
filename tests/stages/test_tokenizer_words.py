"""Adding up the runs out of core: the same words and tokenizer for runs and parts of any size; the limit of memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import regex
from pydantic import ValidationError
from tokenizer_run import TokenizerRun, corpus

from pipeline.core.errors import ConfigError
from stages.tokenizer import counts, words
from stages.tokenizer.counts import Group, Run, count_texts, read_run, run_files
from stages.tokenizer.patterns import WORD
from stages.tokenizer.superbpe import Plan, train_runs
from stages.tokenizer.tables import SequenceTable
from stages.tokenizer.train import TokenizerConfig, TrainTokenizerConfig
from stages.tokenizer.words import RARE, Words, count_words

TEXTS = [
    "the water in the river rises when the snow melts\n",
    "강물은 봄에 가장 높고 산의 눈은 봄에 녹는다\n",
    "the old bridge, the water, the river\n",
]
CONFIG = TokenizerConfig(train=TrainTokenizerConfig(vocabulary=600, superword_share=0.1))


def runs_of(texts: list[str] = TEXTS) -> list[Run]:
    return [run for text in texts for run in count_texts(Group("en", ""), [text.encode()])]


def spelled(found: Words) -> Counter[str]:
    bounds, data = found.table.bounds, found.table.items
    names = [data[bounds[n] : bounds[n + 1]].tobytes().decode() for n in range(found.table.size)]
    assert len(set(names)) == len(names)
    return Counter(dict(zip(names, found.sequences.weights[:, 0].tolist(), strict=True)))


@pytest.mark.parametrize("part_bytes", [10**6, 50, 7])
@pytest.mark.parametrize("minimum_count", [1, 2, 3])
def test_words_areadded_up_over_runs_in_parts_of_any_size(
    part_bytes: int, minimum_count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(words, "PART_WORD_BYTES", part_bytes)
    runs = runs_of()
    every = Counter(word for text in TEXTS for word in regex.findall(WORD, text))
    found = count_words(lambda: iter(runs), minimum_count)
    assert spelled(found) == {word: count for word, count in every.items() if count >= minimum_count}
    weighed = count_words(lambda: iter(runs), minimum_count, lambda group: 5)
    assert spelled(weighed) == {word: 5 * count for word, count in spelled(found).items()}
    hangul = {word for word, holds in zip(spelled(found), found.hangul.tolist(), strict=True) if holds}
    assert hangul == {word for word in spelled(found) if regex.search(r"\p{Hangul}", word)}


def test_spilling_early_and_often_gives_the_same_tokenizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = TokenizerRun(tmp_path / "whole", [corpus()], CONFIG).make()
    monkeypatch.setattr(counts, "BATCH_BYTES", 300)
    monkeypatch.setattr(counts, "RUN_WORDS", 15)
    monkeypatch.setattr(counts, "RUN_PHRASE_WORDS", 60)
    monkeypatch.setattr(words, "PART_WORD_BYTES", 40)
    spilled = TokenizerRun(tmp_path / "spilled", [corpus()[:90], corpus()[90:]], CONFIG).make()
    files = run_files(spilled.folder("tokenizer.count"))
    assert len(files) > 50
    assert max(read_run(file).word_counts.size for file in files) < 120
    assert spilled.file.read_bytes() == whole.file.read_bytes()


def test_words_beyond_memory_are_an_error_that_names_the_count_that_fits() -> None:
    runs = runs_of()
    with pytest.raises(ConfigError, match=r"111 bytes of distinct words do not fit into memory, where 40 do") as caught:
        count_words(lambda: iter(runs), most_bytes=40)
    least = int(regex.search(r"set `minimum_word_count: (\d+)`", str(caught.value))[1])
    assert sum(len(word.encode()) for word in spelled(count_words(lambda: iter(runs), least, most_bytes=40))) <= 40
    with pytest.raises(ConfigError, match="do not fit"):
        count_words(lambda: iter(runs), least - 1, most_bytes=40)
    with pytest.raises(ConfigError, match="a smaller `maximum_bytes`"):
        count_words(lambda: iter(runs), most_bytes=-1)


def test_rare_words_are_left_out_of_words_and_phrases() -> None:
    often = ["the water rises\n"] * 5
    rare = ["the zebra rises\n", "the water zebra rises\n"]
    runs = runs_of(often + rare)
    trained = train_runs(lambda: iter(runs), Plan(345, 4, minimum_word_count=3))
    expected = [*often, "the\n", " rises\n", "the water\n", " rises\n"]
    # What stands around a word that is left out stands alone; line ends are counted as they were.
    alone = [run for text in expected for run in count_texts(Group("en", ""), [text.encode()])]
    kept = train_runs(lambda: iter(alone), Plan(345, 4))
    assert trained.tokens == kept.tokens
    assert not any("z" in token and len(token) > 1 for token in trained.tokens[320:])


def test_the_least_count_of_words_is_identity() -> None:
    plain, fewer = (
        TokenizerConfig(train=TrainTokenizerConfig(minimum_word_count=least)).identity() for least in (1, 2)
    )
    assert plain != fewer
    with pytest.raises(ValidationError):
        TrainTokenizerConfig(minimum_word_count=RARE + 1)


def test_parts_bound_what_isadded_up_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "PART_WORD_BYTES", 20)
    sizes: list[int] = []
    added_up: Callable[..., SequenceTable] = words.added_up

    def noted(*arguments: object) -> SequenceTable:
        table = added_up(*arguments)
        sizes.append(len(table.items))
        return table

    monkeypatch.setattr(words, "added_up", noted)
    runs = runs_of()
    total = sum(len(word.encode()) for word in spelled(count_words(lambda: iter(runs))))
    assert len(sizes) > 5
    assert sum(sizes) == total
    assert max(sizes) < total / 3
