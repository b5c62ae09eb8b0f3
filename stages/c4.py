"""C4's rules for one line, counted for the page: which lines it keeps, their sentences, and what is fatal to a page.

Definitions: Raffel et al. 2020 (C4), section 2.2, as datatrove implements them, in its order. They are counted thrice:
for lines that end in an ASCII mark as published, for lines with any end (FineWeb's own use of it), and for lines that
end in a sentence mark of any script, where two characters count as a word in scripts without spaces (ours).
Cost: two looks at each character, about 170 MB/s.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from stages.characters import RARE, SENTENCE_END, SPACE, UNSPACED, before, point_at, size_at

C4_FIELDS = ("lorem_ipsum", "curly_bracket", "sentences", "lines_kept")
ASCII_END, ANY_END, SCRIPT_END = range(3)  # which lines may be kept
VARIANTS = 3
_FIELDS = len(C4_FIELDS)
_LEAST_WORDS, _LONGEST_WORD = 3, 1000  # of a kept line
_DOT, _OPEN, _CLOSE = 46, 91, 93
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
def c4_line(
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
    for which in range(VARIANTS):
        if (which == ASCII_END and not is_ascii) or (which == SCRIPT_END and not is_of_script):
            continue
        if which != SCRIPT_END and few:
            continue
        part = row[_FIELDS * which : _FIELDS * (which + 1)]
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
