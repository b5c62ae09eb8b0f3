"""What kernels over UTF-8 know of a character: one 16-bit entry per code point, and how to decode one.

Contract: `classes()` is [CODE_POINTS] uint16: the low byte holds the flags below, the high byte the word kind that
`stages.words` segments by. Flags mean what Python's `str` means by them (`isspace`, `isalpha`, `splitlines`);
`PUNCTUATION` is datatrove's list (its filters count words without it), `SENTENCE_END` the Unicode property
Sentence_Terminal. Cost: 0.1 s to make, once a process; two bytes a code point.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import regex
from numba import njit

Integer = int | np.int64  # a place, inside kernels
CODE_POINTS = 0x110000
_ASSIGNED = 0x32000  # no letter, space or mark of those below lies in a higher plane

SPACE, LETTER, PUNCTUATION, SENTENCE_END, LINE_END, UNSPACED, RARE = 1, 2, 4, 8, 16, 32, 64
KIND_SHIFT = 8
GAP, MARK, WORD, DIGIT, HANGUL, HAN, HIRAGANA, KATAKANA = range(8)

# datatrove's list as its filters know it: these, controls, and the sentence ends of all scripts.
_PUNCTUATION = "!/—”:％１〈&(、━\\【#%「」，】；+^]~“《„';’{|∶´[=-`*．（–？！：$～«〉,><》)?）。…@_.\"}►»"
_CONTROLS = "".join(map(chr, (*range(9), *range(11, 32), *range(127, 160))))
_FLAGS = {
    SPACE: r"[\s\x1c-\x1f]",
    LETTER: r"\p{L}",
    SENTENCE_END: r"\p{Sentence_Terminal}",
    LINE_END: r"[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]",
    RARE: r"[{jkpvfJKPVF]",  # what C4's phrases and page rule are looked for by: letters rare enough, in every phrase
    UNSPACED: r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]",
}
# Later kinds win. Scripts that no rule here can split (Thai, Khmer) are words from space to space.
_KINDS = {
    MARK: r"[^\w\s\x1c-\x1f]",
    WORD: r"\w",
    DIGIT: r"\d",
    HANGUL: r"[가-힣]",
    HAN: r"[\p{Han}々〆ヶ]",
    HIRAGANA: r"\p{Hiragana}",
    KATAKANA: r"[\p{Katakana}ー]",
}


@lru_cache(maxsize=1)
def classes() -> np.ndarray:
    """[CODE_POINTS] uint16 table of the Unicode version that `regex` has."""
    every = "".join(map(chr, range(_ASSIGNED)))
    found = np.zeros(CODE_POINTS, np.uint16)
    found[_ASSIGNED:] = MARK << KIND_SHIFT
    for flag, pattern in _FLAGS.items():
        for run in regex.finditer(f"{pattern}+", every):
            found[run.start() : run.end()] |= flag
    for kind, pattern in _KINDS.items():
        for run in regex.finditer(f"{pattern}+", every, regex.V1):
            part = found[run.start() : run.end()]
            part[:] = (part & 0xFF) | (kind << KIND_SHIFT)
    found[[ord(character) for character in (*_PUNCTUATION, *_CONTROLS)]] |= PUNCTUATION
    found[(found & SENTENCE_END) != 0] |= PUNCTUATION
    return found


@njit(cache=True)
def size_at(data: np.ndarray, at: Integer) -> int:
    """Bytes of the valid UTF-8 sequence that begins at `at`."""
    first = data[at]
    return 1 if first < 0x80 else 2 if first < 0xE0 else 3 if first < 0xF0 else 4


@njit(cache=True)
def point_at(data: np.ndarray, at: Integer) -> np.int64:
    """The code point that begins at `at`."""
    first = np.int64(data[at])
    if first < 0x80:
        return first
    second = np.int64(data[at + 1]) & 0x3F
    if first < 0xE0:
        return ((first & 0x1F) << 6) | second
    third = np.int64(data[at + 2]) & 0x3F
    if first < 0xF0:
        return ((first & 0x0F) << 12) | (second << 6) | third
    return ((first & 0x07) << 18) | (second << 12) | (third << 6) | (np.int64(data[at + 3]) & 0x3F)


@njit(cache=True)
def before(data: np.ndarray, at: int) -> int:
    """Where the character that ends at `at` begins."""
    at -= 1
    while data[at] & 0xC0 == 0x80:
        at -= 1
    return at


@njit(cache=True)
def hash_bytes(data: np.ndarray, start: Integer, end: Integer) -> np.uint64:
    """64 bits of data[start:end], eight bytes at a step."""
    state = np.uint64(0xCBF29CE484222325) ^ np.uint64(end - start)
    at = start
    while at + 8 <= end:
        low = np.uint64(data[at]) | np.uint64(data[at + 1]) << np.uint64(8) | np.uint64(data[at + 2]) << np.uint64(16)
        low |= np.uint64(data[at + 3]) << np.uint64(24) | np.uint64(data[at + 4]) << np.uint64(32)
        low |= np.uint64(data[at + 5]) << np.uint64(40) | np.uint64(data[at + 6]) << np.uint64(48)
        low |= np.uint64(data[at + 7]) << np.uint64(56)
        state = (state ^ low) * np.uint64(0x9E3779B97F4A7C15)
        state ^= state >> np.uint64(32)
        at += 8
    for i in range(at, end):
        state = (state ^ np.uint64(data[i])) * np.uint64(0x100000001B3)
    return mix64(state)


@njit(cache=True)
def characters_in(data: np.ndarray, start: Integer, end: Integer) -> int:
    """Code points of the UTF-8 data[start:end]."""
    count = 0
    for i in range(start, end):
        count += data[i] & 0xC0 != 0x80
    return count


@njit(cache=True)
def mix64(x: np.uint64) -> np.uint64:
    """The splitmix64 finaliser (Steele et al. 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
