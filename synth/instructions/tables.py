"""Questions about tables whose answers are computed: a cell, a count, the largest, the smallest, a total, a difference.

Contract: a table is a Markdown table in the question; what is asked is a name of `ASKED` with columns and row keys.
The verdict reads the table back from the question and works the answer out from what it says, with exact numbers in
the language's own notation. Ties and repeated keys make a question ambiguous and are not asked. Cost: 0.1 ms.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from random import Random
from typing import Any

from pipeline.core.verify.expressions import ExpressionError, NumberStyle, parse_number
from pipeline.core.verify.instructions import lines
from pipeline.core.verify.math import Verdict
from synth.families.base import Phrases
from synth.instructions.exercise import Conversation, say_in
from synth.language import facts

ASKED = ("lookup", "largest", "smallest", "above", "total", "difference")
DIGITS = re.compile(r"[0-9][0-9.,]{0,38}")  # with marks of either notation: what they mean says `parse_number`
MOST_ADDED = 12  # rows of a total whose working is written out


@dataclass(frozen=True)
class Table:
    """Head and rows as text; the first column names the rows."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        rule = "|" + "---|" * len(self.head)
        return "\n".join([_line(self.head), rule, *map(_line, self.rows)])

    def column(self, name: str) -> list[str]:
        place = self.head.index(name)
        return [row[place] for row in self.rows]


@dataclass(frozen=True)
class Asked:
    """A question about a table with its answer."""

    question: str
    steps: str
    answer: str
    facts: dict[str, Any]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def cell(value: str) -> str:
    """Text as it may stand in a Markdown table."""
    return " ".join(value.replace("|", "/").split())


def read_markdown(text: str) -> Table:
    """The first table of a text; raises `ValueError` when there is none."""
    rows = [[part.strip() for part in line.strip("| ").split(" | ")] for line in lines(text) if line.startswith("| ")]
    if len(rows) < 2 or len({len(row) for row in rows}) != 1:
        raise ValueError("no table")
    return Table(rows[0], rows[1:])


def number(text: str, style: NumberStyle) -> Fraction:
    """The exact value of a cell; raises `ExpressionError`."""
    bare = text.strip().replace("−", "-")
    sign = -1 if bare.startswith("-") else 1
    digits = bare.lstrip("+-")
    if not DIGITS.fullmatch(digits):
        raise ExpressionError(f"no number: `{text}`")
    return sign * Fraction(parse_number(digits, style))


def shown(value: Fraction, language: str) -> str:
    """A sum or difference of numbers with decimals, in the language's notation."""
    if value.denominator == 1:
        return str(value.numerator)
    decimals = next(n for n in range(1, 40) if (value * 10**n).denominator == 1)
    scaled = abs(value.numerator * 10**decimals // value.denominator)
    whole, part = divmod(scaled, 10**decimals)
    mark = "." if facts(language).style == "point" else ","
    return f"{'-' if value < 0 else ''}{whole}{mark}{part:0{decimals}d}"


def ask(table: Table, numeric: Sequence[str], dice: Random, language: str) -> Asked | None:
    """A question drawn for the table, or None where its answer would not be the only one."""
    style, say = facts(language).style, say_in("ingest", language)
    kind, column = dice.choice(ASKED), dice.choice(numeric)
    keys = [row[0] for row in table.rows]
    values = dict(zip(keys, (number(text, style) for text in table.column(column)), strict=True))
    threshold = dice.choice(table.column(column))
    a, b = dice.sample(keys, 2)
    told = {"kind": kind, "column": column, "a": a, "b": b, "threshold": threshold}
    ranked = sorted(values.values())
    tie = {
        "largest": ranked[-1] == ranked[-2],
        "smallest": ranked[0] == ranked[1],
        "difference": values[a] == values[b],
    }
    if tie.get(kind) or (kind == "total" and len(keys) > MOST_ADDED):
        return None
    answer = answer_of(table, told, language)
    steps = "\n".join(_steps(table, told, language, say))
    return Asked(_question(told, table, say), steps, answer, told)


def _question(told: Mapping[str, Any], table: Table, say: Phrases) -> str:
    return say(
        f"ask_{told['kind']}",
        column=told["column"],
        head=table.head[0],
        a=told["a"],
        b=told["b"],
        value=told["threshold"],
    )


def _steps(table: Table, told: Mapping[str, Any], language: str, say: Phrases) -> list[str]:
    style = facts(language).style
    texts = dict(zip([row[0] for row in table.rows], table.column(told["column"]), strict=True))
    values = {key: number(text, style) for key, text in texts.items()}
    chosen = {
        "lookup": [told["a"]],
        "difference": [told["a"], told["b"]],
        "above": [key for key in values if values[key] > number(told["threshold"], style)],
    }.get(told["kind"], list(values))
    found = [say("reads", row=key, value=texts[key]) for key in chosen]
    if told["kind"] == "total":
        total = values[chosen[0]]
        for key in chosen[1:]:
            found.append(_equation(total, "+", values[key], language))
            total += values[key]
    if told["kind"] == "difference":
        high, low = sorted((values[told["a"]], values[told["b"]]), reverse=True)
        found.append(_equation(high, "-", low, language))
    return found or [say("none")]


def _equation(left: Fraction, sign: str, right: Fraction, language: str) -> str:
    result = left + right if sign == "+" else left - right
    second = shown(right, language)
    return f"{shown(left, language)} {sign} {f'({second})' if right < 0 else second} = {shown(result, language)}"


def answer_of(table: Table, told: Mapping[str, Any], language: str) -> str:
    """Work the answer out from the table."""
    style = facts(language).style
    texts = dict(zip([row[0] for row in table.rows], table.column(told["column"]), strict=True))
    values = {key: number(text, style) for key, text in texts.items()}
    kind = told["kind"]
    if kind == "lookup":
        return texts[told["a"]]
    if kind in ("largest", "smallest"):
        return (max if kind == "largest" else min)(values, key=lambda key: values[key])
    if kind == "above":
        return str(sum(value > number(told["threshold"], style) for value in values.values()))
    if kind == "total":
        return shown(sum(values.values(), Fraction(0)), language)
    return shown(abs(values[told["a"]] - values[told["b"]]), language)


def judged(one: Conversation) -> Verdict:
    """Judge the answer by the table that stands in the question."""
    say = say_in("ingest", one.language)
    try:
        table = read_markdown(one.question)
        if _question(one.facts, table, say) not in one.question:
            return Verdict(False, "question", "the question is not asked")
        expected = answer_of(table, one.facts, one.language)
    except (ValueError, KeyError, ExpressionError) as error:
        return Verdict(False, "question", f"the table cannot be read: {error}")
    if one.content.strip() != expected:
        return Verdict(False, "wrong_answer", f"`{one.content[:80]}`, expected `{expected}`")
    if one.reasoning and one.reasoning != "\n".join(_steps(table, one.facts, one.language, say)):
        return Verdict(False, "wrong_step", "the working does not follow from the table")
    return Verdict(True)
