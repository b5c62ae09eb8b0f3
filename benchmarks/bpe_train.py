"""Stage 1 of tokenizer training, word-level BPE: ours against the trainer of `tokenizers` with the same pattern.

Contract: the same texts (six languages, code, STEM), pattern, vocabulary and least count; each side's time holds
everything from texts to merges: cutting, counting, merging. `equal` means the same merges in the same order.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

from benchmarks.bpe_corpus import label, mixed_texts
from benchmarks.measure import Side, interleaved, peak_memory
from benchmarks.result import Comparison, Found, Spread
from benchmarks.settings import Settings, SizeName
from pipeline.core.chat import SPECIAL_TOKENS
from stages.tokenizer.patterns import WORD
from stages.tokenizer.superbpe import train

NAME = "bpe-train"
MINIMUM_COUNT = 2
PEER = "tokenizers BpeTrainer"


@dataclass(frozen=True)
class Load:
    bytes_of_language: int
    vocabulary: int
    rounds: int


LOADS: dict[SizeName, Load] = {"full": Load(10_000_000, 32_768, 2), "quick": Load(20_000, 1024, 1)}


def run(settings: Settings) -> Iterator[Found]:
    """Time, then memory."""
    load = LOADS[settings.size]
    documents = mixed_texts(load.bytes_of_language)
    texts = tuple(one.text for one in documents)
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    merges: dict[str, list[tuple[str, ...]]] = {}

    def ours() -> None:
        merges["ours"] = [*train(lambda: texts, load.vocabulary, 0.0, MINIMUM_COUNT).merges]

    def theirs() -> None:
        merges["peer"] = their_merges(texts, load.vocabulary)

    what = f"vocabulary {load.vocabulary:,}, word pattern"
    seconds = interleaved([ours, theirs], load.rounds)
    rates = [Spread.rate(megabytes, one) for one in seconds]
    equal = merges["ours"] == merges["peer"]
    yield Comparison(NAME, what, "MB/s", *rates, PEER, label(documents), equal=equal)
    memory = [peak_memory(side, load.bytes_of_language, load.vocabulary) for side in (our_memory, their_memory)]
    yield Comparison(NAME, f"{what}, peak above the texts", "MiB", *memory, PEER, label(documents), equal=equal)


def our_memory(bytes_of_language: int, vocabulary: int) -> Callable[[], Side]:
    """For `peak_memory`; compiled code is loaded before."""
    train(lambda: ["a b c a b c"], 330, 0.0, MINIMUM_COUNT)
    return lambda: _trained(bytes_of_language, lambda texts: train(lambda: texts, vocabulary, 0.0, MINIMUM_COUNT))


def their_memory(bytes_of_language: int, vocabulary: int) -> Callable[[], Side]:
    """For `peak_memory`."""
    return lambda: _trained(bytes_of_language, lambda texts: their_merges(texts, vocabulary))


def _trained(bytes_of_language: int, trained: Callable[[Sequence[str]], object]) -> Side:
    texts = tuple(one.text for one in mixed_texts(bytes_of_language))
    return lambda: trained(texts)


def their_merges(texts: Sequence[str], vocabulary: int) -> list[tuple[str, ...]]:
    """Of the library's trainer."""
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
