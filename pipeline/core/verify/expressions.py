"""Expressions: numbers as people write them and a small parser that evaluates them exactly.

Contract: `evaluate` gives an `int`, a `Fraction`, or (when letters occur) a sympy expression; floats never appear and
nothing is passed to `eval`. Text that is no expression, divides by zero or grows beyond `POWER_LIMIT` raises
`ExpressionError`. Cost: about 1 microsecond a token for numbers alone; sympy is imported when a letter occurs.

Two number styles are known: `point` (1,234.5: en, ko, ja) and `comma` (1.234,5: de, es, vi). Thin and no-break spaces
separate thousands in both.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, Literal

NumberStyle = Literal["point", "comma"]
POWER_LIMIT = 512  # bits a power may have times its exponent: keeps 9^9^9 from filling the memory
ROOT_LIMIT = 4096  # the same where the exponent is a fraction, its larger part counted: sympy raises to that

SPACES = "\u00a0\u202f\u2009"  # no-break, narrow no-break, thin
TOKEN = re.compile(
    rf"\d+(?:[.,{SPACES}]\d+)*|\*\*|mod\b|sqrt\b|pi\b|[A-Za-z]|[+\-−–×*·⋅÷/:^()!%√π]",
)
SUM = {"+": "+", "-": "-", "−": "-", "–": "-"}
PRODUCT = {"×": "*", "*": "*", "·": "*", "⋅": "*", "/": "/", "÷": "/", ":": "/", "mod": "%"}
POWER = ("^", "**")
NEGATE = "negate"
RANK = {"+": 1, "-": 1, "*": 2, "/": 2, "%": 2, NEGATE: 3, "^": 4}


class ExpressionError(ValueError):
    """The text is not an expression this parser reads."""


def parse_number(token: str, style: NumberStyle) -> int | Fraction:
    """The exact value of one written number. Raises `ExpressionError` when the marks make no sense in this style."""
    if token.isascii() and token.isdigit():
        return int(token)
    group, mark = (",", ".") if style == "point" else (".", ",")
    whole, *decimals = token.split(mark)
    if len(decimals) > 1:
        raise ExpressionError(f"two decimal marks in `{token}`")
    first, *groups = re.split(f"[{re.escape(group)}{SPACES}]", whole)
    if any(len(digits) != 3 for digits in groups) or (groups and len(first) > 3):
        raise ExpressionError(f"thousands are not grouped by three in `{token}`")
    digits = first + "".join(groups)
    if not decimals:
        return int(digits)
    if not decimals[0].isdigit():
        raise ExpressionError(f"marks after the decimal mark in `{token}`")
    return Fraction(int(digits + decimals[0]), 10 ** len(decimals[0]))


def decimals_of(token: str, style: NumberStyle) -> int:
    """Digits written after the decimal mark."""
    _, _, decimals = token.partition("." if style == "point" else ",")
    return len(decimals)


def tokenize(text: str) -> list[str]:
    """The tokens of an expression; raises `ExpressionError` on anything else."""
    tokens: list[str] = []
    position = 0
    for match in TOKEN.finditer(text):
        if text[position : match.start()].strip():
            raise ExpressionError(f"cannot read `{text[position : match.start()].strip()}`")
        tokens.append(match.group())
        position = match.end()
    if text[position:].strip():
        raise ExpressionError(f"cannot read `{text[position:].strip()}`")
    return tokens


def evaluate(text: str, style: NumberStyle = "point") -> Any:
    """The exact value of an expression; `2x` multiplies, letters are variables, `%` divides by 100."""
    return evaluate_tokens(tokenize(text), style)


def evaluate_tokens(tokens: Sequence[str], style: NumberStyle) -> Any:
    parser = _Parser(tokens, style)
    value = parser.sum()
    if parser.position != len(tokens):
        raise ExpressionError(f"cannot read from `{tokens[parser.position]}` on")
    return value


def evaluate_plain(tokens: Sequence[str]) -> int | Fraction | None:
    """What `evaluate_tokens` gives, for whole numbers, `+ - × / ^` and brackets alone; None for anything else.

    Operator precedence on two stacks (Dijkstra's shunting yard), several times as fast as the general parser. Raises
    `ExpressionError` as it does.
    """
    values: list[int | Fraction] = []
    operators: list[str] = []
    operand_next = True
    for token in tokens:
        if operand_next:
            if token.isascii() and token.isdigit():
                values.append(int(token))
                operand_next = False
            elif token == "(":
                operators.append(token)
            elif token in SUM:
                if SUM[token] == "-":
                    operators.append(NEGATE)
            else:
                return None
        elif token == ")":
            while operators and operators[-1] != "(":
                _reduce(values, operators.pop())
            if not operators:
                return None
            operators.pop()
        else:
            operator = SUM.get(token) or PRODUCT.get(token) or ("^" if token == "^" else "")
            if not operator:
                return None
            rank = RANK[operator]
            # `^` is the only operator that binds to the right: it leaves what stands before it open.
            while operators and (top := RANK.get(operators[-1], 0)) >= rank and not top == rank == RANK["^"]:
                _reduce(values, operators.pop())
            operators.append(operator)
            operand_next = True
    if operand_next:
        return None
    while operators:
        operator = operators.pop()
        if operator == "(":
            return None
        _reduce(values, operator)
    return values[0]


def _reduce(values: list[int | Fraction], operator: str) -> None:
    right = values.pop()
    if operator == NEGATE:
        values.append(-right)
        return
    left = values.pop()
    if operator == "+":
        values.append(left + right)
    elif operator == "-":
        values.append(left - right)
    elif operator == "^":
        values.append(_power(left, right))
    else:
        values.append(_apply(operator, left, right))


class _Parser:
    """Recursive descent: sum > product > sign > power > postfix > atom."""

    def __init__(self, tokens: Sequence[str], style: NumberStyle) -> None:
        self.tokens = tokens
        self.style: NumberStyle = style
        self.position = 0

    def peek(self) -> str:
        return self.tokens[self.position] if self.position < len(self.tokens) else ""

    def take(self) -> str:
        token = self.peek()
        self.position += 1
        return token

    def sum(self) -> Any:
        value = self.product()
        while (token := self.peek()) in SUM:
            self.position += 1
            value = value + self.product() if token == "+" else value - self.product()
        return value

    def product(self) -> Any:
        value = self.sign()
        while token := self.peek():
            if token in PRODUCT:
                self.position += 1
                value = _apply(PRODUCT[token], value, self.sign())
            elif token == "(" or token in ("sqrt", "√", "pi", "π") or (token.isalpha() and token != "mod"):
                value = value * self.power()
            else:
                break
        return value

    def sign(self) -> Any:
        if self.peek() in SUM:
            return self.sign() if self.take() == "+" else -self.sign()
        return self.power()

    def power(self) -> Any:
        base = self.postfix()
        if self.peek() not in POWER:
            return base
        self.position += 1
        return _power(base, self.sign())

    def postfix(self) -> Any:
        value = self.atom()
        while (token := self.peek()) in ("!", "%") and token:
            self.position += 1
            value = _factorial(value) if token == "!" else _apply("/", value, 100)
        return value

    def atom(self) -> Any:
        token = self.take()
        if token == "(":
            value = self.sum()
            if self.take() != ")":
                raise ExpressionError("a bracket is not closed")
            return value
        if token[:1].isdigit():
            return parse_number(token, self.style)
        if token in ("sqrt", "√"):
            import sympy

            return sympy.sqrt(self.atom())
        if token in ("pi", "π"):
            import sympy

            return sympy.pi
        if len(token) == 1 and token.isalpha():
            import sympy

            return sympy.Symbol(token)
        raise ExpressionError(f"expected a number, found `{token or 'the end'}`")


def _apply(operator: str, left: Any, right: Any) -> Any:
    if operator == "*":
        return left * right
    if right == 0:
        raise ExpressionError("division by zero")
    if operator == "%":
        return left % right
    if isinstance(left, int) and isinstance(right, int):
        quotient, remainder = divmod(left, right)
        return quotient if remainder == 0 else Fraction(left, right)
    return left / right


def _power(base: Any, exponent: Any) -> Any:
    base, exponent = _plain(base), _plain(exponent)
    if isinstance(exponent, int | Fraction):
        size = _largest(base).bit_length() if isinstance(base, int | Fraction) else 1
        if size * _largest(exponent) > (POWER_LIMIT if isinstance(exponent, int) else ROOT_LIMIT):
            raise ExpressionError("the power is too large to check")
    if isinstance(exponent, int) and isinstance(base, int | Fraction):
        if exponent < 0:
            if base == 0:
                raise ExpressionError("division by zero")
            return Fraction(1) / Fraction(base) ** -exponent
        return base**exponent
    if isinstance(base, int | Fraction) and isinstance(exponent, int | Fraction):
        import sympy

        return sympy.Pow(sympy.Rational(base), sympy.Rational(exponent))
    return base**exponent


def _plain(value: Any) -> Any:
    """A rational number of sympy's (`sqrt(4)` is one) as ours."""
    if isinstance(value, int | Fraction) or not value.is_Rational:
        return value
    return int(value.p) if value.q == 1 else Fraction(int(value.p), int(value.q))


def _largest(value: int | Fraction) -> int:
    return max(abs(value.numerator), value.denominator)


def _factorial(value: Any) -> int:
    if not isinstance(value, int) or not 0 <= value <= 64:
        raise ExpressionError("a factorial this parser does not compute")
    result = 1
    for factor in range(2, value + 1):
        result *= factor
    return result
