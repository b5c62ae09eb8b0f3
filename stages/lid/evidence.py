"""One pass over paragraphs in UTF-8: letters by script, known words and word pieces by language, relatives' words.

Contract: `evidence(texts)` gives integer counts per paragraph, nothing is judged here. Words are runs of Latin
letters, lower case. Memory: 8 bytes a count and paragraph. Cost: 60-100 MB/s a core; the tables once a process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import regex
from numba import njit

from stages.lid.lexicon import EDGE, LANGUAGES, Lexicon, lexicon

LATIN, HANGUL, KANA, HAN, OTHER_LETTER, VIETNAMESE = 1, 2, 3, 4, 5, 6
SCRIPTS = 7  # columns of `Evidence.letters`, the first unused; VIETNAMESE letters count as LATIN too
TABLE_SIZE = 0x40000
_VIETNAMESE_LETTERS = "ăâđêôơưạảãàáằắẳẵặầấẩẫậèéẻẽẹềếểễệìíỉĩịòóỏõọồốổỗộờớởỡợùúủũụừứửữựỳýỷỹỵ"
_FOUR = len(LANGUAGES)


@dataclass(frozen=True)
class Evidence:
    """Counts of n paragraphs.

    Attributes:
        letters: [n, SCRIPTS] letters by script.
        words: [n] Latin words.
        known: [n, LANGUAGES] of these, in a language's lexicon.
        pieces: [n] three-letter pieces of Latin words.
        strange: [n, LANGUAGES] of these, in no word of a language's lexicon.
        marks: [n, relatives] words that betray a relative.
        marked: [n, LANGUAGES] words that betray any relative of a language.
    """

    letters: np.ndarray
    words: np.ndarray
    known: np.ndarray
    pieces: np.ndarray
    strange: np.ndarray
    marks: np.ndarray
    marked: np.ndarray

    def letter_count(self) -> np.ndarray:
        """[n] letters of all scripts."""
        return self.letters[:, 1:VIETNAMESE].sum(axis=1)


def evidence(texts: Sequence[str], known: Lexicon | None = None) -> Evidence:
    """The counts of every text."""
    data, offsets = joined(texts)
    tables, words = _tables(), known or lexicon()
    count = len(texts)
    found = Evidence(
        np.zeros((count, SCRIPTS), np.int64),
        np.zeros(count, np.int64),
        np.zeros((count, _FOUR), np.int64),
        np.zeros(count, np.int64),
        np.zeros((count, _FOUR), np.int64),
        np.zeros((count, len(words.relatives)), np.int64),
        np.zeros((count, _FOUR), np.int64),
    )
    _count(
        data, offsets, *tables, words.keys, words.bits, words.marks, words.of,
        found.letters, found.words, found.known, found.pieces, found.strange, found.marks, found.marked,
    )  # fmt: skip
    return found


def joined(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """([bytes] uint8 of all texts in UTF-8, [texts + 1] int64 where each begins)."""
    encoded = [text.encode("utf-8", errors="surrogatepass") for text in texts]
    offsets = np.zeros(len(encoded) + 1, np.int64)
    np.cumsum([len(one) for one in encoded], out=offsets[1:])
    return np.frombuffer(b"".join(encoded), np.uint8), offsets


@lru_cache(maxsize=1)
def _tables() -> tuple[np.ndarray, np.ndarray]:
    """Per code point: script (uint8) and lower case (int32)."""
    every = "".join(chr(point) if not 0xD800 <= point < 0xE000 else " " for point in range(TABLE_SIZE))
    script = np.zeros(TABLE_SIZE, np.uint8)
    # A later pattern writes over an earlier one.
    patterns = (
        (r"\p{L}", OTHER_LETTER), (r"[\p{L}&&\p{Latin}]", LATIN), (r"\p{Hangul}", HANGUL),
        (r"[\p{Hiragana}\p{Katakana}ー]", KANA), (r"\p{Han}", HAN),
        (f"[{_VIETNAMESE_LETTERS}{_VIETNAMESE_LETTERS.upper()}]", VIETNAMESE),
    )  # fmt: skip
    for pattern, value in patterns:
        for match in regex.finditer(pattern, every, flags=regex.V1):
            script[match.start()] = value
    lower = np.arange(TABLE_SIZE, dtype=np.int32)
    for point in np.flatnonzero((script == LATIN) | (script == VIETNAMESE)):
        folded = chr(point).lower()
        if len(folded) == 1:
            lower[point] = ord(folded)
    return script, lower


@njit(cache=True, inline="always")
def _find(keys: np.ndarray, key: np.uint64) -> int:
    """Slot of a key, or -1."""
    last = keys.shape[0] - 1
    at = np.int64((key * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)) & last
    while keys[at] != np.uint64(0):
        if keys[at] == key:
            return at
        at = (at + 1) & last
    return -1


@njit(cache=True, inline="always")
def _piece(
    keys: np.ndarray,
    bits: np.ndarray,
    a: int | np.int64,
    b: int | np.int64,
    c: int | np.int64,
    row: int,
    pieces: np.ndarray,
    strange: np.ndarray,
) -> None:
    pieces[row] += 1
    key = (np.uint64(1) << np.uint64(63)) | (np.uint64(a) << np.uint64(42)) | (np.uint64(b) << np.uint64(21))
    slot = _find(keys, key | np.uint64(c))
    known = np.int64(bits[slot]) if slot >= 0 else 0
    for lang in range(_FOUR):
        if not known >> lang & 1:
            strange[row, lang] += 1


@njit(cache=True)
def _count(
    data: np.ndarray,
    offsets: np.ndarray,
    scripts: np.ndarray,
    lower: np.ndarray,
    keys: np.ndarray,
    bits: np.ndarray,
    marks: np.ndarray,
    of: np.ndarray,
    letters: np.ndarray,
    words: np.ndarray,
    known: np.ndarray,
    pieces: np.ndarray,
    strange: np.ndarray,
    found: np.ndarray,
    marked: np.ndarray,
) -> None:
    for row in range(offsets.shape[0] - 1):
        at, end = offsets[row], offsets[row + 1]
        size = 0  # letters of the open word
        state = np.uint64(0)
        before, last = EDGE, EDGE
        while at <= end:
            point, script = np.int64(0), 0
            if at < end:
                first = np.int64(data[at])
                if first < 0x80:
                    point = first
                    at += 1
                elif first < 0xE0:
                    point = ((first & 0x1F) << 6) | (np.int64(data[at + 1]) & 0x3F)
                    at += 2
                elif first < 0xF0:
                    point = (
                        ((first & 0x0F) << 12)
                        | ((np.int64(data[at + 1]) & 0x3F) << 6)
                        | (np.int64(data[at + 2]) & 0x3F)
                    )
                    at += 3
                else:
                    point = (
                        ((first & 0x07) << 18)
                        | ((np.int64(data[at + 1]) & 0x3F) << 12)
                        | ((np.int64(data[at + 2]) & 0x3F) << 6)
                        | (np.int64(data[at + 3]) & 0x3F)
                    )
                    at += 4
                if point < scripts.shape[0]:
                    script = np.int64(scripts[point])
            else:
                at += 1  # the end closes the open word
            if script:
                letters[row, script] += 1
                if script == VIETNAMESE:
                    letters[row, LATIN] += 1
            if script in (LATIN, VIETNAMESE):
                point = np.int64(lower[point])
                if size == 0:
                    state = np.uint64(0xCBF29CE484222325)
                    before, last = EDGE, EDGE
                else:
                    _piece(keys, bits, before, last, point, row, pieces, strange)
                state = (state ^ np.uint64(point)) * np.uint64(0x100000001B3)
                before, last = last, point
                size += 1
            elif size:
                _piece(keys, bits, before, last, EDGE, row, pieces, strange)
                words[row] += 1
                slot = _find(keys, state)
                if slot >= 0:
                    for lang in range(_FOUR):
                        known[row, lang] += np.int64(bits[slot]) >> lang & 1
                    if marks[slot] != np.uint64(0):
                        seen = 0
                        for relative in range(found.shape[1]):
                            if np.int64(marks[slot] >> np.uint64(relative)) & 1:
                                found[row, relative] += 1
                                seen |= 1 << of[relative]
                        for lang in range(_FOUR):
                            marked[row, lang] += seen >> lang & 1
                size = 0
