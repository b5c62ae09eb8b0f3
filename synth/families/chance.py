"""Counting and chance: committees with a fixed split, and two balls of one colour without putting back."""

from __future__ import annotations

from fractions import Fraction
from random import Random

from synth.families.base import Family, Parameters, Phrases, Size, Worked


def draw_committee(dice: Random, level: int, _: Size) -> Parameters:
    first, second = dice.randint(4, 5 + 2 * level), dice.randint(4, 5 + 2 * level)
    return {
        "first": first,
        "second": second,
        "from_first": dice.randint(2, min(first - 1, 2 + level // 2)),
        "from_second": dice.randint(2, min(second - 1, 2 + level // 2)),
        "variant": dice.randrange(2),
    }


def _choose(n: int, k: int) -> tuple[str, int]:
    """Written out as falling factors over k!, with its value."""
    above = below = 1
    for i in range(k):
        above *= n - i
        below *= i + 1
    text = f"{' × '.join(str(n - i) for i in range(k))} / ({' × '.join(str(i) for i in range(k, 0, -1))})"
    return f"{text} = {above // below}", above // below


def work_committee(p: Parameters, say: Phrases) -> Worked:
    """Each group on its own, then every choice with every other."""
    first, ways_first = _choose(p["first"], p["from_first"])
    second, ways_second = _choose(p["second"], p["from_second"])
    steps = [
        say("first", chosen=p["from_first"], group=p["first"], equation=first),
        say("second", chosen=p["from_second"], group=p["second"], equation=second),
        say("both", equation=f"{ways_first} × {ways_second} = {ways_first * ways_second}"),
    ]
    places = {name: p[name] for name in ("first", "second", "from_first", "from_second")}
    return Worked(say.problem(p["variant"], **places), steps, str(ways_first * ways_second), 3)


def draw_urn(dice: Random, level: int, _: Size) -> Parameters:
    return {"balls": [dice.randint(2, 4 + 3 * level) for _ in range(2 + level // 2)], "variant": dice.randrange(2)}


def work_urn(p: Parameters, say: Phrases) -> Worked:
    """One colour at a time over a common denominator, added and reduced."""
    balls = p["balls"]
    total = sum(balls)
    colours = say.things("colours")
    listed = ", ".join(say("balls", count=count, colour=colours[i]) for i, count in enumerate(balls))
    denominator = total * (total - 1)
    steps = [say("total", equation=f"{' + '.join(map(str, balls))} = {total}")]
    for i, count in enumerate(balls):
        pairs = count * (count - 1)
        equation = f"{count}/{total} × {count - 1}/{total - 1} = {pairs}/{denominator}"
        steps.append(say("colour", colour=colours[i], equation=equation))
    favourable = sum(count * (count - 1) for count in balls)
    added = " + ".join(f"{count * (count - 1)}/{denominator}" for count in balls)
    answer = Fraction(favourable, denominator)
    steps.append(say("sum", equation=f"{added} = {favourable}/{denominator} = {answer}"))
    return Worked(say.problem(p["variant"], listed=listed, total=total), steps, str(answer), len(balls) + 3)


COMMITTEE = Family("committee", "mathematics", draw_committee, work_committee)
URN = Family("urn", "mathematics", draw_urn, work_urn)
