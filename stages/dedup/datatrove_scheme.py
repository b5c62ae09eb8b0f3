"""MinHash values as datatrove 0.10 computes them, so that buckets made by either can be compared.

Contract: equal to `datatrove.pipeline.dedup.MinhashDedupSignature` under its default configuration (xxhash64
shingles of its own words after its own normalisation, (h * a + b mod 2^64) mod (2^61 - 1), parameters of
`numpy.random.RandomState(1)`) for every text of at least `shingle` words. A shorter text, of which datatrove makes no
signature, is one shingle here. Its normalisation strips marks off Hangul, kana and Vietnamese: not for new work. Cost:
datatrove's words and normalisation, 0.2 to 0.7 MB/s.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pyarrow as pa
import xxhash
from numba import njit

from stages.dedup.methods import MinhashKeys
from stages.words import segmenter

MERSENNE = (1 << 61) - 1
SEED = 1  # datatrove's default


def datatrove_signatures(
    texts: pa.Array | pa.ChunkedArray, langs: Sequence[str | None], config: MinhashKeys
) -> np.ndarray:
    """[documents, bands * rows] uint64; words are those of each document's language, English where it is not known."""
    factors, addends = permutations(config.bands * config.rows)
    out = np.empty((len(langs), config.bands * config.rows), np.uint64)
    for row, (text, lang) in enumerate(zip(texts, langs, strict=True)):
        _permute(datatrove_shingles(text.as_py(), lang, config.shingle), factors, addends, out[row])
    return out


def datatrove_shingles(text: str, lang: str | None, shingle: int) -> np.ndarray:
    """[shingles] uint64 of one text; a text of fewer words is one shingle."""
    from datatrove.utils.text import TextNormConfig, ngrams, simplify_text

    words = segmenter("datatrove", lang or "en")(simplify_text(text, TextNormConfig()))
    grams = [" ".join(gram) for gram in ngrams(words, shingle)] or [" ".join(words)]
    return np.array([xxhash.xxh64_intdigest(gram.encode("utf-8")) for gram in grams], np.uint64)


@lru_cache(maxsize=4)
def permutations(count: int) -> tuple[np.ndarray, np.ndarray]:
    """([count] uint64 factors, [count] uint64 addends)."""
    generator = np.random.RandomState(SEED)
    factors = generator.randint(1, MERSENNE, dtype=np.uint64, size=(1, count))[0]
    return factors, generator.randint(0, MERSENNE, dtype=np.uint64, size=(1, count))[0]


@njit(cache=True)
def _permute(shingles: np.ndarray, factors: np.ndarray, addends: np.ndarray, out: np.ndarray) -> None:
    prime = np.uint64(MERSENNE)
    out[:] = np.uint64(0xFFFFFFFFFFFFFFFF)
    for k in range(out.shape[0]):
        least = out[k]
        for hashed in shingles:
            least = min(least, (hashed * factors[k] + addends[k]) % prime)
        out[k] = least
