"""A bounded cache of chunks and their tokens: one place of 128 bytes a chunk, two neighbours a hash, last come stays.

Contract: what is found is exact (all bytes of the chunk are compared); what is kept never changes a result. A place
is 16 little-endian words of 64 bits: a header (bytes, tokens, level, 32 bits of the hash), the chunk, its tokens two
a word. Longer chunks are not kept. Levels keep apart what a chunk gives under all merges and under word merges only.
Cost: a look-up touches at most four neighbouring cache lines; the size is set once and never grows.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from stages.characters import mix64
from stages.tokenizer.scanner import Integer

PLACE_WORDS = 16
WHOLE, WORD = 1, 2  # levels
_PAYLOAD_WORDS = PLACE_WORDS - 1
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_BYTE = np.uint64(8)
_LEVEL_SHIFT = np.uint64(16)
_HALF = np.uint64(32)
_COUNT = np.uint64(0xFF00)  # of a header
_LOW_HALF = np.uint64(0xFFFFFFFF)


def empty_cache(kept_chunks: int) -> np.ndarray:
    """[kept_chunks * PLACE_WORDS] uint64; the number of chunks is a power of two."""
    assert kept_chunks >= 2, kept_chunks
    assert kept_chunks & (kept_chunks - 1) == 0, kept_chunks
    return np.zeros(kept_chunks * PLACE_WORDS, np.uint64)


@njit(cache=True, nogil=True, inline="always")
def _eight_bytes(data: np.ndarray, at: Integer) -> np.uint64:
    """data[at : at + 8] as one word; the compiler makes one load of it."""
    i = np.uint64(at)
    low = np.uint64(data[i]) | np.uint64(data[i + np.uint64(1)]) << np.uint64(8)
    low |= np.uint64(data[i + np.uint64(2)]) << np.uint64(16) | np.uint64(data[i + np.uint64(3)]) << np.uint64(24)
    high = np.uint64(data[i + np.uint64(4)]) << np.uint64(32) | np.uint64(data[i + np.uint64(5)]) << np.uint64(40)
    high |= np.uint64(data[i + np.uint64(6)]) << np.uint64(48) | np.uint64(data[i + np.uint64(7)]) << np.uint64(56)
    return low | high


@njit(cache=True, nogil=True)
def word_of(data: np.ndarray, at: Integer, end: Integer) -> np.uint64:
    """data[at : min(at + 8, end)] as one word, zeros above."""
    if at + 8 <= data.shape[0]:
        word = _eight_bytes(data, at)
        if end - at < 8:
            word &= (np.uint64(1) << np.uint64(8 * (end - at))) - np.uint64(1)
        return word
    word = np.uint64(0)
    for i in range(min(8, end - at)):
        word |= np.uint64(data[at + i]) << (_BYTE * np.uint64(i))
    return word


@njit(cache=True, nogil=True)
def chunk_hash(data: np.ndarray, at: Integer, end: Integer) -> np.uint64:
    """64 bits of the chunk, eight bytes at a step."""
    state = np.uint64(end - at)
    for i in range(at, end, 8):
        state = (state ^ word_of(data, i, end)) * _GOLDEN
        state ^= state >> _HALF
    return mix64(state)


@njit(cache=True, nogil=True)
def recall(
    cache: np.ndarray, level: int, code: np.uint64, data: np.ndarray, at: Integer, end: Integer,
    tokens: np.ndarray, count: Integer,
) -> Integer:  # fmt: skip
    """Write the kept tokens of data[at:end] to `tokens` from `count` on; the new count, or -1 where none are kept.

    One place beyond the new count may be written, too.
    """
    last = np.int64(-1)
    home = np.int64(code & np.uint64(cache.shape[0] // PLACE_WORDS - 1))
    header = np.uint64(end - at) | np.uint64(level) << _LEVEL_SHIFT | (code >> _HALF) << _HALF
    for neighbour in range(2):
        word = (home ^ neighbour) * PLACE_WORDS
        found = cache[word]
        if last < 0 and found & ~_COUNT == header:
            i = at
            word += 1
            while i < end and cache[word] == word_of(data, i, end):
                i += 8
                word += 1
            if i >= end:
                kept = np.int64((found & _COUNT) >> _BYTE)
                last = count + kept
                for number in range(count, last, 2):
                    both = cache[word]
                    tokens[number] = both & _LOW_HALF
                    tokens[number + 1] = both >> _HALF
                    word += 1
    return last


@njit(cache=True, nogil=True)
def remember(
    cache: np.ndarray, level: int, code: np.uint64, data: np.ndarray, at: Integer, end: Integer,
    tokens: np.ndarray, first: Integer, last: Integer,
) -> None:  # fmt: skip
    """Keep tokens[first:last] for data[at:end]; what stood there moves next door, and what stood there is forgotten."""
    kept = last - first
    if (end - at + 7) // 8 + (kept + 1) // 2 <= _PAYLOAD_WORDS:
        home = np.int64(code & np.uint64(cache.shape[0] // PLACE_WORDS - 1))
        word, other = home * PLACE_WORDS, (home ^ 1) * PLACE_WORDS
        for i in range(PLACE_WORDS):
            cache[other + i] = cache[word + i]
        header = np.uint64(end - at) | np.uint64(level) << _LEVEL_SHIFT | (code >> _HALF) << _HALF
        cache[word] = header | np.uint64(kept) << _BYTE
        for i in range(at, end, 8):
            word += 1
            cache[word] = word_of(data, i, end)
        for number in range(first, last, 2):
            word += 1
            both = np.uint64(tokens[number])
            if number + 1 < last:
                both |= np.uint64(tokens[number + 1]) << _HALF
            cache[word] = both
