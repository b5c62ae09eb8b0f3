"""Independent answers: each kind of problem solved again by another method than a textbook solver's.

Contract: `ORACLES[kind](parameters)` gives the answer as text for `pipeline.core.verify.math.equivalent`. Parameters
are the problem's own numbers. The methods differ on purpose from step-by-step solving: built-in big integers, brute
force, matrix determinants, the table method for paths, inversion counts, rewriting for brackets. Cost: 1-100
microseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from itertools import pairwise
from math import comb, gcd
from typing import Any

Parameters = Mapping[str, Any]


def multiplication(p: Parameters) -> str:
    return str(p["a"] * p["b"])


def division(p: Parameters) -> str:
    return str(p["a"] // p["b"] if p["ask"] == "quotient" else p["a"] % p["b"])


def shopping(p: Parameters) -> str:
    return str(p["paid"] - sum(a * b for a, b in zip(p["prices"], p["counts"], strict=True)))


def journey(p: Parameters) -> str:
    """Hours times km/h, in metres."""
    return str(sum(Fraction(minutes, 60) * speed for speed, minutes in p["legs"]) * 1000)


def linear_equation(p: Parameters) -> str:
    """The zero of the difference of both sides, from its values at 0 and 1."""
    at_0 = p["b"] - p["d"]
    at_1 = p["a"] + p["b"] - p["c"] - p["d"]
    return f"x = {Fraction(-at_0, at_1 - at_0)}"


def linear_system(p: Parameters) -> str:
    """Cramer's rule."""
    a, b, c, d, e, f = (Fraction(p[name]) for name in "abcdef")
    determinant = a * d - b * c
    return f"x = {(e * d - b * f) / determinant}, y = {(a * f - e * c) / determinant}"


def sequence(p: Parameters) -> str:
    """Term by term."""
    term, total = p["first"], 0
    for _ in range(p["terms"]):
        total += term
        term = term + p["step"] if p["kind"] == "arithmetic" else term * p["step"]
    return str(total)


def euclid(p: Parameters) -> str:
    common = gcd(p["a"], p["b"])
    return str(common if p["ask"] == "gcd" else p["a"] // common * p["b"])


def factorisation(p: Parameters) -> str:
    """sympy's divisor function."""
    from sympy import divisor_count

    return str(divisor_count(p["n"]))


def committee(p: Parameters) -> str:
    return str(comb(p["first"], p["from_first"]) * comb(p["second"], p["from_second"]))


def urn(p: Parameters) -> str:
    """The complement: pairs of two colours over all pairs."""
    balls = p["balls"]
    mixed = sum(balls[i] * balls[j] for i in range(len(balls)) for j in range(i))
    return str(1 - Fraction(mixed, comb(sum(balls), 2)))


def shortest_path(p: Parameters) -> str:
    """Floyd and Warshall's table."""
    towns = range(p["towns"])
    far = 1 + sum(length for _, _, length in p["roads"])
    table = [[0 if a == b else far for b in towns] for a in towns]
    for a, b, length in p["roads"]:
        table[a][b] = table[b][a] = min(length, table[a][b])
    for via in towns:
        for a in towns:
            for b in towns:
                table[a][b] = min(table[a][b], table[a][via] + table[via][b])
    return str(table[0][p["towns"] - 1])


def insertion_sort(p: Parameters) -> str:
    """Moves are inversions: pairs in the wrong order."""
    values = p["values"]
    return str(sum(values[j] > values[i] for i in range(len(values)) for j in range(i)))


def brackets(p: Parameters) -> str:
    """Rewriting: innermost pairs vanish all at once; a string that does not vanish is not balanced. The depth is the
    highest point of the running balance."""
    text = p["text"]
    while (shorter := text.replace("()", "").replace("[]", "").replace("{}", "")) != text:
        text = shorter
    if text:
        return "0"
    heights = [0]
    for mark in p["text"]:
        heights.append(heights[-1] + (1 if mark in "([{" else -1))
    assert all(abs(a - b) == 1 for a, b in pairwise(heights))
    return str(max(heights))


def ledger(p: Parameters) -> str:
    return str(sum(p["amounts"]))


def signposts(p: Parameters) -> str:
    """The last room of the path that was read off the text."""
    return str(p["path"][-1])


ORACLES: Mapping[str, Callable[[Parameters], str]] = {
    "multiplication": multiplication,
    "division": division,
    "shopping": shopping,
    "journey": journey,
    "linear_equation": linear_equation,
    "linear_system": linear_system,
    "sequence": sequence,
    "euclid": euclid,
    "factorisation": factorisation,
    "committee": committee,
    "urn": urn,
    "shortest_path": shortest_path,
    "insertion_sort": insertion_sort,
    "brackets": brackets,
    "ledger": ledger,
    "signposts": signposts,
}
