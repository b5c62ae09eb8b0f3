"""Logic: each of some people always tells the truth or always lies; their statements say who does which.

Contract: parameters hold the people and, numbered, who says what; exactly one assignment fits. `solutions` tries all.
The puzzles are of the kind that Smullyan's books made known (knights and knaves).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from random import Random
from typing import Any

from synth.families.base import Phrases
from synth.instructions.deduction import Clue, Event, Problem, derive
from synth.instructions.puzzles import Parameters, Puzzle, told

PEOPLE = (2, 3, 3, 4, 5)  # by level
WORDS_IN_LIST = 8
TRIES = 1000  # draws until a set of statements fits one assignment only; one in 3 to 10 does
LIES, TRUE = 0, 1


def claim_holds(claim: Mapping[str, Any], kinds: Mapping[str, int]) -> bool:
    about = [kinds[name] for name in claim["about"]]
    if claim["kind"] == "is":
        return about[0] == claim["k"]
    if claim["kind"] == "same":
        return about[0] == about[1]
    if claim["kind"] == "differ":
        return about[0] != about[1]
    if claim["kind"] == "one_true":
        return TRUE in about
    return sum(about) == claim["k"]  # count


def problem(p: Parameters) -> Problem:
    names = list(map(str, p["people"]))
    clues = [
        Clue(
            number,
            tuple(dict.fromkeys((claim["who"], *claim["about"]))),
            lambda kinds, claim=claim: (kinds[claim["who"]] == TRUE) == claim_holds(claim, kinds),
        )
        for number, claim in enumerate(p["claims"], start=1)
    ]
    return Problem(dict.fromkeys(names, (LIES, TRUE)), clues)


def draw(dice: Random, level: int) -> dict[str, Any]:
    count = PEOPLE[level - 1]
    people = dice.sample(range(WORDS_IN_LIST), count)
    names = list(map(str, people))
    for _ in range(TRIES):
        truth = {name: dice.randint(LIES, TRUE) for name in names}
        claims = [_claim(dice, name, names, truth) for name in names]
        p = {"people": people, "claims": claims}
        if len(solutions(p)) == 1:
            return {**p, "ask": dice.choice(("who_lies", "who_is_honest", "how_many"))}
    raise AssertionError("one assignment is usual")


def _claim(dice: Random, who: str, names: list[str], truth: Mapping[str, int]) -> dict[str, Any]:
    """A statement that is true or false as its speaker's kind wants it."""
    others = [name for name in names if name != who]
    while True:
        kind = dice.choice(("is", "count") if len(others) < 2 else ("is", "same", "differ", "one_true", "count"))
        about = dice.sample(others, 1 if kind == "is" else 2) if kind != "count" else names
        claim = {
            "who": who,
            "kind": kind,
            "about": about,
            "k": dice.randint(LIES, TRUE if kind == "is" else len(names)),
        }
        if claim_holds(claim, truth) == (truth[who] == TRUE):
            return claim


def _name(name: str, say: Phrases) -> str:
    return str(say.things("people")[int(name)])


def question(p: Parameters, say: Phrases) -> str:
    lines = [say("row", people=", ".join(_name(str(name), say) for name in p["people"]))]
    for number, claim in enumerate(p["claims"], start=1):
        about = [_name(name, say) for name in claim["about"]]
        key = ("is_false", "is_true")[claim["k"]] if claim["kind"] == "is" else claim["kind"]
        said = say(key, a=about[0], b=about[-1], k=claim["k"])
        lines.append(f"{number}. {say('says', who=_name(claim['who'], say), said=said)}")
    return "\n".join([*lines, say(f"ask_{p['ask']}")])


def steps(p: Parameters, say: Phrases) -> list[str]:
    def words(event: Event) -> dict[str, object]:
        who = _name(event.variable, say) if event.variable else ""
        kinds = [say(key, who=who) for key in ("lies", "honest")]
        value = event.values[0] if event.values else TRUE
        return {"who": who, "is": kinds[value], "other": kinds[1 - value], "clue": event.clue}

    events = [event for event in derive(problem(p)).events if event.kind != "fixed"]  # told by what was left out
    return told(events, say, words)


def solutions(p: Parameters) -> list[dict[str, int]]:
    """Every assignment that fits, by trying all of them."""
    names = list(map(str, p["people"]))
    found: list[dict[str, int]] = [
        dict(zip(names, row, strict=True)) for row in product((LIES, TRUE), repeat=len(names))
    ]
    return [
        kinds
        for kinds in found
        if all((kinds[claim["who"]] == TRUE) == claim_holds(claim, kinds) for claim in p["claims"])
    ]


def answer(kinds: Mapping[str, int], p: Parameters, say: Phrases) -> str:
    if p["ask"] == "how_many":
        return str(sum(kinds.values()))
    wanted = LIES if p["ask"] == "who_lies" else TRUE
    named = [_name(str(name), say) for name in p["people"] if kinds[str(name)] == wanted]
    return ", ".join(named) or say("nobody")


TRUTHTELLERS = Puzzle("truthtellers", draw, question, steps, solutions, answer)
