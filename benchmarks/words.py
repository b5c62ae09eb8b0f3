"""Splitting text into words, language by language: ours for signals and ours for shingles, against datatrove's.

Contract: the same documents of one language on both sides. What a word is differs, so nothing is equal; the quality is
words a thousand characters, which thresholds depend on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from benchmarks.datatrove_peer import CODES, WORD_PACKAGES, silence
from benchmarks.inputs import LANGUAGES, Corpus, documents
from benchmarks.measure import interleaved
from benchmarks.peers import against
from benchmarks.result import Comparison, Found, Spread
from benchmarks.settings import Settings, SizeName
from stages.dedup.segment import segment, tables
from stages.words import segmenter

NAME = "words"
PEER = "datatrove word tokenizer"


@dataclass(frozen=True)
class Load:
    bytes_of_language: int
    rounds: int


LOADS: dict[SizeName, Load] = {"full": Load(200_000, 3), "quick": Load(5_000, 1)}


def run(settings: Settings) -> Iterator[Found]:
    """Both segmenters against datatrove's, for each language whose packages are installed."""
    load = LOADS[settings.size]
    corpus = documents(load.bytes_of_language)
    for language in LANGUAGES:
        part = corpus.of(language)
        ours = {"for signals": _words(language), "for shingles": _tokens}
        for what, count in ours.items():
            yield from against(
                f"{PEER} ({language})",
                ("datatrove", *WORD_PACKAGES[language]),
                lambda part=part, language=language, what=what, count=count: _compared(
                    part, language, what, count, load
                ),
            )


def _compared(part: Corpus, language: str, what: str, count: Callable[[str], int], load: Load) -> Comparison:
    from datatrove.utils.word_tokenizers import load_word_tokenizer

    silence()
    tokenizer = load_word_tokenizer(CODES[language])
    found: dict[str, int] = {}

    def ours() -> None:
        found["ours"] = sum(count(text) for text in part.texts)

    def theirs() -> None:
        found["peer"] = sum(len(tokenizer.word_tokenize(text)) for text in part.texts)

    seconds = interleaved([ours, theirs], load.rounds)
    thousands = sum(map(len, part.texts)) / 1000
    return Comparison(
        NAME,
        f"{language}, {what}",
        "MB/s",
        Spread.rate(part.megabytes, seconds[0]),
        Spread.rate(part.megabytes, seconds[1]),
        PEER,
        part.label,
        quality_ours=found["ours"] / thousands,
        quality_peer=found["peer"] / thousands,
        quality="words a thousand characters",
    )


def _words(language: str) -> Callable[[str], int]:
    split = segmenter("seodang", language)
    return lambda text: len(split(text))


def _tokens(text: str) -> int:
    known = tables()
    data = np.frombuffer(text.encode("utf-8"), np.uint8)
    return segment(data, 0, data.shape[0], known.kind, known.fold)[0].shape[0]
