"""Stage 1 of tokenizer training, word-level BPE: ours against the trainer of `tokenizers` with the same pattern.

Contract: the same texts, pattern, vocabulary and least count; `equal` means the same merges in the same order.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

from benchmarks.inputs import documents
from benchmarks.measure import interleaved
from benchmarks.result import Comparison, Found, Spread
from benchmarks.settings import Settings, SizeName
from pipeline.core.chat import SPECIAL_TOKENS
from stages.tokenizer.patterns import WORD
from stages.tokenizer.superbpe import train

NAME = "bpe-train"
MINIMUM_COUNT = 2


@dataclass(frozen=True)
class Load:
    bytes_of_language: int
    vocabulary: int
    rounds: int


LOADS: dict[SizeName, Load] = {"full": Load(1_500_000, 32_768, 2), "quick": Load(20_000, 1024, 1)}


def run(settings: Settings) -> Iterator[Found]:
    """One comparison."""
    load = LOADS[settings.size]
    corpus = documents(load.bytes_of_language)
    merges: dict[str, list[tuple[str, ...]]] = {}

    def ours() -> None:
        merges["ours"] = [*train(lambda: corpus.texts, load.vocabulary, 0.0, MINIMUM_COUNT).merges]

    def theirs() -> None:
        merges["peer"] = _their_merges(corpus.texts, load.vocabulary)

    seconds = interleaved([ours, theirs], load.rounds)
    yield Comparison(
        NAME,
        f"vocabulary {load.vocabulary:,}, word pattern",
        "MB/s",
        Spread.rate(corpus.megabytes, seconds[0]),
        Spread.rate(corpus.megabytes, seconds[1]),
        "tokenizers BpeTrainer",
        corpus.label,
        equal=merges["ours"] == merges["peer"],
    )


def _their_merges(texts: tuple[str, ...], vocabulary: int) -> list[tuple[str, ...]]:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORD), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=MINIMUM_COUNT,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]
