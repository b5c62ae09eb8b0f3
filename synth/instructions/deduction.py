"""Deduction step by step: variables with few possible values, clues about one to a few of them, and what follows.

Contract: `derive` finds every solution (up to a limit) and tells how: which clue leaves out which values, what is left
alone, what was supposed and refuted. The order is a pure function of the problem. A told line is sound: everything
said outside a supposition holds in every solution. Cost: 0.1-5 ms for the sizes of our puzzles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Literal

Values = dict[str, tuple[int, ...]]  # variable -> values that are still possible


@dataclass(frozen=True)
class Clue:
    """A condition on some variables; `number` is how the puzzle's text calls it."""

    number: int
    scope: tuple[str, ...]
    holds: Callable[[Mapping[str, int]], bool]


@dataclass(frozen=True)
class Problem:
    values: Mapping[str, tuple[int, ...]]
    clues: Sequence[Clue]
    different: Sequence[tuple[str, ...]] = ()  # groups of variables whose values all differ


@dataclass(frozen=True)
class Event:
    """One line of a derivation."""

    kind: Literal["left_out", "dead", "fixed", "only_one_for", "suppose", "refuted", "solved"]
    variable: str = ""
    values: tuple[int, ...] = ()  # left out, the last of them where the variable is dead; or the one fixed, supposed, …
    clue: int = 0  # 0: because values of a group differ
    depth: int = 0  # of suppositions around it


@dataclass
class Derivation:
    events: list[Event] = field(default_factory=list[Event])
    solutions: list[dict[str, int]] = field(default_factory=list[dict[str, int]])


def derive(problem: Problem, limit: int = 2) -> Derivation:
    """All solutions up to `limit`, and how they were found."""
    told = Derivation()
    _search(problem, dict(problem.values), told, limit, 0)
    return told


def _search(problem: Problem, values: Values, told: Derivation, limit: int, depth: int) -> None:
    if not _narrow(problem, values, told, depth) or len(told.solutions) >= limit:
        return
    open_ones = [name for name, left in values.items() if len(left) > 1]
    if not open_ones:
        told.solutions.append({name: left[0] for name, left in values.items()})
        told.events.append(Event("solved", depth=depth))
        return
    name = min(open_ones, key=lambda one: len(values[one]))  # the first of the fewest
    for value in values[name]:
        before = len(told.solutions)
        told.events.append(Event("suppose", name, (value,), depth=depth + 1))
        _search(problem, {**values, name: (value,)}, told, limit, depth + 1)
        if len(told.solutions) >= limit:
            return
        if len(told.solutions) == before:
            told.events.append(Event("refuted", name, (value,), depth=depth))


def _narrow(problem: Problem, values: Values, told: Derivation, depth: int) -> bool:
    """Leave out what no clue allows until nothing changes; whether every variable has a value left."""
    changed = True
    while changed:
        changed = False
        for event in _next_events(problem, values, depth):
            told.events.append(event)
            changed = True
            if not values[event.variable]:
                return False
    return True


def _next_events(problem: Problem, values: Values, depth: int) -> Iterator[Event]:
    for clue in problem.clues:
        for name, gone in _impossible(clue, values):
            left = tuple(value for value in values[name] if value not in gone)
            values[name] = left
            yield from _told(name, gone, left, clue.number, depth)
    for group in problem.different:
        yield from _different(group, values, depth)


def _told(name: str, gone: tuple[int, ...], left: tuple[int, ...], clue: int, depth: int) -> Iterator[Event]:
    yield Event("left_out" if left else "dead", name, gone, clue, depth)
    if len(left) == 1:
        yield Event("fixed", name, left, depth=depth)


def _impossible(clue: Clue, values: Values) -> Iterator[tuple[str, tuple[int, ...]]]:
    """For each variable of the clue the values that no choice of the others can go with."""
    for name in clue.scope:
        rows = product(*(values[one] for one in clue.scope))
        fitting = {row[clue.scope.index(name)] for row in rows if clue.holds(dict(zip(clue.scope, row, strict=True)))}
        gone = tuple(value for value in values[name] if value not in fitting)
        if gone:
            yield name, gone


def _different(group: tuple[str, ...], values: Values, depth: int) -> Iterator[Event]:
    taken = {values[name][0]: name for name in group if len(values[name]) == 1}
    for name in group:
        left = tuple(value for value in values[name] if taken.get(value, name) == name)
        if left != values[name]:
            gone = tuple(value for value in values[name] if value not in left)
            values[name] = left
            yield from _told(name, gone, left, 0, depth)
    for value in sorted({value for name in group for value in values[name]}):
        holders = [name for name in group if value in values[name]]
        if len(holders) == 1 and len(values[holders[0]]) > 1:
            values[holders[0]] = (value,)
            yield Event("only_one_for", holders[0], (value,), depth=depth)
