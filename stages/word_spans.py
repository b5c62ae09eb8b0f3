"""The kernel of our word segmenter: one pass over the UTF-8 bytes of a batch, one rule per script.

Contract: `spans` gives the places of the words that `stages.words` describes, in order; words of a document never
reach into the next. The habit bits say how a language is written. Cost: see `stages.words`.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from stages.characters import (
    DIGIT,
    GAP,
    HAN,
    HANGUL,
    HIRAGANA,
    KATAKANA,
    KIND_SHIFT,
    MARK,
    WORD,
    before,
    point_at,
    size_at,
)
from stages.function_words import HANGUL_FIRST, KANA_FIRST, LONGEST, contains
from stages.vietnamese import LONGEST_BYTES as _COMPOUND_BYTES
from stages.vietnamese import has_compound

_POINT, _HYPHEN, _COMMA, _COLON, _SLASH, _EQUALS, _AT, _APOSTROPHE, _QUOTE = 46, 45, 44, 58, 47, 61, 64, 39, 0x2019
_LESS, _MORE = 60, 62
# How a language's words are written: technical strings hold together; so do hyphenated words; syllables are spaced.
LOOSE, TIGHT, HYPHENATED, SYLLABLES = 0, 1, 2, 4
_THREE = 3  # bytes of a syllable, a kana or a Chinese character of the first plane


@njit(cache=True)
def spans(
    data: np.ndarray,
    offsets: np.ndarray,
    habits: np.ndarray,
    classes: np.ndarray,
    compounds: np.ndarray,
    tails: np.ndarray,
    inner: np.ndarray,
    kana: np.ndarray,
    kana_after_han: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(starts, ends, first) of `Words`. No word is empty, so that the bytes bound their number."""
    size = offsets[-1] - offsets[0]
    starts, ends = np.empty(size, np.uint32), np.empty(size, np.uint32)
    first = np.zeros(offsets.shape[0], np.int64)
    count = 0
    for document in range(offsets.shape[0] - 1):
        at, stop = offsets[document], offsets[document + 1]
        habit = habits[document]
        while at < stop:
            kind = classes[point_at(data, at)] >> KIND_SHIFT
            if kind == GAP:
                at += size_at(data, at)
                continue
            if kind == HANGUL:
                at, count = _korean(data, at, stop, classes, tails, inner, starts, ends, count)
                continue
            if kind in (HIRAGANA, HAN):
                at, count = _japanese(data, at, stop, classes, kana, kana_after_han, starts, ends, count)
                continue
            starts[count] = at
            if kind == KATAKANA:
                at = _run(data, at, stop, classes, KATAKANA)
            elif kind == MARK:
                at = _mark(data, at, stop, classes, at > offsets[document], habit)
            else:
                at = _word(data, at, stop, classes, habit)
                if (
                    habit & SYLLABLES
                    and count > first[document]
                    and _is_compound(data, starts[count - 1], ends[count - 1], starts[count], at, compounds)
                ):
                    count -= 1
            ends[count] = at
            count += 1
        first[document + 1] = count
    return starts[:count], ends[:count], first


@njit(cache=True)
def _is_compound(
    data: np.ndarray, start: np.uint32, middle: np.uint32, next_start: np.uint32, end: int, compounds: np.ndarray
) -> bool:
    """Whether a syllable and the next, a space apart, are one Vietnamese word."""
    if np.int64(next_start) != np.int64(middle) + 1 or data[middle] != 32 or end - np.int64(start) > _COMPOUND_BYTES:
        return False
    return has_compound(compounds, data, np.int64(start), end)


@njit(cache=True)
def _run(data: np.ndarray, at: int, stop: int, classes: np.ndarray, kind: int) -> int:
    while at < stop and classes[point_at(data, at)] >> KIND_SHIFT == kind:
        at += size_at(data, at)
    return at


@njit(cache=True)
def _word(data: np.ndarray, at: int, stop: int, classes: np.ndarray, habit: np.uint8) -> int:
    """The end of a word of letters and digits that begins at `at`."""
    last = np.int64(0)
    is_upper = True  # an abbreviation keeps its point in Vietnamese: TT. NĐ.
    while at < stop:
        point = point_at(data, at)
        size = size_at(data, at)
        kind = classes[point] >> KIND_SHIFT
        if kind == MARK:
            marks = at + size
            while marks < stop and classes[point_at(data, marks)] >> KIND_SHIFT == MARK:
                marks += size_at(data, marks)
            after = point_at(data, marks) if marks < stop else np.int64(32)
            next_kind = classes[after] >> KIND_SHIFT
            if next_kind != WORD and next_kind != DIGIT:
                if habit & SYLLABLES and point == _POINT and is_upper and marks == at + 1:
                    at += 1
                elif habit & TIGHT:
                    while at < stop and _is_technical(np.int64(data[at])):
                        at += 1
                break
            if _is_scheme(data, at, stop):
                return _address(data, at, stop, classes)
            if marks > at + size:
                if not habit & TIGHT or _is_dots(data, at, marks):
                    break
            elif point == _POINT:
                if 97 <= last <= 122 and 65 <= after <= 90:  # the missing space after a sentence
                    break
                if habit & SYLLABLES and (next_kind != DIGIT or not 48 <= last <= 57):
                    if is_upper:
                        at += 1
                    break
            elif point == _HYPHEN:
                if next_kind != DIGIT and not habit & HYPHENATED:
                    break
            elif point in (_COLON, _SLASH, _EQUALS, _LESS, _MORE):
                if next_kind != DIGIT or habit & SYLLABLES:
                    break
            elif point == _COMMA:
                if next_kind != DIGIT and not 48 <= last <= 57:
                    break
            elif point in (_APOSTROPHE, _QUOTE) or (point != _AT and not habit & TIGHT):
                break
            at = marks
            last = np.int64(0)
            continue
        if kind != WORD and kind != DIGIT:
            break
        last = point
        is_upper &= 65 <= point <= 90 or point == 0x110
        at += size
    return at


@njit(cache=True)
def _is_technical(byte: np.int64) -> bool:
    r"""Marks of paths, options and formulas, which stay with the word they touch: / \ | ~ ^ @."""
    return byte in (_SLASH, 92, 124, 126, 94, _AT)


@njit(cache=True)
def _opens(point: np.int64, size: int) -> bool:
    """Whether marks begin a technical string: .venv, --option, /path."""
    return _is_technical(point) or point == _HYPHEN or (point == _POINT and size == 1)


@njit(cache=True)
def _is_dots(data: np.ndarray, at: int, end: int) -> bool:
    """Points or hyphens only."""
    for i in range(at, end):
        if data[i] != data[at]:
            return False
    return data[at] == _POINT or data[at] == _HYPHEN


@njit(cache=True)
def _is_scheme(data: np.ndarray, at: int, stop: int) -> bool:
    """://"""
    return at + 2 < stop and data[at] == _COLON and data[at + 1] == _SLASH and data[at + 2] == _SLASH


@njit(cache=True)
def _address(data: np.ndarray, at: int, stop: int, classes: np.ndarray) -> int:
    """The end of a URL: its last letter, digit or slash before a space, quotation mark, bracket or non-ASCII letter."""
    end = at
    while at < stop:
        byte = data[at]
        if byte <= 32 or byte >= 127 or byte in (34, 39, 41, 60, 62, 93, 96, 125):
            break
        at += 1
        if classes[byte] >> KIND_SHIFT != MARK or byte == _SLASH:
            end = at
    return end


@njit(cache=True)
def _mark(data: np.ndarray, at: int, stop: int, classes: np.ndarray, has_before: bool, habit: np.uint8) -> int:
    """The end of a mark: a run of points or hyphens, an apostrophe with the letters after it, else itself."""
    point = point_at(data, at)
    start = at
    at += size_at(data, at)
    follows_word = False
    if has_before:
        kind = classes[point_at(data, before(data, start))] >> KIND_SHIFT
        follows_word = kind in (WORD, DIGIT)
    if point in (_APOSTROPHE, _QUOTE):
        if follows_word and at < stop and classes[point_at(data, at)] >> KIND_SHIFT == WORD:
            at = _run(data, at, stop, classes, WORD)
        return at
    while at < stop and data[at] == point and point in (_POINT, _HYPHEN):
        at += 1
    if not habit & TIGHT or follows_word or not _opens(point, at - start):
        return at
    while at < stop and (_is_technical(np.int64(data[at])) or data[at] == _HYPHEN):
        at += 1
    if at < stop:
        kind = classes[point_at(data, at)] >> KIND_SHIFT
        if kind in (WORD, DIGIT):
            at = _word(data, at, stop, classes, habit)
    return at


@njit(cache=True)
def _korean(
    data: np.ndarray, at: int, stop: int, classes: np.ndarray, tails: np.ndarray, inner: np.ndarray,
    starts: np.ndarray, ends: np.ndarray, count: int,
) -> tuple[int, int]:  # fmt: skip
    """A run of syllables: its stem, then at most two inner endings and one closing one."""
    end = _run(data, at, stop, classes, HANGUL)
    stem = end
    borders = (np.uint32(end), np.uint32(end), np.uint32(end))
    for level in range(3):
        slots = tails if level == 0 else inner
        longest = min(LONGEST, (stem - at) // _THREE - 1)
        cut = stem
        for length in range(longest, 0, -1):
            if contains(slots, data, stem - _THREE * length, length, HANGUL_FIRST):
                cut = stem - _THREE * length
                break
        if cut == stem:
            break
        stem = cut
        borders = (np.uint32(stem), borders[0], borders[1])
    starts[count], ends[count] = at, stem
    count += 1
    for k in range(3):
        last = np.uint32(end) if k == 2 else borders[k + 1]
        if borders[k] < last:
            starts[count], ends[count] = borders[k], last
            count += 1
    return end, count


@njit(cache=True)
def _japanese(
    data: np.ndarray, at: int, stop: int, classes: np.ndarray, kana: np.ndarray, kana_after_han: np.ndarray,
    starts: np.ndarray, ends: np.ndarray, count: int,
) -> tuple[int, int]:  # fmt: skip
    """A run of Chinese characters and hiragana."""
    is_open = False  # whether the last word may take hiragana on
    after_one = False  # whether it is a single Chinese character so far
    while at < stop:
        kind = classes[point_at(data, at)] >> KIND_SHIFT
        if kind == HAN:
            starts[count] = at
            at += size_at(data, at)
            after_one = True
            if at < stop and classes[point_at(data, at)] >> KIND_SHIFT == HAN:
                at += size_at(data, at)
                after_one = False
            ends[count] = at
            count += 1
            is_open = True
            continue
        if kind != HIRAGANA:
            break
        if data[at] >= 0xF0:  # rare kana of higher planes
            starts[count] = at
            at += 4
            ends[count] = at
            count += 1
            is_open = after_one = False
            continue
        slots = kana_after_han if after_one else kana
        room = 1
        while room < LONGEST and at + _THREE * (room + 1) <= stop and _is_kana(data, at + _THREE * room, classes):
            room += 1
        taken = 0
        for length in range(room, 0, -1):
            if contains(slots, data, at, length, KANA_FIRST):
                taken = length
                break
        if taken or not is_open:
            starts[count] = at
            at += _THREE * max(1, taken)
            ends[count] = at
            count += 1
        else:
            at += _THREE
            ends[count - 1] = at
        is_open = taken == 0
        after_one = False
    return at, count


@njit(cache=True)
def _is_kana(data: np.ndarray, at: int, classes: np.ndarray) -> bool:
    return data[at] < 0xF0 and classes[point_at(data, at)] >> KIND_SHIFT == HIRAGANA
