"""Number theory: Euclid's algorithm, and the number of divisors from the prime factorisation."""

from __future__ import annotations

from random import Random

from synth.families.base import Family, Parameters, Phrases, Size, Worked

PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)


def draw_euclid(dice: Random, level: int, _: Size) -> Parameters:
    common = dice.randint(2, 4 * 3**level)
    a, b = (common * dice.randint(5, 6 * 4**level) for _ in range(2))
    if a == b:
        a += common
    return {"a": max(a, b), "b": min(a, b), "ask": dice.choice(("gcd", "lcm"))}


def work_euclid(p: Parameters, say: Phrases) -> Worked:
    """Division with remainder until nothing remains; the least common multiple from the product."""
    a, b = p["a"], p["b"]
    steps, equations = [], 0
    larger, smaller = a, b
    while smaller:
        quotient, rest = divmod(larger, smaller)
        steps.append(say("divide", equation=f"{larger} = {smaller} × {quotient} + {rest}"))
        equations += 1
        larger, smaller = smaller, rest
    steps.append(say("last", gcd=larger))
    if p["ask"] == "gcd":
        return Worked(say.problem(0, a=a, b=b), steps, str(larger), equations)
    steps.append(say("multiple", equation=f"{a} × {b} / {larger} = {a * b // larger}"))
    return Worked(say.problem(1, a=a, b=b), steps, str(a * b // larger), equations + 1)


def draw_factorisation(dice: Random, level: int, _: Size) -> Parameters:
    primes = PRIMES[: 3 + 2 * level]
    number = 1
    for _factor in range(3 + level):
        number *= dice.choice(primes)
    return {"n": number * dice.choice(primes), "variant": dice.randrange(2)}


def work_factorisation(p: Parameters, say: Phrases) -> Worked:
    """Trial division by rising primes; exponents plus one, multiplied."""
    rest = p["n"]
    steps: list[str] = []
    exponents: dict[int, int] = {}
    divisor = 2
    while rest > 1:
        if divisor * divisor > rest:
            divisor = rest
        if rest % divisor:
            divisor += 1 if divisor == 2 else 2
            continue
        if rest > divisor:
            steps.append(say("divide", prime=divisor, equation=f"{rest} / {divisor} = {rest // divisor}"))
        else:
            steps.append(say("prime", prime=divisor))
        exponents[divisor] = exponents.get(divisor, 0) + 1
        rest //= divisor
    divisions = sum(exponents.values()) - 1
    product = " × ".join(f"{prime}^{power}" for prime, power in exponents.items())
    steps.append(say("product", equation=f"{p['n']} = {product}"))
    count = 1
    for power in exponents.values():
        count *= power + 1
    choices = " × ".join(f"({power} + 1)" for power in exponents.values())
    steps.append(say("count", equation=f"{choices} = {count}"))
    return Worked(say.problem(p["variant"], n=p["n"]), steps, str(count), divisions + 2)


EUCLID = Family("euclid", "mathematics", draw_euclid, work_euclid)
FACTORISATION = Family("factorisation", "mathematics", draw_factorisation, work_factorisation)
