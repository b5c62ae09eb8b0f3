"""Algebra: a linear equation, two equations with two unknowns, arithmetic and geometric sums."""

from __future__ import annotations

from fractions import Fraction
from random import Random

from synth.families.base import Family, Parameters, Phrases, Size, Worked, plus, signed


def _nonzero(dice: Random, bound: int) -> int:
    value = dice.randint(1, 2 * bound)
    return value if value <= bound else bound - value


def _term(coefficient: int, variable: str) -> str:
    return {1: variable, -1: f"-{variable}"}.get(coefficient, f"{coefficient}{variable}")


def _plus_term(coefficient: int, variable: str) -> str:
    return f"{'+' if coefficient > 0 else '-'} {_term(abs(coefficient), variable)}"


def draw_linear_equation(dice: Random, level: int, _: Size) -> Parameters:
    bound = 4 + 6 * level
    a, c = _nonzero(dice, bound), _nonzero(dice, bound)
    if a == c:
        a = c + 1 if c != -1 else 2
    if level <= 2:  # whole solutions first
        d, x = _nonzero(dice, 3 * bound), _nonzero(dice, bound)
        return {"a": a, "b": (c - a) * x + d, "c": c, "d": d, "variant": dice.randrange(2)}
    return {
        "a": a,
        "b": _nonzero(dice, 3 * bound),
        "c": c,
        "d": _nonzero(dice, 3 * bound),
        "variant": dice.randrange(2),
    }


def work_linear_equation(p: Parameters, say: Phrases) -> Worked:
    """Unknowns to the left, numbers to the right, divide, put back."""
    a, b, c, d = p["a"], p["b"], p["c"], p["d"]
    left = f"{_term(a, 'x')} {plus(b)}" if b else _term(a, "x")
    right = f"{_term(c, 'x')} {plus(d)}" if d else _term(c, "x")
    factor, rest = a - c, d - b
    x = Fraction(rest, factor)
    steps = [
        say("left", equation=f"{a} - {signed(c)} = {factor}", term=_term(factor, "x")),
        say("right", equation=f"{d} - {signed(b)} = {rest}", simple=f"{_term(factor, 'x')} = {rest}"),
        say("divide", equation=f"x = {rest} / {signed(factor)} = {x}"),
        say(
            "check",
            left=f"{a} × {signed(x)} {plus(b)} = {a * x + b}",
            right=f"{c} × {signed(x)} {plus(d)} = {c * x + d}",
        ),
    ]
    return Worked(say.problem(p["variant"], equation=f"{left} = {right}"), steps, f"x = {x}", 4)


def draw_linear_system(dice: Random, level: int, _: Size) -> Parameters:
    bound = 3 + 3 * level
    a, b, c, d = (_nonzero(dice, bound) for _ in range(4))
    if a * d == b * c:
        d += 1 if d != -1 else 2  # a and b are not 0: the determinant is not 0 now
    x, y = _nonzero(dice, bound), _nonzero(dice, bound)
    return {"a": a, "b": b, "c": c, "d": d, "e": a * x + b * y, "f": c * x + d * y, "variant": dice.randrange(2)}


def work_linear_system(p: Parameters, say: Phrases) -> Worked:
    """Elimination of y, then y from the first equation, checked in the second."""
    a, b, c, d, e, f = (p[name] for name in "abcdef")
    first, second = (f"{_term(m, 'x')} {_plus_term(n, 'y')} = {r}" for m, n, r in ((a, b, e), (c, d, f)))
    determinant, right = a * d - c * b, e * d - f * b
    x = right // determinant
    y = (e - a * x) // b
    steps = [
        say("eliminate", first=d, second=b),
        say("factor", equation=f"{a} × {signed(d)} - {signed(c)} × {signed(b)} = {determinant}"),
        say("right", equation=f"{e} × {signed(d)} - {signed(f)} × {signed(b)} = {right}"),
        say("x", equation=f"x = {right} / {signed(determinant)} = {x}"),
        say("rest", equation=f"{e} - {signed(a)} × {signed(x)} = {e - a * x}"),
        say("y", equation=f"y = {e - a * x} / {signed(b)} = {y}"),
        say("check", equation=f"{c} × {signed(x)} + {signed(d)} × {signed(y)} = {f}"),
    ]
    return Worked(say.problem(p["variant"], first=first, second=second), steps, f"x = {x}, y = {y}", 6)


def draw_sequence(dice: Random, level: int, _: Size) -> Parameters:
    if dice.randrange(2):
        step = _nonzero(dice, 3 + 4 * level)
        terms = dice.randint(8, 12 + 10 * level)
        return {"kind": "arithmetic", "first": dice.randint(1, 30 * level), "step": step, "terms": terms}
    terms = dice.randint(4, 5 + level)
    return {
        "kind": "geometric",
        "first": dice.randint(1, 9 * level),
        "step": dice.randint(2, 3 + level),
        "terms": terms,
    }


def work_sequence(p: Parameters, say: Phrases) -> Worked:
    """The sum of the first terms by the closed formula, the pieces one at a time."""
    first, step, terms = p["first"], p["step"], p["terms"]
    if p["kind"] == "arithmetic":
        shown = ", ".join(str(first + i * step) for i in range(4))
        last = first + (terms - 1) * step
        total = terms * (first + last) // 2
        steps = [
            say("difference", step=step),
            say("last", terms=terms, equation=f"{first} + ({terms} - 1) × {signed(step)} = {last}"),
            say("arithmetic_sum", equation=f"{terms} × ({first} + {signed(last)}) / 2 = {total}"),
        ]
        return Worked(say.problem(0, shown=shown, terms=terms), steps, str(total), 2)
    shown = ", ".join(str(first * step**i) for i in range(4))
    power = step**terms
    total = first * (power - 1) // (step - 1)
    steps = [
        say("ratio", step=step),
        say("power", equation=f"{step}^{terms} = {power}"),
        say("geometric_sum", equation=f"{first} × ({power} - 1) / ({step} - 1) = {total}"),
    ]
    return Worked(say.problem(1, shown=shown, terms=terms), steps, str(total), 2)


LINEAR_EQUATION = Family("linear_equation", "mathematics", draw_linear_equation, work_linear_equation)
LINEAR_SYSTEM = Family("linear_system", "mathematics", draw_linear_system, work_linear_system)
SEQUENCE = Family("sequence", "mathematics", draw_sequence, work_sequence)
