"""Normalisation: mojibake, line endings, control and zero-width characters, NFC; every change counted.

Never NFKC: super- and subscripts, ligatures of formulas and full-width forms are content. Zero-width joiner and
non-joiner stay: emoji and several scripts need them. Mojibake is repaired per line, only where ftfy finds the line
improbable, with `fix_encoding` alone (Speer 2019, ftfy); no other repair of that library is used.
Contract: idempotent; a document of nothing but removed characters is dropped (`normalise.empty`). Long texts are made
line by line, since nothing here looks beyond a line feed. Memory: a few megabytes, and the new text where it differs.
Cost: two searches for character classes where nothing is to be changed; ftfy's own pattern, which is slow, runs only
on lines that `_suspects` finds.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Literal

import ftfy
import ftfy.badness
import pyarrow as pa

from pipeline.core.config import Config
from stages.block import Dropped, Outcome, outcome, with_changed_texts
from stages.long_texts import Utf8, decoded, pieces, views

Change = Literal["mojibake", "line-endings", "controls", "zero-width", "nfc"]
CHANGES: tuple[Change, ...] = ("mojibake", "line-endings", "controls", "zero-width", "nfc")

_LINE_ENDS = re.compile("\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
_CONTROLS = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ufff9-\ufffb\ufffe\uffff]")
# Soft hyphen, zero-width space, word joiner, byte order mark, directional marks and isolates, invisible operators.
_ZERO_WIDTH = re.compile("[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff]")
_ANY = re.compile(
    "[\r\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb\ufffe\uffff\ud800-\udfff]"
)
# Letters that may be mojibake with any neighbour; all other kinds need two suspicious characters in a row.
_ALONE = "ŒœÂÃØÙВГРСΒΓΞΟ\x80-\x9f"
_SURROGATES = re.compile("[\ud800-\udfff]")


class NormaliseConfig(Config):
    """Options of the `normalise` block: which changes are made, in this order whatever their order here."""

    changes: tuple[Change, ...] = CHANGES


def normalise_text(text: str, changes: tuple[Change, ...] = CHANGES) -> tuple[str, dict[str, int]]:
    """(normalised text, how many of each change): mojibake in lines, nfc in documents, others in characters."""
    counts: dict[str, int] = {}
    if "mojibake" in changes and not text.isascii():
        text, counts["mojibake_lines"] = _without_mojibake(text)
    if _ANY.search(text) is not None:
        for change, pattern, new in (
            ("line-endings", _LINE_ENDS, "\n"),
            ("controls", _CONTROLS, ""),
            ("zero-width", _ZERO_WIDTH, ""),
        ):
            if change in changes:
                text, counts[change.replace("-", "_")] = pattern.subn(new, text)
        text, counts["surrogates"] = _SURROGATES.subn("\ufffd", text)  # they have no UTF-8 and could not be stored
    if "nfc" in changes and not unicodedata.is_normalized("NFC", text):
        text, counts["nfc_documents"] = unicodedata.normalize("NFC", text), 1
    return text, {name: count for name, count in counts.items() if count}


def _without_mojibake(text: str) -> tuple[str, int]:
    suspects = _suspects()
    if suspects.search(text) is None:
        return text, 0
    lines = text.split("\n")
    repaired = 0
    for number, line in enumerate(lines):
        if not line.isascii() and suspects.search(line) and ftfy.badness.is_bad(line):
            fixed = ftfy.fix_encoding(line)
            if fixed != line:
                lines[number], repaired = fixed, repaired + 1
    return ("\n".join(lines), repaired) if repaired else (text, 0)


@lru_cache(maxsize=1)
def _suspects() -> re.Pattern[str]:
    """Finds something in every line that `ftfy.badness.is_bad` finds bad, many times as fast."""
    source = ftfy.badness.BADNESS_RE.pattern
    points = {ord(char) for char in source if ord(char) > 0x7F}
    for first, last in re.findall("([^\x00-\x7f])-([^\x00-\x7f])", source):
        points.update(range(ord(first), ord(last) + 1))
    members = "".join(map(chr, sorted(points)))
    return re.compile(f"[{members}]{{2}}|[{_ALONE}]")


class Normalise:
    """The block."""

    def __init__(self, config: NormaliseConfig) -> None:
        self._config = config

    def apply(self, documents: pa.Table) -> Outcome:
        counts: Counter[str] = Counter()
        dropped: list[Dropped] = []
        changed: dict[int, Sequence[Utf8]] = {}
        for row, text in enumerate(views(documents["text"])):
            one = _Normalised(text, self._config.changes)
            if one.empty:
                dropped.append(Dropped(row, "normalise.empty", f"{one.characters} characters"))
            if one.changed:
                changed[row] = one.parts
                counts["normalise.documents_changed"] += 1
                counts.update({f"normalise.{name}": count for name, count in one.counts.items()})
        return outcome(with_changed_texts(documents, changed), dropped, counts=counts)


class _Normalised:
    """A text, normalised piece by piece.

    Attributes:
        parts: Its UTF-8; unchanged pieces where they were.
        counts: As those of `normalise_text`.
        characters: Of the text as it was.
    """

    def __init__(self, text: memoryview, changes: tuple[Change, ...]) -> None:
        self.parts: list[Utf8] = []
        self.counts: Counter[str] = Counter()
        self.changed, self.empty, self.characters = False, True, 0
        for start, end in pieces(text):
            old = decoded(text[start:end])
            new, made = normalise_text(old, changes)
            self.parts.append(text[start:end] if new == old else new.encode())
            self.counts.update(made)
            self.changed |= new != old
            self.empty &= not new or new.isspace()
            self.characters += len(old)
        if self.counts["nfc_documents"]:
            self.counts["nfc_documents"] = 1


def make(config: NormaliseConfig, paths: Mapping[str, tuple[str, ...]]) -> Normalise:
    """Catalog entry."""
    return Normalise(config)
