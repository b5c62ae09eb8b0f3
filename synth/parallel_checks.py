"""Filters on pairs of texts that should say the same in two languages.

Contract: `check_pair` gives the first `PairFailure` or None; names become drop reasons `crosslingual.NAME`. Numbers are
compared by value after each language's own notation is undone (1.234,5 and 1,234.5; 1만 400 and 10,400). Translators
write small numbers as words and leave repetitions out, so a number must occur on the other side at least once, as
digits or as a word. Cost: about 1 ms a pair of 2,000 characters,
language identification included.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from itertools import pairwise
from typing import Literal

from pipeline.core.verify.arithmetic import NUMBER, plain
from pipeline.core.verify.expressions import ExpressionError, NumberStyle, parse_number
from synth.language import facts, foreign_share

PairCheck = Literal["structure", "length", "placeholders", "numbers", "language"]
FOREIGN_SHARE = 0.25  # as for thoughts
PARAGRAPH_SHARE = 0.2  # paragraphs one side may have more than the other; ours
LINK = re.compile(r"https?://[^\s<>\"'()\]）」』、。]+")
CODE = re.compile(r"```.*?```|`[^`\n]+`", re.S)
WORDS = re.compile(r"[^\W\d_]+")
STACKED = ("ko", "ja")  # 1만 3천, 2万2,000: parts of falling scale add up


@dataclass(frozen=True)
class Side:
    """One text of a pair."""

    text: str
    language: str


@dataclass(frozen=True)
class PairFailure:
    check: PairCheck
    detail: str


def check_pair(first: Side, second: Side, length_band: float) -> PairFailure | None:
    """The first failure in a fixed order.

    Args:
        first: One side.
        second: The other side, in another language.
        length_band: Factor by which the length ratio may differ from what the two languages usually have.
    """
    for failure in (
        _structure(first, second),
        _length(first, second, length_band),
        _placeholders(first, second),
        _numbers(first, second),
        _language(first),
        _language(second),
    ):
        if failure is not None:
            return failure
    return None


def paragraphs(text: str) -> list[str]:
    return [part for part in text.split("\n\n") if part.strip()]


def _structure(first: Side, second: Side) -> PairFailure | None:
    a, b = len(paragraphs(first.text)), len(paragraphs(second.text))
    if abs(a - b) > PARAGRAPH_SHARE * max(a, b):
        return PairFailure("structure", f"{a} and {b} paragraphs")
    return None


def _length(first: Side, second: Side, band: float) -> PairFailure | None:
    usual = facts(second.language).characters_relative_to_english / facts(first.language).characters_relative_to_english
    ratio = len(second.text) / max(1, len(first.text)) / usual
    if not 1 / band <= ratio <= band:
        return PairFailure("length", f"{ratio:.2f} times the usual ratio")
    return None


def _placeholders(first: Side, second: Side) -> PairFailure | None:
    for pattern in (LINK, CODE):
        a, b = (Counter(pattern.findall(side.text)) for side in (first, second))
        if a != b:
            return PairFailure("placeholders", f"only on one side: {sorted((a - b) + (b - a))[:3]}")
    return None


def _numbers(first: Side, second: Side) -> PairFailure | None:
    written = [set(numbers_in(side.text, side.language)) for side in (first, second)]
    spoken = [number_words_in(side.text, side.language) for side in (first, second)]
    for here, there, words in ((written[0], written[1], spoken[1]), (written[1], written[0], spoken[0])):
        missing = here - there - words
        if missing:
            return PairFailure("numbers", f"{', '.join(map(_shown, sorted(missing)[:3]))} on one side only")
    return None


def _language(side: Side) -> PairFailure | None:
    share = foreign_share(side.text, side.language)
    return PairFailure("language", f"{share:.2f} is not in `{side.language}`") if share > FOREIGN_SHARE else None


def _shown(value: Fraction) -> str:
    return str(value.numerator) if value.denominator == 1 else f"{float(value):g}"


@cache
def _pattern(language: str) -> re.Pattern[str]:
    scales = sorted(facts(language).scales, key=len, reverse=True)
    gap = r"\s*" if language in STACKED else r"\s+"
    end = "" if language in STACKED else r"\b"
    return re.compile(rf"(?P<number>{NUMBER})(?:{gap}(?P<scale>{'|'.join(scales)}){end})?(?P<gap> ?)", re.I)


def numbers_in(text: str, language: str) -> Iterator[Fraction]:
    """The values of the numbers written in digits, with the scale words after them."""
    total = Fraction(0)
    scale = end = 0  # of the number that is being put together; 0: none
    for match in _pattern(language).finditer(plain(text)):
        value = _value(match["number"], facts(language).style)
        factor = facts(language).scales[match["scale"].lower()] if match["scale"] else 1
        if language in STACKED and scale and match.start() == end and value * factor < scale:
            total += value * factor
        else:
            if scale:
                yield total
            total = value * factor
        scale, end = factor, match.end()
        if factor == 1:
            yield total
            scale = 0
    if scale:
        yield total


def _value(number: str, style: NumberStyle) -> Fraction:
    other: NumberStyle = "comma" if style == "point" else "point"
    for reading in (style, other):
        try:
            return Fraction(parse_number(number, reading))
        except ExpressionError:
            continue
    return Fraction(int("".join(filter(str.isdigit, number))))


def number_words_in(text: str, language: str) -> set[Fraction]:
    """Values of the number words that occur; generous in Korean and Japanese, where words are not set apart."""
    known = facts(language).number_words
    if language in STACKED:
        return {Fraction(value) for word, value in known.items() if word in text}
    words = WORDS.findall(text.lower())
    present = set(words) | {f"{a} {b}" for a, b in pairwise(words)}
    return {Fraction(value) for word, value in known.items() if word in present}
