"""Repeated word n-grams of one document, over the code points of its words.

`dup_fraction`-style counts follow Rae et al. 2021 (Gopher), table A1, as datatrove implements them: an n-gram is the
concatenation of its words; a repeated one adds its characters and is jumped over; the commonest n-gram counts its
characters with the spaces between its words, times its occurrences, the first found among equals.

Shapes: C code points, W words. n-grams are compared by 64-bit polynomial hashes (base odd, mixed code points), so two
different n-grams of a document are taken for one with a chance of about 1e-12 for a million words.
Cost: O(W) per n, about 30 million words a second a core for each n.
"""

from __future__ import annotations

import numpy as np
from numba import njit

BASE = 0x9E3779B97F4A7C15 | 1
DUPLICATE_SIZES = np.arange(5, 11, dtype=np.int64)
TOP_SIZES = np.arange(2, 5, dtype=np.int64)


def code_points(text: str) -> np.ndarray:
    """[C] uint32."""
    return np.frombuffer(text.encode("utf-32-le", errors="surrogatepass"), np.uint32)


@njit(cache=True)
def repeated_characters(points: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Characters in repeated n-grams.

    Args:
        points: [C] uint32 code points of all words, one after the other.
        ends: [W] int64 cumulative ends of the words.

    Returns:
        (duplicate, top): int64 [6] for n = 5…10 and int64 [3] for n = 2…4.
    """
    words = ends.shape[0]
    base = np.uint64(BASE)
    prefix = np.zeros(points.shape[0] + 1, np.uint64)
    power = np.ones(points.shape[0] + 1, np.uint64)
    for i in range(points.shape[0]):
        prefix[i + 1] = prefix[i] * base + _mixed(np.uint64(points[i]) + np.uint64(1))
        power[i + 1] = power[i] * base
    starts = np.zeros(words, np.int64)
    starts[1:] = ends[:-1]
    size = 64
    while size < 2 * words:
        size *= 2
    slots = np.zeros(size, np.uint64)
    duplicate = np.zeros(6, np.int64)
    for k in range(6):
        slots[:] = 0
        n = 5 + k
        i = 0
        while i + n <= words:
            a, b = starts[i], ends[i + n - 1]
            key = _mixed(np.uint64(prefix[b] - prefix[a] * power[b - a])) | np.uint64(1)
            slot = np.int64(key >> np.uint64(1)) & (size - 1)
            while slots[slot] != 0 and slots[slot] != key:
                slot = (slot + 1) & (size - 1)
            if slots[slot] == key:
                duplicate[k] += b - a
                i += n
            else:
                slots[slot] = key
                i += 1
    top = np.zeros(3, np.int64)
    counts = np.zeros(size, np.int64)
    places = np.zeros(size, np.int64)
    hashes = np.zeros(words, np.uint64)
    for i in range(words):  # by word, so that "a bc" and "ab c" differ
        hashes[i] = _mixed(np.uint64(prefix[ends[i]] - prefix[starts[i]] * power[ends[i] - starts[i]]))
    for k in range(3):
        n = 2 + k
        slots[:] = 0
        counts[:] = 0
        for i in range(words - n + 1):
            value = np.uint64(0)
            for j in range(n):
                value = value * base + hashes[i + j]
            key = _mixed(value) | np.uint64(1)
            slot = np.int64(key >> np.uint64(1)) & (size - 1)
            while slots[slot] != 0 and slots[slot] != key:
                slot = (slot + 1) & (size - 1)
            if slots[slot] == 0:
                slots[slot] = key
                places[slot] = i
            counts[slot] += 1
        best, place = np.int64(0), np.int64(words)
        for slot in range(size):
            if counts[slot] > best or (counts[slot] == best and best > 0 and places[slot] < place):
                best, place = counts[slot], places[slot]
        if best > 0:
            top[k] = best * (ends[place + n - 1] - starts[place] + n - 1)
    return duplicate, top


@njit(cache=True)
def _mixed(x: np.uint64) -> np.uint64:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@njit(cache=True)
def word_classes(points: np.ndarray, ends: np.ndarray, classes: np.ndarray) -> tuple[int, int, int]:
    """(words with a character that is no punctuation, their characters, words with a letter).

    `classes` is [0x110000] uint8: 1 = alphabetic, 2 = punctuation.
    """
    words = characters = alphabetic = 0
    start = 0
    for w in range(ends.shape[0]):
        has_other = has_letter = False
        for i in range(start, ends[w]):
            kind = classes[points[i]]
            has_letter |= kind == 1
            has_other |= kind != 2
        if has_other:
            words += 1
            characters += ends[w] - start
        alphabetic += has_letter
        start = ends[w]
    return words, characters, alphabetic
