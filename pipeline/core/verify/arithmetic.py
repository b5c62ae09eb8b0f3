"""Stated arithmetic: every `a op b = c` a text claims, judged with exact rational numbers.

Contract: `stated(text)` finds equations between numbers in running text in any of our languages, in LaTeX or plain,
and says of each whether it holds. What cannot be read with certainty (a variable in it, a unit inside, a function
name before it) is left out rather than accused. An equation counts as right when some usual reading of its numbers
(1,234.5 or 1.234,5; 4 % as 4 or as 0.04) makes it true. Cost: about 5 microseconds an equation.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from pipeline.core.verify.expressions import (
    PRODUCT,
    SPACES,
    SUM,
    ExpressionError,
    NumberStyle,
    decimals_of,
    evaluate_plain,
    evaluate_tokens,
)

Tolerance = Literal["exact", "rounded"]
APPROXIMATE = ("≈", "≒")
RELATIONS = frozenset({"=", *APPROXIMATE})
APPROXIMATE_SHARE = Fraction(5, 100)  # of the larger side; ours
STYLES: tuple[NumberStyle, ...] = ("point", "comma")

NUMBER = rf"\d+(?:[.,{SPACES}]\d+)*"
LATEX = {
    "{,}": ",", "{.}": ".", "\\times": "×", "\\cdot": "·", "\\div": "÷", "\\approx": "≈", "\\%": "%",
    "\\,": SPACES[2], "\\!": "", "\\;": " ", "\\left(": "(", "\\right)": ")", "$": " ", "**": "^", "`": " ",
}  # fmt: skip
LATEX_MARKS = re.compile("|".join(re.escape(mark) for mark in LATEX))
MARKS = r"[+\-−–×*·⋅÷/:^()!%=≈≒]"
_PIECE = rf"{NUMBER}|(?!(?<!\s):(?=\s)){MARKS}|mod\b"  # a colon that ends a word is no division
RUN = re.compile(rf"(?:{_PIECE})(?:{_PIECE}|[ \t])*")
PIECE = re.compile(rf"{NUMBER}|{MARKS}|mod")
LETTER_TIMES = re.compile(r"(?<=\d) x (?=\d)")
SPACED_THOUSANDS = re.compile(r"(?<=\d) (?=\d{3}(?!\d))")  # 420 000
BULLET = re.compile(r"^[ \t]*(?:[-*•–]|\d+[.)])\s+", re.M)
FUNCTION_BEFORE = re.compile(
    r"(?:(?<![A-Za-zÀ-ɏ])(?:log|ln|lg|sin|cos|tan|exp|sqrt|gcd|lcm|min|max)|√|\\\w+)\s*$", re.I
)
ATTACHED_BEFORE = re.compile(r"[A-Za-zÀ-ɏ_)\]}\\|^,.]$")  # Korean and Japanese write no space before a number
VARIABLE_AFTER = re.compile(r"^(?:[A-Za-z_\\{(\[^|√]|\s+[abijknxyz](?![A-Za-z])|\s*[√\\])")
REMAINDER_AFTER = re.compile(
    r"^[\s,;(]*(?:with |mit |con |và )?(?:a )?(?:remainder|rest|resto|r\b|dư|나머지|余り|あまり|…|\.\.\.)", re.I
)
NEAR = 24  # characters around an equation that say whether it is whole
SIGNS = ("-", "−")
VARIABLE_BEFORE = re.compile(r"(?<![A-Za-zÀ-ɏ])[A-Za-z]\s*$|[\d)\]}]\s*$")
OPERATORS = frozenset(SUM) | frozenset(PRODUCT) | {"^", "!", "%"}


@dataclass(frozen=True)
class Stated:
    """One equation between two neighbouring sides."""

    text: str
    right: bool


def stated(text: str, tolerance: Tolerance = "exact") -> list[Stated]:
    """Every equation between numbers in `text`, in order.

    Args:
        text: Running text; equations end at the end of their line.
        tolerance: `rounded` also accepts a last side rounded to the decimals it shows, and `≈` within 5 %.
    """
    found: list[Stated] = []
    for line in plain(text).split("\n"):
        if "=" in line or any(mark in line for mark in APPROXIMATE):
            for run in _runs(line):
                found.extend(_judge(run, tolerance))
    return found


def plain(text: str) -> str:
    """Text with the LaTeX and Markdown marks that stand between numbers put into plain signs."""
    if "\\" in text or "{" in text or "$" in text or "`" in text or "**" in text:
        text = LATEX_MARKS.sub(lambda match: LATEX[match.group()], text)
    text = SPACED_THOUSANDS.sub("", text)
    return BULLET.sub("", LETTER_TIMES.sub(" × ", text))


@dataclass(frozen=True)
class _Run:
    """Neighbouring numbers and marks, with the text around them."""

    tokens: tuple[str, ...]
    before: str
    after: str
    sticks: bool  # no space between the first two tokens

    @property
    def begins_whole(self) -> bool:
        """Whether the first side is all there: nothing attached before it, no function name, no operator of a term
        that could not be read (`2x + 3 = 5`); a sign that sticks to its number (`is -3 + 5 = 2`) is its own."""
        if ATTACHED_BEFORE.search(self.before) or FUNCTION_BEFORE.search(self.before):
            return False
        if self.tokens[0] not in OPERATORS:
            return True
        return self.tokens[0] in SIGNS and self.sticks and not VARIABLE_BEFORE.search(self.before)


def _runs(line: str) -> Iterator[_Run]:
    """Longest stretches of numbers and marks that hold a relation."""
    for match in RUN.finditer(line):
        text = match.group()
        if "=" not in text and "≈" not in text and "≒" not in text:
            continue
        start = match.start()
        end = match.start() + len(text.rstrip(" \t"))
        sticks = line[start + 1 : start + 2] not in ("", " ", "\t")
        yield _Run(tuple(PIECE.findall(text)), line[max(0, start - NEAR) : start], line[end : end + NEAR], sticks)


def _judge(run: _Run, tolerance: Tolerance) -> Iterator[Stated]:
    sides, relations = _sides(run.tokens)
    if not run.begins_whole:
        sides[0] = ()
    if VARIABLE_AFTER.match(run.after):
        sides[-1] = ()
    elif sides[-1] and sides[-1][-1] in SUM | {":": ":"}:
        sides[-1] = sides[-1][:-1]  # a dash or colon of the sentence
    for left, relation, right in zip(sides, relations, sides[1:], strict=False):
        if not left or not right or (len(left) < 2 and len(right) < 2):
            continue
        if right is sides[-1] and REMAINDER_AFTER.match(run.after):
            continue
        holds = _holds(left, relation, right, tolerance)
        if holds is not None:
            yield Stated(" ".join((*left, relation, *right)), holds)


def _sides(tokens: Sequence[str]) -> tuple[list[tuple[str, ...]], list[str]]:
    sides: list[tuple[str, ...]] = []
    relations: list[str] = []
    start = 0
    for index, token in enumerate(tokens):
        if token in RELATIONS:
            sides.append(tuple(tokens[start:index]))
            relations.append(token)
            start = index + 1
    sides.append(tuple(tokens[start:]))
    return sides, relations


def _holds(left: tuple[str, ...], relation: str, right: tuple[str, ...], tolerance: Tolerance) -> bool | None:
    """True or False, or None when no reading makes both sides expressions."""
    try:
        values = [evaluate_plain(left), evaluate_plain(right)]
    except ExpressionError:
        return None
    if values[0] is not None and values[1] is not None:  # without separators and percent there is one reading
        return _equal(values[0], values[1], relation, right, "point", tolerance)
    readable = False
    for style in STYLES:
        for percent in (False, True) if "%" in left or "%" in right else (True,):
            try:
                read = [evaluate_tokens(side if percent else _bare(side), style) for side in (left, right)]
            except ExpressionError:
                continue
            if not all(isinstance(value, int | Fraction) for value in read):
                continue
            readable = True
            if _equal(read[0], read[1], relation, right, style, tolerance):
                return True
    return False if readable else None


def _bare(side: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(token for token in side if token != "%")


def _equal(
    left: Fraction | int,
    right: Fraction | int,
    relation: str,
    right_tokens: tuple[str, ...],
    style: NumberStyle,
    tolerance: Tolerance,
) -> bool:
    if left == right:
        return True
    if tolerance == "exact":
        return False
    distance = abs(left - right)
    if relation in APPROXIMATE:
        return distance <= APPROXIMATE_SHARE * max(abs(left), abs(right))
    numbers = [token for token in right_tokens if token[:1].isdigit()]
    places = decimals_of(numbers[0], style) if len(numbers) == 1 else 0
    return places > 0 and distance * 2 * 10**places <= 1
