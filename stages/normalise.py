"""Normalisation: mojibake, line endings, control and zero-width characters, NFC; every change counted.

Never NFKC: super- and subscripts, ligatures of formulas and full-width forms are content. Zero-width joiner and
non-joiner stay: emoji and several scripts need them. Mojibake is repaired per line, only where ftfy finds the line
improbable, with `fix_encoding` alone (Speer 2019, ftfy); no other repair of that library is used.
Contract: idempotent; a document of nothing but removed characters is dropped (`normalise.empty`).
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from typing import Literal

import ftfy
import ftfy.badness
import pyarrow as pa

from pipeline.core.config import Config
from stages.block import Dropped, Outcome, outcome, with_texts

Change = Literal["mojibake", "line-endings", "controls", "zero-width", "nfc"]
CHANGES: tuple[Change, ...] = ("mojibake", "line-endings", "controls", "zero-width", "nfc")

_LINE_ENDS = re.compile("\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
_CONTROLS = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ufff9-\ufffb\ufffe\uffff]")
# Soft hyphen, zero-width space, word joiner, byte order mark, directional marks and isolates, invisible operators.
_ZERO_WIDTH = re.compile("[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff]")
_SURROGATES = re.compile("[\ud800-\udfff]")


class NormaliseConfig(Config):
    """Options of the `normalise` block: which changes are made, in this order whatever their order here."""

    changes: tuple[Change, ...] = CHANGES


def normalise_text(text: str, changes: tuple[Change, ...] = CHANGES) -> tuple[str, dict[str, int]]:
    """(normalised text, how many of each change): mojibake in lines, nfc in documents, others in characters."""
    counts: dict[str, int] = {}
    if "mojibake" in changes and not text.isascii():
        text, counts["mojibake_lines"] = _without_mojibake(text)
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
    lines = text.split("\n")
    repaired = 0
    for number, line in enumerate(lines):
        if not line.isascii() and ftfy.badness.is_bad(line):
            fixed = ftfy.fix_encoding(line)
            if fixed != line:
                lines[number], repaired = fixed, repaired + 1
    return ("\n".join(lines), repaired) if repaired else (text, 0)


class Normalise:
    """The block."""

    def __init__(self, config: NormaliseConfig) -> None:
        self._config = config

    def apply(self, documents: pa.Table) -> Outcome:
        texts: list[str] = documents["text"].to_pylist()
        counts: Counter[str] = Counter()
        dropped = []
        changed = False
        for row, text in enumerate(texts):
            new, made = normalise_text(text, self._config.changes)
            if not new.strip():
                dropped.append(Dropped(row, "normalise.empty", f"{len(text)} characters"))
            if new != text:
                texts[row], changed = new, True
                counts["normalise.documents_changed"] += 1
                counts.update({f"normalise.{name}": count for name, count in made.items()})
        return outcome(with_texts(documents, texts) if changed else documents, dropped, counts=counts)


def make(config: NormaliseConfig, paths: Mapping[str, tuple[str, ...]]) -> Normalise:
    """Catalog entry."""
    return Normalise(config)
