"""Splitting text into words, language by language: ours for signals and ours for shingles, against datatrove's.

Contract: the same documents of one language on both sides; ours as the stages call it, a column of texts at once, over
their UTF-8 bytes. What a word is differs, so nothing is equal; the quality is words a thousand characters, which
thresholds depend on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numba import njit

from benchmarks.datatrove_peer import CODES, WORD_PACKAGES, silence
from benchmarks.inputs import LANGUAGES, Corpus, documents
from benchmarks.measure import interleaved
from benchmarks.peers import against
from benchmarks.result import Comparison, Found, Spread
from benchmarks.settings import Settings, SizeName
from stages.dedup.segment import segment, tables
from stages.dedup.signatures import text_buffers
from stages.words import split

NAME = "words"
PEER = "datatrove word tokenizer"
REPEATS = 10


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
        ours = {"for signals": _words, "for shingles": _tokens}
        for what, count in ours.items():
            yield from against(
                f"{PEER} ({language})",
                ("datatrove", *WORD_PACKAGES[language]),
                lambda part=part, language=language, what=what, count=count: _compared(
                    part, language, what, count, load
                ),
            )


def _compared(
    part: Corpus, language: str, what: str, count: Callable[[np.ndarray, np.ndarray, str], int], load: Load
) -> Comparison:
    from datatrove.utils.word_tokenizers import load_word_tokenizer

    silence()
    tokenizer = load_word_tokenizer(CODES[language])
    data, offsets = text_buffers(pa.array(part.texts, pa.large_string()))
    found: dict[str, int] = {}

    def ours() -> None:
        for _ in range(REPEATS):  # a column of these sizes takes too short to be timed
            found["ours"] = count(data, offsets, language)

    def theirs() -> None:
        found["peer"] = sum(len(tokenizer.word_tokenize(text)) for text in part.texts)

    seconds = interleaved([ours, theirs], load.rounds)
    thousands = sum(map(len, part.texts)) / 1000
    return Comparison(
        NAME,
        f"{language}, {what}",
        "MB/s",
        Spread.rate(part.megabytes * REPEATS, seconds[0]),
        Spread.rate(part.megabytes, seconds[1]),
        PEER,
        part.label,
        quality_ours=found["ours"] / thousands,
        quality_peer=found["peer"] / thousands,
        quality="words a thousand characters",
    )


def _words(data: np.ndarray, offsets: np.ndarray, language: str) -> int:
    return split("seodang", data, offsets, [language] * (offsets.shape[0] - 1)).starts.shape[0]


def _tokens(data: np.ndarray, offsets: np.ndarray, language: str) -> int:
    del language
    known = tables()
    return _count_tokens(data, offsets, known.kind, known.fold)


@njit(cache=True)
def _count_tokens(data: np.ndarray, offsets: np.ndarray, kinds: np.ndarray, folds: np.ndarray) -> int:
    count = 0
    for row in range(offsets.shape[0] - 1):
        count += segment(data, offsets[row], offsets[row + 1], kinds, folds)[0].shape[0]
    return count
