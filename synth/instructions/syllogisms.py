"""Logic: two or three statements about three groups; does another one follow, is it ruled out, or is it left open?

Contract: every group has a member. A kind of people is which groups they are in; statements rule kinds out (`all`,
`no`) or need one of some kinds (`some`, `some_not`). The steps tell which kinds are ruled out and why the conclusion
holds or fails in every case, or show one case of each; `solutions` goes through all sets of kinds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, permutations, product
from random import Random
from typing import Any

from synth.families.base import Phrases
from synth.instructions.puzzles import Parameters, Puzzle

Person = tuple[bool, ...]  # in the first, second, third group
WORDS_IN_LIST = 8
GROUPS = 3
KINDS_OF_PEOPLE: tuple[Person, ...] = tuple(row for row in product((True, False), repeat=GROUPS) if any(row))
STATEMENTS = ("all", "no", "some", "some_not")
UNIVERSAL = ("all", "no")
VERDICTS = ("follows", "ruled_out", "open")


def touched(statement: Mapping[str, Any]) -> list[Person]:
    """The kinds that break a universal statement, or that fulfil one of existence."""
    a, b = statement["a"], statement["b"]
    inside = statement["kind"] in ("no", "some")
    return [person for person in KINDS_OF_PEOPLE if person[a] and person[b] == inside]


def holds(statement: Mapping[str, Any], present: Sequence[Person]) -> bool:
    found = any(person in present for person in touched(statement))
    return found != (statement["kind"] in UNIVERSAL)


def draw(dice: Random, level: int) -> dict[str, Any]:
    groups = dice.sample(range(WORDS_IN_LIST), GROUPS)
    while True:
        premises = [_statement(dice, pair) for pair in _pairs(dice, 2 if level < 4 else 3)]
        conclusion = _statement(dice, tuple(dice.sample(range(GROUPS), 2)))
        p = {"groups": groups, "premises": premises, "conclusion": conclusion}
        found = solutions(p)
        # Left open is what most draws are: one in three of them is kept.
        if len(found) == 1 and conclusion not in premises and (found[0] != "open" or dice.randrange(3) == 0):
            return p


def _pairs(dice: Random, count: int) -> list[tuple[int, int]]:
    """Ordered pairs of groups that together name all groups."""
    while True:
        pairs = [dice.choice(list(permutations(range(GROUPS), 2))) for _ in range(count)]
        if len({frozenset(pair) for pair in pairs}) == count:
            return pairs


def _statement(dice: Random, pair: tuple[int, ...]) -> dict[str, Any]:
    return {"kind": dice.choice(STATEMENTS), "a": pair[0], "b": pair[1]}


def _text(statement: Mapping[str, Any], p: Parameters, say: Phrases) -> str:
    names = [str(say.things("groups")[index]) for index in p["groups"]]
    return say(statement["kind"], a=names[statement["a"]], b=names[statement["b"]])


def question(p: Parameters, say: Phrases) -> str:
    names = ", ".join(str(say.things("groups")[index]) for index in p["groups"])
    lines = [say("row", groups=names)]
    lines += [f"{number}. {_text(one, p, say)}" for number, one in enumerate(p["premises"], start=1)]
    return "\n".join([*lines, say("ask", conclusion=_text(p["conclusion"], p, say))])


def steps(p: Parameters, say: Phrases) -> list[str]:
    def shown(people: Sequence[Person]) -> str:
        names = [str(say.things("groups")[index]) for index in p["groups"]]
        return "; ".join(
            ", ".join(f"{name} {'+' if inside else '-'}" for name, inside in zip(names, person, strict=True))
            for person in people
        )

    lines = [say("kinds")]
    left = list(KINDS_OF_PEOPLE)
    for number, premise in enumerate(p["premises"], start=1):
        if premise["kind"] in UNIVERSAL:
            gone = [person for person in touched(premise) if person in left]
            left = [person for person in left if person not in gone]
            lines.append(
                say("ruled_out_kinds", number=number, kinds=shown(gone)) if gone else say("no_new", number=number)
            )
        else:
            lines.append(
                say("needed_kinds", number=number, kinds=shown([one for one in touched(premise) if one in left]))
            )
    conclusion = p["conclusion"]
    decisive = [one for one in touched(conclusion) if one in left]
    universal = conclusion["kind"] in UNIVERSAL
    if not decisive:
        return [*lines, say("none_left_true" if universal else "none_left_false", kinds=shown(touched(conclusion)))]
    for needed, why in _needs(p, left, say):
        if all(person in decisive for person in needed):
            return [*lines, say("surely_false" if universal else "surely_true", why=why, kinds=shown(needed))]
    present = [_outside(needed, decisive) for needed, _ in _needs(p, left, say)]
    without = list(dict.fromkeys(present))
    both = list(dict.fromkeys([*without, decisive[0]]))
    first, second = (without, both) if universal else (both, without)
    return [*lines, say("may_hold", kinds=shown(first)), say("may_fail", kinds=shown(second))]


def _needs(p: Parameters, left: Sequence[Person], say: Phrases) -> list[tuple[list[Person], str]]:
    """The sets of kinds of which somebody must be there, and why."""
    names = [str(say.things("groups")[index]) for index in p["groups"]]
    found = [
        ([one for one in touched(premise) if one in left], say("by_statement", number=number))
        for number, premise in enumerate(p["premises"], start=1)
        if premise["kind"] not in UNIVERSAL
    ]
    return found + [([one for one in left if one[n]], say("by_member", group=names[n])) for n in range(GROUPS)]


def _outside(needed: Sequence[Person], decisive: Sequence[Person]) -> Person:
    """One of the needed kinds that does not decide the question."""
    return next(person for person in needed if person not in decisive)


def solutions(p: Parameters) -> list[str]:
    """The verdict over all sets of kinds that fit; none when the statements contradict each other."""
    seen: set[bool] = set()
    for size in range(1, len(KINDS_OF_PEOPLE) + 1):
        for present in combinations(KINDS_OF_PEOPLE, size):
            members = all(any(person[group] for person in present) for group in range(GROUPS))
            if members and all(holds(premise, present) for premise in p["premises"]):
                seen.add(holds(p["conclusion"], present))
    if len(seen) == 1:
        return ["follows" if True in seen else "ruled_out"]
    return ["open"] if seen else []


def answer(verdict: str, p: Parameters, say: Phrases) -> str:
    del p
    return say(verdict)


SYLLOGISM = Puzzle("syllogism", draw, question, steps, solutions, answer)
