"""Text to MinHash signatures of 112 values over word 5-grams: ours against three libraries.

Contract: the same documents on both sides, each side with its own words: datatrove with its English tokenizer (English
documents only), datasketch and rensa with words split at what is no letter or digit, the cheapest reasonable choice.
The signatures are not the same numbers; the quality is the mean absolute error of the similarities that they estimate,
against the exact similarity of the side's own shingles, over neighbouring documents joined with half of the next.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import regex

from benchmarks.datatrove_peer import datatrove_documents, silence
from benchmarks.inputs import Corpus, documents
from benchmarks.measure import Side, interleaved
from benchmarks.peers import against, peer
from benchmarks.result import Comparison, Found, Spread
from benchmarks.settings import Settings, SizeName
from stages.dedup.methods import MinhashConfig
from stages.dedup.signatures import shingles, signatures

NAME = "minhash"
BANDS, ROWS, SHINGLE = MinhashConfig().bands, MinhashConfig().rows, MinhashConfig().shingle
VALUES = BANDS * ROWS  # 112, as many as datatrove's default
PAIRS = 40
WORD = regex.compile(r"[\p{L}\p{N}\p{M}]+")
SEED = 1


@dataclass(frozen=True)
class Load:
    bytes_of_language: int
    rounds: int


LOADS: dict[SizeName, Load] = {"full": Load(500_000, 3), "quick": Load(20_000, 1)}


def run(settings: Settings) -> Iterator[Found]:
    """Against datatrove in English, datasketch and rensa in all languages."""
    load = LOADS[settings.size]
    corpus = documents(load.bytes_of_language)
    english = corpus.of("en")
    needed = ("datatrove", "spacy", "xxhash")
    yield from against("datatrove MinhashDedupSignature", needed, lambda: _against_datatrove(english, load))
    yield from against("datasketch", ("datasketch",), lambda: _compared(corpus, load, "datasketch", _datasketch))
    yield from against("rensa", ("rensa",), lambda: _compared(corpus, load, "rensa RMinHash", _rensa))


def word_shingles(text: str) -> list[str]:
    """Word 5-grams as strings; a shorter text is one shingle."""
    words = WORD.findall(text.lower())
    return [" ".join(words[at : at + SHINGLE]) for at in range(max(1, len(words) - SHINGLE + 1))]


def _against_datatrove(corpus: Corpus, load: Load) -> Comparison:
    from datatrove.pipeline.dedup import MinhashDedupSignature

    silence()
    given = datatrove_documents(corpus)

    def sign_all() -> None:
        with tempfile.TemporaryDirectory() as folder:
            MinhashDedupSignature(folder).run(iter(given))

    seconds = interleaved([_ours(corpus), sign_all], load.rounds)
    ours, theirs = (Spread.rate(corpus.megabytes, found) for found in seconds)
    return Comparison(
        NAME,
        f"{VALUES} values, 5-grams",
        "MB/s",
        ours,
        theirs,
        "datatrove MinhashDedupSignature (spaCy words)",
        corpus.label,
    )


def _compared(
    corpus: Corpus,
    load: Load,
    peer_name: str,
    sign: Callable[[Sequence[str]], np.ndarray],
) -> Comparison:
    seconds = interleaved([_ours(corpus), lambda: sign(corpus.texts)], load.rounds)
    ours, theirs = (Spread.rate(corpus.megabytes, found) for found in seconds)
    left, right = _pairs(corpus.texts)
    exact_ours = _similarities(left, right, lambda text: set(shingles(text, SHINGLE).tolist()))
    exact_peer = _similarities(left, right, lambda text: set(word_shingles(text)))
    return Comparison(
        NAME,
        f"{VALUES} values, 5-grams",
        "MB/s",
        ours,
        theirs,
        peer_name,
        corpus.label,
        quality_ours=_error(_estimate(np.stack([_sign(left), _sign(right)])), exact_ours),
        quality_peer=_error(_estimate(np.stack([sign(left), sign(right)])), exact_peer),
        quality="error of similarity",
    )


def _ours(corpus: Corpus) -> Side:
    column = pa.array(corpus.texts, pa.large_string())
    return lambda: signatures(column, SHINGLE, VALUES)


def _sign(texts: Sequence[str]) -> np.ndarray:
    return signatures(pa.array(texts, pa.large_string()), SHINGLE, VALUES)


def _datasketch(texts: Sequence[str]) -> np.ndarray:
    from datasketch import MinHash

    batches = [[shingle.encode("utf-8") for shingle in word_shingles(text)] for text in texts]
    return np.array([sketch.digest() for sketch in MinHash.bulk(batches, num_perm=VALUES, seed=SEED)])


def _rensa(texts: Sequence[str]) -> np.ndarray:
    sketches: list[Any] = peer("rensa").RMinHash.from_token_sets([word_shingles(text) for text in texts], VALUES, SEED)
    return np.array([sketch.digest() for sketch in sketches])


def _estimate(values: np.ndarray) -> np.ndarray:
    """[pairs] share of equal values of [2, pairs, values]."""
    return (values[0] == values[1]).mean(axis=1)


def _pairs(texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """Documents, and each with half of the next appended."""
    left = list(texts[:PAIRS])
    right = [f"{text}\n{other[: len(other) // 2]}" for text, other in zip(left, texts[1 : PAIRS + 1], strict=False)]
    return left[: len(right)], right


def _similarities(left: Sequence[str], right: Sequence[str], shingles_of: Callable[[str], set[Any]]) -> list[float]:
    """Exact Jaccard similarity of each pair."""
    sets = [(shingles_of(a), shingles_of(b)) for a, b in zip(left, right, strict=True)]
    return [len(a & b) / len(a | b) for a, b in sets]


def _error(estimated: np.ndarray, exact: Sequence[float]) -> float:
    return float(np.abs(estimated - np.array(exact)).mean())
