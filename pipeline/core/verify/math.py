"""Answers: whether two written answers mean the same, and whether a worked solution is right throughout.

Contract: `equivalent` compares numbers, fractions, expressions, assignments (`x = 2, y = 3`) and sets exactly; an
approximation of an irrational number is not the number. `verify_solution` needs the right answer at the end and every
stated equation right, and at least as many of them as the solver says it wrote, so that it cannot pass by finding
nothing. Cost: 10-200 microseconds for numbers; sympy's simplification (milliseconds) only when letters occur.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any
from unicodedata import normalize

from pipeline.core.verify.arithmetic import stated
from pipeline.core.verify.expressions import ExpressionError, NumberStyle, evaluate

ASSIGNMENT = re.compile(r"^([A-Za-z]\w*)\s*=\s*(.+)$")
BOXED = re.compile(r"\\boxed\{((?:[^{}]|\{[^{}]*\})*)\}")
FRACTION = re.compile(r"\\[dt]?frac\{([^{}]+)\}\{([^{}]+)\}")


@dataclass(frozen=True)
class Verdict:
    """Whether a solution is right, and if not, the first thing that is wrong."""

    right: bool
    reason: str = ""
    detail: str = ""


def equivalent(given: str, expected: str, style: NumberStyle = "point") -> bool:
    """Whether the answer `given` means what `expected` means. Text that neither side can parse compares as text."""
    given, expected = _tidy(given), _tidy(expected)
    if given == expected:
        return True
    if given[:1] + given[-1:] == "{}" and expected[:1] + expected[-1:] == "{}":
        return _same_set(_parts(given[1:-1]), _parts(expected[1:-1]), style)
    given_parts, expected_parts = _parts(given), _parts(expected)
    if len(given_parts) != len(expected_parts):
        return _same_value(given, expected, style)
    named = [_assignments(parts) for parts in (given_parts, expected_parts)]
    if len(expected_parts) == 1:
        given_value = next(iter(named[0].values())) if named[0] else given_parts[0]
        expected_value = next(iter(named[1].values())) if named[1] else expected_parts[0]
        return _same_value(given_value, expected_value, style)
    if named[0] and named[1]:
        return named[0].keys() == named[1].keys() and all(
            _same_value(named[0][name], value, style) for name, value in named[1].items()
        )
    return all(_same_value(a, b, style) for a, b in zip(given_parts, expected_parts, strict=True))


def verify_solution(text: str, answer_label: str, expected: str, stated_equations: int) -> Verdict:
    """Judge a worked solution whose last line is `answer_label` and the answer.

    Args:
        text: The whole sample, in exact arithmetic throughout.
        answer_label: What the last line begins with, for example `Answer:`.
        expected: The answer of an independent solver.
        stated_equations: How many equations the text must at least contain.
    """
    last = text.rstrip().rsplit("\n", 1)[-1]
    if not last.startswith(answer_label):
        return Verdict(False, "no_answer", f"the last line is `{last[:80]}`")
    given = last[len(answer_label) :].strip()
    if not equivalent(given, expected):
        return Verdict(False, "wrong_answer", f"`{given}`, expected `{expected}`")
    equations = stated(text)
    for equation in equations:
        if not equation.right:
            return Verdict(False, "wrong_step", equation.text)
    if len(equations) < stated_equations:
        return Verdict(False, "missing_steps", f"{len(equations)} equations found of {stated_equations}")
    return Verdict(True)


def _tidy(answer: str) -> str:
    # Full-width digits and signs are ordinary ones in Japanese and Korean answers: NFKC folds them.
    answer = normalize("NFKC", answer).strip().strip("$").strip()
    if boxed := BOXED.findall(answer):
        answer = boxed[-1]
    answer = FRACTION.sub(r"(\1)/(\2)", answer).replace("\\cdot", "·").replace("\\times", "×").replace("\\pi", "π")
    return re.sub(r"\\[!,;]|\\left|\\right", "", answer).replace("\\{", "{").replace("\\}", "}").strip().rstrip(".。")


def _parts(answer: str) -> list[str]:
    """Parts at `, ` or `;` (a comma without a space belongs to a number)."""
    return [part.strip() for part in re.split(r";|,\s+", answer) if part.strip()]


def _assignments(parts: list[str]) -> dict[str, str]:
    matches = [ASSIGNMENT.match(part) for part in parts]
    return {match[1]: match[2] for match in matches if match} if all(matches) else {}


def _same_set(given: list[str], expected: list[str], style: NumberStyle) -> bool:
    return all(any(_same_value(a, b, style) for b in expected) for a in given) and all(
        any(_same_value(a, b, style) for a in given) for b in expected
    )


def _same_value(given: str, expected: str, style: NumberStyle) -> bool:
    if given == expected:
        return True
    try:
        left, right = evaluate(given, style), evaluate(expected, style)
    except ExpressionError:
        return False
    return same(left, right)


def same(left: Any, right: Any) -> bool:
    """Exact equality of two evaluated expressions."""
    if isinstance(left, int | Fraction) and isinstance(right, int | Fraction):
        return left == right
    import sympy

    return sympy.simplify(sympy.sympify(left) - sympy.sympify(right)) == 0
