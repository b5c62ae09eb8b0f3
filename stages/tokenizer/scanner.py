r"""The two pre-tokenisation patterns as one pass over UTF-8 bytes, without a regular expression engine.

Contract: `scan` cuts documents exactly where the patterns of `stages.tokenizer.patterns` cut them in `tokenizers`; the
bytes are valid UTF-8. `unicode_classes.txt` holds the letters, marks, numbers and spaces of the Unicode version that
`tokenizers` 0.23 knows (16.0, by the engine Oniguruma); `regex` and tiktoken know other versions and differ from it
only in code points that one of them does not know. Cost: 100 to 230 MB/s on one core; the class table has 1.1 MB.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from numba import njit

Pattern = Literal["word", "superword"]
Integer = int | np.int64  # a place, inside kernels

TABLE = Path(__file__).with_name("unicode_classes.txt")
CODE_POINTS = 0x110000
OTHER, LETTER, MARK, NUMBER, SPACE, LINE_END, NOTHING = range(7)
_CLASSES = {"L": LETTER, "M": MARK, "N": NUMBER, "S": SPACE}
# How letters may go on, as kernels take it: words end at a space, superwords may go on over single ones.
WORDS, SUPERWORDS = 0, 1
PATTERNS: dict[Pattern, int] = {"word": WORDS, "superword": SUPERWORDS}

_APOSTROPHE, _BLANK = 0x27, 0x20
_LONG_S = (0xC5, 0xBF)  # UTF-8 of U+017F, the one character beyond ASCII that `(?i:s)` matches
_TYPICAL_CHUNK_BYTES = 4


@lru_cache(maxsize=1)
def character_classes() -> np.ndarray:
    """[CODE_POINTS] uint8 class of every code point."""
    table = np.full(CODE_POINTS, OTHER, np.uint8)
    for line in TABLE.read_text(encoding="ascii").splitlines():
        name, first, last = line.split()
        table[int(first, 16) : int(last, 16) + 1] = _CLASSES[name]
    table[[0x0A, 0x0D]] = LINE_END
    return table


def scan(data: np.ndarray, document_offsets: np.ndarray, pattern: Pattern) -> np.ndarray:
    """[chunks] int64: where each chunk ends in `data`; chunks of a document never reach into the next.

    Args:
        data: [bytes] uint8, NFC text as UTF-8.
        document_offsets: [documents + 1] int64 places in `data`, ascending.
        pattern: Which of the two patterns.
    """
    return _scan(data, document_offsets, character_classes(), PATTERNS[pattern])


@njit(cache=True, nogil=True)
def _scan(data: np.ndarray, offsets: np.ndarray, classes: np.ndarray, pattern: int) -> np.ndarray:
    ends = np.empty((offsets[-1] - offsets[0]) // _TYPICAL_CHUNK_BYTES + 16, np.int64)
    count = 0
    for document in range(offsets.shape[0] - 1):
        at, stop = offsets[document], offsets[document + 1]
        while at < stop:
            at = chunk_end(data, at, stop, classes, pattern)
            if count == ends.shape[0]:
                longer = np.empty(2 * count, np.int64)
                longer[:count] = ends
                ends = longer
            ends[count] = at
            count += 1
    return ends[:count]


@njit(cache=True, nogil=True, inline="always")
def character(data: np.ndarray, at: Integer) -> tuple[np.int64, np.int64]:
    """(code point, bytes) of the character that begins at `at`."""
    lead = np.int64(data[at])
    if lead < 0x80:
        return lead, np.int64(1)
    if lead < 0xE0:
        return (lead & 0x1F) << 6 | np.int64(data[at + 1]) & 0x3F, np.int64(2)
    if lead < 0xF0:
        point = (lead & 0x0F) << 12 | (np.int64(data[at + 1]) & 0x3F) << 6 | np.int64(data[at + 2]) & 0x3F
        return point, np.int64(3)
    point = (lead & 0x07) << 18 | (np.int64(data[at + 1]) & 0x3F) << 12
    return point | (np.int64(data[at + 2]) & 0x3F) << 6 | np.int64(data[at + 3]) & 0x3F, np.int64(4)


@njit(cache=True, nogil=True)
def chunk_end(data: np.ndarray, at: Integer, stop: Integer, classes: np.ndarray, pattern: int) -> Integer:
    """Where the chunk that begins at `at` ends. The pattern's alternatives in order, without retries."""
    point, size = character(data, at)
    kind = classes[point]
    # One exit: with several, numba counts references to the arrays at each call, which costs more than the call.
    end = at
    if point == _APOSTROPHE:
        end = _contraction(data, at, stop)
    if end == at:
        after = at + size
        next_kind, next_size = NOTHING, np.int64(0)
        if after < stop:
            next_point, next_size = character(data, after)
            next_kind = classes[next_point]
        if kind == LETTER:
            end = _letters(data, after, stop, classes, pattern)
        elif kind == NUMBER:
            end = after
        elif next_kind == LETTER and kind != LINE_END:
            end = _letters(data, after + next_size, stop, classes, pattern)
        elif kind in (OTHER, MARK):
            end = _punctuation(data, after, stop, classes)
        elif point == _BLANK and next_kind in (OTHER, MARK):
            end = _punctuation(data, after + next_size, stop, classes)
        else:
            end = _spaces(data, at, stop, classes)
    return end


@njit(cache=True, nogil=True)
def _contraction(data: np.ndarray, at: Integer, stop: Integer) -> Integer:
    """The end of 's 't 're 've 'm 'll 'd in either case, or `at` where there is none."""
    end = at
    if at + 1 < stop:
        first = data[at + 1] | 0x20  # lower case of ASCII letters
        if first in (0x73, 0x74, 0x6D, 0x64):  # s t m d
            end = at + 2
        elif at + 2 < stop:
            second = data[at + 2] | 0x20
            is_two_letters = (
                (first == 0x72 and second == 0x65) or (first == 0x76 and second == 0x65)
                or (first == 0x6C and second == 0x6C)
            )  # fmt: skip
            is_long_s = data[at + 1] == _LONG_S[0] and data[at + 2] == _LONG_S[1]
            if is_two_letters or is_long_s:
                end = at + 3
    return end


@njit(cache=True, nogil=True)
def _letters(data: np.ndarray, at: Integer, stop: Integer, classes: np.ndarray, pattern: int) -> Integer:
    """The end of letters and marks, a letter before `at`; of superwords also over a single space before a letter."""
    while at < stop:
        point, size = character(data, at)
        kind = classes[point]
        if kind in (LETTER, MARK):
            at += size
            continue
        if pattern == WORDS or point != _BLANK or at + 1 == stop:
            return at
        point, size = character(data, at + 1)
        if classes[point] != LETTER:
            return at
        at += 1 + size
    return at


@njit(cache=True, nogil=True)
def _punctuation(data: np.ndarray, at: Integer, stop: Integer, classes: np.ndarray) -> Integer:
    """The end of a run that is no space, letter or number, with one line end after it (a slash is in the run)."""
    while at < stop:
        point, size = character(data, at)
        kind = classes[point]
        if kind == LINE_END:
            return at + 1
        if kind != OTHER and kind != MARK:
            return at
        at += size
    return at


@njit(cache=True, nogil=True)
def _spaces(data: np.ndarray, at: Integer, stop: Integer, classes: np.ndarray) -> Integer:
    r"""The end of spaces: after the last line end (`\s*[\r\n]`), else all, but the last where something follows."""
    end, last, after_line_end = at, at, at
    is_space = True
    while is_space and end < stop:
        point, size = character(data, end)
        kind = classes[point]
        is_space = kind in (SPACE, LINE_END)
        if is_space:
            last = end
            end += size
            if kind == LINE_END:
                after_line_end = end
    if after_line_end > at:
        end = after_line_end
    elif end < stop and last > at:
        end = last
    return end
