"""Signals of one document's lines and paragraphs: Gopher's repeated lines, FineWeb's line ends, C4's kept lines.

Definitions, as datatrove implements them: Gopher splits lines at runs of line feeds and paragraphs at two or more
(Rae et al. 2021, table A1); FineWeb looks at lines that are not blank (Penedo et al. 2024, section 3.6); bullets,
ellipses and C4 (Raffel et al. 2020, section 2.2) split where `str.splitlines` does. C4's counts are `stages.c4`'s.
Equal lines are found by 64-bit hashes. Cost: a few passes over the bytes, about 70 MB/s with C4's.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from stages.c4 import C4_FIELDS, VARIANTS, c4_line
from stages.characters import (
    LINE_END,
    SENTENCE_END,
    SPACE,
    before,
    characters_in,
    hash_bytes,
    point_at,
    size_at,
)

(
    CHARACTERS, LINE_FEEDS, HASHES, ELLIPSES, PARAGRAPHS, PARAGRAPH_REPEATS, PARAGRAPH_REPEAT_CHARACTERS, LINES,
    LINE_REPEATS, LINE_REPEAT_CHARACTERS, FILLED, FILLED_ENDED, FILLED_SHORT, FILLED_REPEAT_CHARACTERS,
    FILLED_CHARACTERS, LONGEST_LINE, SPLIT_LINES, BULLET_LINES, ELLIPSIS_LINES, C4,
) = range(20)  # fmt: skip
COUNTS = C4 + VARIANTS * len(C4_FIELDS)
SHORT_LINE_CHARACTERS = 30  # FineWeb
_LF, _DOT = 10, 46


@njit(cache=True)
def line_counts(
    data: np.ndarray, offsets: np.ndarray, classes: np.ndarray, phrases: np.ndarray, phrase_first: np.ndarray
) -> np.ndarray:
    """[documents, COUNTS] int64 of the documents `data[offsets[i] : offsets[i + 1]]`."""
    documents = offsets.shape[0] - 1
    found = np.zeros((documents, COUNTS), np.int64)
    for d in range(documents):
        start, end = offsets[d], offsets[d + 1]
        if start == end:
            continue
        row = found[d]
        feeds = _text_counts(data, start, end, row)
        size = 16
        while size < 2 * (feeds + 2):
            size *= 2
        slots = np.zeros(size, np.uint64)
        _paragraphs(data, start, end, classes, slots, row)
        slots[:] = 0
        _lines(data, start, end, classes, slots, phrases, phrase_first, row)
    return found


@njit(cache=True)
def _text_counts(data: np.ndarray, start: int, end: int, row: np.ndarray) -> int:
    """Whole-text counts; gives the line feeds."""
    feeds = hashes = ellipses = 0
    for i in range(start, end):
        feeds += data[i] == _LF
        hashes += data[i] == 35
    points = 0  # in a row; `...` counts once for three
    for i in range(start, end):
        if data[i] == _DOT:
            points = points + 1 if i > start and data[i - 1] == _DOT else 1
            ellipses += points % 3 == 0
        elif data[i] == 0xE2:
            ellipses += data[i + 1] == 0x80 and data[i + 2] == 0xA6
    characters = characters_in(data, start, end)
    row[CHARACTERS], row[LINE_FEEDS], row[HASHES], row[ELLIPSES] = characters, feeds, hashes, ellipses
    return feeds


@njit(cache=True)
def _seen(slots: np.ndarray, key: np.uint64) -> bool:
    """Whether the key is there already; it is afterwards."""
    key |= np.uint64(1)
    mask = slots.shape[0] - 1
    slot = np.int64(key >> np.uint64(1)) & mask
    while slots[slot] != 0:
        if slots[slot] == key:
            return True
        slot = (slot + 1) & mask
    slots[slot] = key
    return False


@njit(cache=True)
def _stripped(data: np.ndarray, start: int, end: int, classes: np.ndarray) -> tuple[int, int]:
    """(start, end) without white space at both ends."""
    while start < end and classes[point_at(data, start)] & SPACE:
        start += size_at(data, start)
    while start < end:
        last = before(data, end)
        if not classes[point_at(data, last)] & SPACE:
            break
        end = last
    return start, end


@njit(cache=True)
def _paragraphs(
    data: np.ndarray, start: int, end: int, classes: np.ndarray, slots: np.ndarray, row: np.ndarray
) -> None:
    start, end = _stripped(data, start, end, classes)
    at = begin = start
    while at < end:
        if data[at] != _LF or data[at + 1] != _LF:  # stripped: no line feed is last
            at += 1
            continue
        _paragraph(data, begin, at, slots, row)
        while data[at] == _LF:
            at += 1
        begin = at
    _paragraph(data, begin, end, slots, row)


@njit(cache=True)
def _paragraph(data: np.ndarray, start: int, end: int, slots: np.ndarray, row: np.ndarray) -> None:
    row[PARAGRAPHS] += 1
    if _seen(slots, hash_bytes(data, start, end)):
        row[PARAGRAPH_REPEATS] += 1
        row[PARAGRAPH_REPEAT_CHARACTERS] += characters_in(data, start, end)


@njit(cache=True)
def _lines(
    data: np.ndarray, start: int, end: int, classes: np.ndarray, slots: np.ndarray, phrases: np.ndarray,
    phrase_first: np.ndarray, row: np.ndarray,
) -> None:  # fmt: skip
    """Lines between line feeds, empty ones left out but for Gopher's at both ends of the text."""
    empty = (data[start] == _LF) + (data[end - 1] == _LF)
    row[LINES] += empty
    row[LINE_REPEATS] += empty == 2
    at = start
    while at < end:
        begin = at
        while at < end and data[at] != _LF:
            at += 1
        if begin < at:
            row[LINES] += 1
            characters = characters_in(data, begin, at)
            repeated = _seen(slots, hash_bytes(data, begin, at))
            if repeated:
                row[LINE_REPEATS] += 1
                row[LINE_REPEAT_CHARACTERS] += characters
            _filled(data, begin, at, classes, characters, repeated, row)
        if _may_split(data, begin, at):
            _split_lines(data, begin, at, at < end, classes, phrases, phrase_first, row)
        else:
            _split_line(data, begin, at, classes, phrases, phrase_first, row)
        at += 1


@njit(cache=True)
def _may_split(data: np.ndarray, start: int, end: int) -> bool:
    """Whether other line ends than line feeds may be in it: control characters, or first bytes of theirs."""
    some = np.uint8(0)
    for i in range(start, end):
        byte = data[i]
        some |= np.uint8(byte < 31) & np.uint8(byte != 9) | np.uint8(byte == 0xC2) | np.uint8(byte == 0xE2)
    return some != 0


@njit(cache=True)
def _filled(
    data: np.ndarray, start: int, end: int, classes: np.ndarray, characters: int, repeated: bool, row: np.ndarray
) -> None:
    inner, _ = _stripped(data, start, end, classes)
    if inner == end:
        return
    row[FILLED] += 1
    row[FILLED_ENDED] += classes[point_at(data, before(data, end))] & SENTENCE_END != 0
    row[FILLED_SHORT] += characters <= SHORT_LINE_CHARACTERS
    row[FILLED_CHARACTERS] += characters
    row[LONGEST_LINE] = max(row[LONGEST_LINE], characters)
    if repeated:
        row[FILLED_REPEAT_CHARACTERS] += characters


@njit(cache=True)
def _split_lines(
    data: np.ndarray, start: int, end: int, has_feed: bool, classes: np.ndarray, phrases: np.ndarray,
    phrase_first: np.ndarray, row: np.ndarray,
) -> None:  # fmt: skip
    """One line between line feeds, split where `str.splitlines` does."""
    begin = at = start
    while at < end:
        size = size_at(data, at)
        if classes[point_at(data, at)] & LINE_END:
            _split_line(data, begin, at, classes, phrases, phrase_first, row)
            is_pair = data[at] == 13 and at + 1 == end
            begin = at + size
            if is_pair:  # the line feed that follows ends the same line
                return
        at += size
    if begin < end or has_feed:
        _split_line(data, begin, end, classes, phrases, phrase_first, row)


@njit(cache=True)
def _split_line(
    data: np.ndarray, start: int, end: int, classes: np.ndarray, phrases: np.ndarray, phrase_first: np.ndarray,
    row: np.ndarray,
) -> None:  # fmt: skip
    row[SPLIT_LINES] += 1
    start, end = _stripped(data, start, end, classes)
    if start == end:
        return
    first = data[start]
    row[BULLET_LINES] += first == 45 or (first == 0xE2 and data[start + 1] == 0x80 and data[start + 2] == 0xA2)
    is_ellipsis = end - start >= 3 and (
        (data[end - 1] == _DOT and data[end - 2] == _DOT and data[end - 3] == _DOT)
        or (data[end - 3] == 0xE2 and data[end - 2] == 0x80 and data[end - 1] == 0xA6)
    )
    row[ELLIPSIS_LINES] += is_ellipsis
    c4_line(data, start, end, classes, phrases, phrase_first, row[C4:])
