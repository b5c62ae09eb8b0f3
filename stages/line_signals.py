"""Signals of one document's lines and paragraphs: Gopher's repeated lines, FineWeb's line ends, C4's kept lines.

Definitions, as datatrove implements them: Gopher splits lines at runs of line feeds and paragraphs at two or more
(Rae et al. 2021, table A1); FineWeb looks at lines that are not blank (Penedo et al. 2024, section 3.6); bullets,
ellipses and C4 (Raffel et al. 2020, section 2.2) split where `str.splitlines` does. C4's rules are counted thrice:
for lines that end in an ASCII mark as published, for lines with any end (FineWeb's own use of it), and for lines that
end in a sentence mark of any script, where two characters count as a word in scripts without spaces (ours).
Equal lines are found by 64-bit hashes. Cost: a few passes over the bytes, about 150 MB/s.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from stages.characters import (
    LINE_END,
    RARE,
    SENTENCE_END,
    SPACE,
    UNSPACED,
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
C4_FIELDS = ("lorem_ipsum", "curly_bracket", "sentences", "lines_kept")
ASCII_END, ANY_END, SCRIPT_END = range(3)  # which lines C4's rules may keep
COUNTS = C4 + 3 * len(C4_FIELDS)
SHORT_LINE_CHARACTERS = 30  # FineWeb
_LEAST_WORDS, _LONGEST_WORD = 3, 1000  # of a line that C4 keeps
_LF, _DOT, _OPEN, _CLOSE = 10, 46, 91, 93
# Lower-case phrases; the first is fatal to a page, the others to their line (the second names the script).
PHRASES = (
    "lorem ipsum", "javascript", "terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies",
    "use cookies",
)  # fmt: skip


def phrase_table() -> tuple[np.ndarray, np.ndarray]:
    """(bytes of all phrases, [phrases + 1] where each begins)."""
    raw = [phrase.encode() for phrase in PHRASES]
    return np.frombuffer(b"".join(raw), np.uint8), np.cumsum([0, *map(len, raw)], dtype=np.int64)


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
    _c4(data, start, end, classes, phrases, phrase_first, row)


@njit(cache=True)
def _c4(
    data: np.ndarray, start: int, end: int, classes: np.ndarray, phrases: np.ndarray, phrase_first: np.ndarray,
    row: np.ndarray,
) -> None:  # fmt: skip
    """One stripped line under C4's rules, in datatrove's order."""
    words, longest, length, characters, unspaced = 0, 0, 0, 0, np.uint16(0)
    is_lorem = is_curly = is_script = is_policy = False
    at = start
    while at < end:
        flags = classes[point_at(data, at)]
        characters += 1
        inside = np.int64(flags & SPACE == 0)  # without a branch: word ends cannot be foreseen
        words += inside & np.int64(length == 0)
        length = (length + 1) * inside
        longest = max(longest, length)
        if flags & (RARE | UNSPACED):
            unspaced |= flags & UNSPACED
            is_curly |= data[at] == 123
            which = _phrase(data, start, end, at, phrases, phrase_first)
            is_lorem |= which == 0
            is_script |= which == 1
            is_policy |= which > 1
        at += size_at(data, at)
    if longest > _LONGEST_WORD:
        return
    few = words < _LEAST_WORDS
    few_of_script = few and not (unspaced and characters >= 2 * _LEAST_WORDS)
    if few_of_script:
        return
    ending = _ending(data, start, end)
    is_ellipsis = (
        ending - start >= 3 and data[ending - 1] == _DOT and data[ending - 2] == _DOT and data[ending - 3] == _DOT
    )
    is_ascii = is_of_script = False
    if ending > start and not is_ellipsis:
        last = data[ending - 1]
        is_ascii = last == _DOT or last == 63 or last == 33 or last == 34 or last == 39
        is_of_script = is_ascii or classes[point_at(data, before(data, ending))] & SENTENCE_END != 0
    sentences = 0
    for which in range(3):
        if (which == ASCII_END and not is_ascii) or (which == SCRIPT_END and not is_of_script):
            continue
        if which != SCRIPT_END and few:
            continue
        part = row[C4 + 4 * which : C4 + 4 * which + 4]
        part[0] += is_lorem
        if is_script:
            continue
        part[1] += is_curly
        if is_policy:
            continue
        if sentences == 0:
            sentences = _sentences(data, start, end, classes)
        part[2] += sentences
        part[3] += 1


@njit(cache=True)
def _phrase(data: np.ndarray, start: int, end: int, at: int, phrases: np.ndarray, phrase_first: np.ndarray) -> int:
    """The phrase whose sign is the letter at `at`, or -1: i(ps)um, (ja)va, o(f )use, pri(va)cy, coo(ki)e."""
    low = data[at] | 0x20
    after = (data[at + 1] | 0x20) if at + 1 < end else 0
    is_sign = (
        ((low == 106 or low == 118) and after == 97)
        or (low == 107 and after == 105)
        or (low == 112 and after == 115)
        or (low == 102 and after == 32)
    )
    if not is_sign:
        return -1
    for which in range(phrase_first.shape[0] - 1):
        a, b = phrase_first[which], phrase_first[which + 1]
        for shift in range(b - a):
            if phrases[a + shift] != low:
                continue
            begin = at - shift
            if begin < start or begin + b - a > end:
                break
            same = True
            for k in range(b - a):
                byte = data[begin + k]
                if 65 <= byte <= 90:
                    byte |= 0x20
                if byte != phrases[a + k]:
                    same = False
                    break
            if same:
                return which
            break
    return -1


@njit(cache=True)
def _citation(data: np.ndarray, at: int, end: int) -> int:
    """Bytes of a citation mark of Wikipedia at `at`: [], [12], [edit], [citation needed]; 0 if there is none."""
    if data[at] != _OPEN:
        return 0
    close = at + 1
    while close < end and data[close] != _CLOSE and close - at < 20:
        close += 1
    if close >= end or data[close] != _CLOSE:
        return 0
    length = close - at - 1
    digits = True
    for i in range(at + 1, close):
        digits &= 48 <= data[i] <= 57
    if digits:
        return length + 2
    if length == 4 and _equal(data, at + 1, b"edit"):
        return 6
    if length == 15 and _equal(data, at + 1, b"citation needed"):
        return 17
    return 0


@njit(cache=True)
def _equal(data: np.ndarray, at: int, text: bytes) -> bool:
    for i in range(len(text)):  # noqa: SIM110  (numba has no generator `all`)
        if data[at + i] != text[i]:
            return False
    return True


@njit(cache=True)
def _ending(data: np.ndarray, start: int, end: int) -> int:
    """Where the line ends once citation marks at its end are gone."""
    while end > start and data[end - 1] == _CLOSE:
        at = end - 1
        while at > start and data[at] != _OPEN and end - at < 20:
            at -= 1
        size = _citation(data, at, end)
        if size == 0 or at + size != end:
            return end
        end = at
    return end


@njit(cache=True)
def _sentences(data: np.ndarray, start: int, end: int, classes: np.ndarray) -> int:
    """Runs of sentence marks, with what closes them, before a space, a non-ASCII letter or the end."""
    count = 0
    at = start
    has_text = False  # since the last end
    while at < end:
        size = size_at(data, at)
        if classes[point_at(data, at)] & SENTENCE_END:
            while at < end and classes[point_at(data, at)] & SENTENCE_END:
                at += size_at(data, at)
            while at < end and (data[at] in (34, 39, 41, _CLOSE) or _closes(data, at)):
                at += size_at(data, at)
            if at == end or data[at] >= 0x80 or classes[data[at]] & SPACE:
                count += has_text
                has_text = False
            continue
        has_text |= classes[point_at(data, at)] & SPACE == 0
        at += size
    return max(1, count + has_text)


@njit(cache=True)
def _closes(data: np.ndarray, at: int) -> bool:
    """” ’ 」 』 ）."""
    point = point_at(data, at) if data[at] >= 0xE0 else 0
    return point == 0x201D or point == 0x2019 or point == 0x300D or point == 0x300F or point == 0xFF09
