"""What a translator must not touch: code, mathematics, links, tags and tables become numbered marks and come back as
they were, byte for byte.

Contract: `restored(masked, pieces)` of what `mask` gives is the text. A text whose marks were lost, doubled or invented
does not restore: `MarkError` says which. Order of marks may change, as word order does. Cost: linear; 30 MB/s.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

PROTECTED = re.compile(
    r"```.*?(?:```|\Z)"  # fenced code
    r"|~~~.*?(?:~~~|\Z)"
    r"|\$\$.*?\$\$|\\\[.*?\\\]|\\\(.*?\\\)"  # mathematics
    r"|\\begin\{(?P<environment>[^}]+)\}.*?\\end\{(?P=environment)\}"
    r"|(?<![\\$\w])\$(?!\s)[^$\n]+?(?<!\s)\$(?![\w$])"
    r"|(?:^[ \t]*\|.*\|[ \t]*(?:\n|\Z))+"  # a table, whole lines
    r"|`[^`\n]+`"
    r"|\]\([^()\s]*(?:\([^()\s]*\)[^()\s]*)*\)"  # target of a Markdown link
    r"|https?://[^\s<>\"')\]）」』、。]+"
    r"|</?[A-Za-z][^<>\n]*>|&(?:#\d+|\w+);"
    r"|⟦[^⟧\n]*⟧?",  # what looks like a mark of ours
    re.S | re.M,
)
MARK = re.compile(r"⟦(\d+)⟧")


class MarkError(Exception):
    """Marks were lost, doubled or invented."""


def mask(text: str) -> tuple[str, tuple[str, ...]]:
    """The text with marks `⟦0⟧`, `⟦1⟧`, …, and what they stand for. A table's last line break stays outside."""
    pieces: list[str] = []

    def marked(match: re.Match[str]) -> str:
        piece = match.group()
        end = "\n" if piece.endswith("\n") else ""
        pieces.append(piece[: len(piece) - len(end)])
        return f"⟦{len(pieces) - 1}⟧{end}"

    return PROTECTED.sub(marked, text), tuple(pieces)


def restored(masked: str, pieces: Sequence[str]) -> str:
    """The text with every mark replaced; raises `MarkError` unless each stands exactly once."""
    found = Counter(int(number) for number in MARK.findall(masked))
    wanted = Counter(range(len(pieces)))
    if found != wanted:
        lost, extra = sorted(wanted - found), sorted(found - wanted)
        raise MarkError(f"lost {lost[:5]}, doubled or invented {extra[:5]} of {len(pieces)}")
    return MARK.sub(lambda match: pieces[int(match[1])], masked)


def renumbered(masked: str, pieces: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """A part of a masked text with marks counted from 0, and what they stand for."""
    own: list[str] = []

    def mark(match: re.Match[str]) -> str:
        own.append(pieces[int(match[1])])
        return f"⟦{len(own) - 1}⟧"

    return MARK.sub(mark, masked), tuple(own)
