"""What is not prose: code, mathematics, markup, addresses. Masked before a language is looked for.

Contract: every masked stretch becomes one space and as many line feeds as it held, so that lines keep their numbers.
`masked_pieces` gives the same for a long text as `mask` for the whole, a piece at a time: a piece ends where nothing
is open that the rest of the text closes. A piece is longer than others where a formula or a block of code is.
Cost: a search for each sign; a pattern is tried only where its sign occurs, each starts with a literal or a word edge.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

import numpy as np

from stages.long_texts import SEARCHED_BYTES, decoded, pieces

# (sign that must occur, pattern), in this order: what is in code is no formula and no address.
_PATTERNS = tuple(
    (sign, re.compile(pattern, re.DOTALL))
    for sign, pattern in (
        ("```", r"```.*?(?:```|\Z)"),
        ("~~~", r"~~~.*?(?:~~~|\Z)"),
        ("`", r"`[^`\n]+`"),
        ("$", r"\$\$.*?\$\$|(?<![\\$])\$(?!\s)[^$\n]+?(?<!\s)\$"),
        ("\\[", r"\\\[.*?\\\]"),
        ("\\(", r"\\\(.*?\\\)"),
        ("\\begin{", r"\\begin\{(equation|align|gather|math)\*?\}.*?\\end\{\1\*?\}"),
        ("<", r"<[a-zA-Z/!][^>\n]*>"),
        ("://", r"https?://\S+"),
        ("www.", r"www\.\S+"),
        ("@", r"(?<!\S)[^\s@]++@\S+"),
    )
)


def mask(text: str) -> str:
    """The text without its code, mathematics, markup and addresses."""
    for sign, pattern in _PATTERNS:
        if sign in text:
            text = pattern.sub(_blank, text)
    return text


def _blank(match: re.Match[str]) -> str:
    return " " + "\n" * match.group().count("\n")


def masked_pieces(text: memoryview) -> Iterator[str]:
    """`mask` of the NFC of a text in UTF-8, in pieces of whole lines that joined are the whole's."""
    start = needed = 0
    for _, end in pieces(text):
        if end < needed:
            continue
        piece = unicodedata.normalize("NFC", decoded(text[start:end]))
        open_ones = _left_open(piece) if end < len(text) else iter(())
        for closing in open_ones:
            place = _found(text, closing, end)
            if place is not None:
                needed = place + len(closing)
                break
            if closing in _FENCES:  # an open block of code lasts to the end
                yield mask(piece)
                yield "\n" * int(np.count_nonzero(np.frombuffer(text[end:], np.uint8) == LINE_FEED))
                return
        else:
            yield mask(piece)
            start = end


LINE_FEED = 10
_FENCES = (b"```", b"~~~")
# What may span lines: what is left of its beginning once its pattern was masked, and its end.
_SPANNING = {
    "$": (re.compile(r"\$\$"), b"$$"),
    "\\[": (re.compile(r"\\\["), b"\\]"),
    "\\(": (re.compile(r"\\\("), b"\\)"),
    "\\begin{": (re.compile(r"\\begin\{(?:equation|align|gather|math)\*?\}"), b"\\end{"),
}


def _left_open(text: str) -> Iterator[bytes]:
    """What would close each block or formula that may be open at the end of a text, in the order of the patterns."""
    for sign, pattern in _PATTERNS:
        if sign not in text:
            continue
        if sign.encode() in _FENCES and text.count(sign) % 2:
            yield sign.encode()
        text = pattern.sub(_blank, text)
        beginning, closing = _SPANNING.get(sign, (None, b""))
        if beginning is not None and beginning.search(text):
            yield closing


def _found(text: memoryview, mark: bytes, start: int) -> int | None:
    """The first place of a mark from `start` on."""
    for at in range(start, len(text), SEARCHED_BYTES):
        place = bytes(text[at : at + SEARCHED_BYTES + len(mark) - 1]).find(mark)
        if place >= 0:
            return at + place
    return None
