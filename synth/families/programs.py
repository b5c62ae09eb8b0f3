"""Families of programming problems: two programs each, one quick and one plainly right, and inputs for both.

Contract: `reference` and `brute_force` define `solve`; `«name»` in them stands for a parameter of the problem. `draw`
gives the arguments of one call, as JSON values, of about `size` items. Statements are in `templates/programs.yaml`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

PLACE = re.compile(r"«(\w+)»")


@dataclass(frozen=True)
class Program:
    """One family."""

    name: str
    reference: str
    brute_force: str
    parameters: Callable[[Random, int], dict[str, Any]]  # level 1-5
    draw: Callable[[Random, int, Mapping[str, Any]], list[Any]]
    version: int = 1


def filled(text: str, parameters: Mapping[str, Any]) -> str:
    """The text with every `«name»` replaced."""
    return PLACE.sub(lambda match: str(parameters[match[1]]), text).strip("\n")


def _numbers(low: int, high: int) -> Callable[[Random, int, Mapping[str, Any]], list[Any]]:
    def draw(dice: Random, size: int, _: Mapping[str, Any]) -> list[Any]:
        return [dice.choices(range(low, high + 1), k=dice.randint(1, size))]

    return draw


DIVISIBLE_STRETCHES = Program(
    "divisible_stretches",
    """
def solve(values):
    seen = {0: 1}
    total = count = 0
    for value in values:
        total = (total + value) % «divisor»
        count += seen.get(total, 0)
        seen[total] = seen.get(total, 0) + 1
    return count
""",
    """
def solve(values):
    count = 0
    for start in range(len(values)):
        for end in range(start + 1, len(values) + 1):
            if sum(values[start:end]) % «divisor» == 0:
                count += 1
    return count
""",
    lambda dice, level: {"divisor": dice.randint(3, 5 + 20 * level)},
    _numbers(-50, 50),
)

LONGEST_CALM = Program(
    "longest_calm",
    """
from collections import deque

def solve(values):
    highest, lowest = deque(), deque()
    start = best = 0
    for end, value in enumerate(values):
        while highest and values[highest[-1]] <= value:
            highest.pop()
        while lowest and values[lowest[-1]] >= value:
            lowest.pop()
        highest.append(end)
        lowest.append(end)
        while values[highest[0]] - values[lowest[0]] > «spread»:
            start += 1
            if highest[0] < start:
                highest.popleft()
            if lowest[0] < start:
                lowest.popleft()
        best = max(best, end - start + 1)
    return best
""",
    """
def solve(values):
    best = 0
    for start in range(len(values)):
        for end in range(start + 1, len(values) + 1):
            part = values[start:end]
            if max(part) - min(part) <= «spread»:
                best = max(best, end - start)
    return best
""",
    lambda dice, level: {"spread": dice.randint(1, 10 + 15 * level)},
    _numbers(0, 100),
)

SPACED_SUM = Program(
    "spaced_sum",
    """
def solve(values):
    best = [0] * (len(values) + «gap» + 1)
    for place in range(len(values) - 1, -1, -1):
        best[place] = max(best[place + 1], values[place] + best[place + «gap» + 1])
    return best[0]
""",
    """
def solve(values):
    best = 0
    for chosen in range(1 << len(values)):
        places = [place for place in range(len(values)) if chosen >> place & 1]
        if all(b - a > «gap» for a, b in zip(places, places[1:])):
            best = max(best, sum(values[place] for place in places))
    return best
""",
    lambda dice, level: {"gap": dice.randint(1, 1 + level)},
    _numbers(-20, 60),
)

WAYS_TO_PAY = Program(
    "ways_to_pay",
    """
def solve(amount):
    ways = [1] + [0] * amount
    for coin in «coins»:
        for reached in range(coin, amount + 1):
            ways[reached] += ways[reached - coin]
    return ways[amount] % 1000000007
""",
    """
def solve(amount, coins=tuple(«coins»)):
    if amount == 0:
        return 1
    if amount < 0 or not coins:
        return 0
    return solve(amount - coins[0], coins) + solve(amount, coins[1:])
""",
    lambda dice, level: {"coins": sorted(dice.sample(range(2, 12 + 10 * level), 2 + level // 2))},
    lambda dice, size, _: [dice.randint(0, size * 4)],
)

LATER_SMALLER = Program(
    "later_smaller",
    """
def solve(values):
    ranks = {value: rank for rank, value in enumerate(sorted(set(values)), 1)}
    ordered = sorted(ranks)
    tree = [0] * (len(ranks) + 1)
    count = 0
    for value in reversed(values):
        low, high = 0, len(ordered)
        while low < high:
            middle = (low + high) // 2
            if ordered[middle] + «margin» < value:
                low = middle + 1
            else:
                high = middle
        place = low
        while place > 0:
            count += tree[place]
            place -= place & -place
        place = ranks[value]
        while place < len(tree):
            tree[place] += 1
            place += place & -place
    return count
""",
    """
def solve(values):
    return sum(
        values[first] > values[second] + «margin»
        for first in range(len(values))
        for second in range(first + 1, len(values))
    )
""",
    lambda dice, level: {"margin": dice.randint(1, 5 + 10 * level)},
    _numbers(0, 90),
)

PROGRAMS: Mapping[str, Program] = {
    program.name: program for program in (DIVISIBLE_STRETCHES, LONGEST_CALM, SPACED_SUM, WAYS_TO_PAY, LATER_SMALLER)
}
