"""Logic: who stands where. People in a row, and on higher levels what each of them keeps; clues fix one order.

Contract: parameters hold the number of places, one list of items a property (people first) as indices into the word
lists, numbered clues and what is asked. Clues are added in a random order until one arrangement is left, then each
that is not needed is taken away again. `solutions` tries all arrangements.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, permutations, product
from random import Random
from typing import Any

from synth.families.base import Phrases
from synth.instructions.deduction import Clue, Event, Problem, derive
from synth.instructions.puzzles import Parameters, Puzzle, told

PLACES = (3, 4, 4, 4, 5)  # by level
PROPERTIES = (1, 1, 2, 2, 2)
LISTS = ("people", "keepers")
WORDS_IN_LIST = 8
Holds = Callable[[int, int, int], bool]
# Kind -> whether it holds for the places of its two items and its number.
KINDS: Mapping[str, Holds] = {
    "at": lambda a, _, k: a == k,
    "not_at": lambda a, _, k: a != k,
    "before": lambda a, b, _: a < b,
    "directly_before": lambda a, b, _: a + 1 == b,
    "adjacent": lambda a, b, _: abs(a - b) == 1,
    "apart": lambda a, b, k: abs(a - b) == k,
    "same": lambda a, b, _: a == b,
    "not_same": lambda a, b, _: a != b,
}
ONE_ITEM = ("at", "not_at")
ACROSS = ("same", "not_same")  # between two properties


def clue_scope(clue: Mapping[str, Any]) -> tuple[str, ...]:
    return (clue["a"],) if clue["kind"] in ONE_ITEM else (clue["a"], clue["b"])


def clue_holds(clue: Mapping[str, Any], places: Mapping[str, int]) -> bool:
    return KINDS[clue["kind"]](places[clue["a"]], places.get(clue["b"], 0), clue["k"])


def variables(p: Parameters) -> list[list[str]]:
    """`PROPERTY:WORD` of each item, by property."""
    return [[f"{number}:{word}" for word in words] for number, words in enumerate(p["items"])]


def problem(p: Parameters, clues: Sequence[Mapping[str, Any]]) -> Problem:
    groups = variables(p)
    values = {name: tuple(range(1, p["places"] + 1)) for group in groups for name in group}
    numbered = [
        Clue(number, clue_scope(clue), lambda places, clue=clue: clue_holds(clue, places))
        for number, clue in enumerate(clues, start=1)
    ]
    return Problem(values, numbered, [tuple(group) for group in groups])


def draw(dice: Random, level: int) -> dict[str, Any]:
    places, properties = PLACES[level - 1], PROPERTIES[level - 1]
    items = [dice.sample(range(WORDS_IN_LIST), places) for _ in range(properties)]
    p: dict[str, Any] = {"places": places, "items": items, "clues": []}
    order = {name: dice.sample(range(1, places + 1), places) for name in range(properties)}
    truth = {name: order[n][i] for n, group in enumerate(variables(p)) for i, name in enumerate(group)}
    pool = [clue for clue in _all_clues(p) if clue_holds(clue, truth)]
    dice.shuffle(pool)
    pool.sort(key=lambda clue: clue["kind"] == "at")  # the plainest last
    chosen: list[dict[str, Any]] = []
    while len(derive(problem(p, chosen)).solutions) != 1:
        chosen.append(pool.pop(0))
    for clue in list(chosen):
        fewer = [one for one in chosen if one is not clue]
        if len(derive(problem(p, fewer)).solutions) == 1:
            chosen = fewer
    dice.shuffle(chosen)
    people = variables(p)[0]
    ask = dice.choice(("order", "who_at", "place_of") if properties == 1 else ("order", "who_is", "who_is"))
    subject = dice.choice(people) if ask == "place_of" else dice.choice(variables(p)[-1])
    return {**p, "clues": chosen, "ask": ask, "subject": subject, "asked_place": dice.randint(1, places)}


def _all_clues(p: Parameters) -> list[dict[str, Any]]:
    names = [name for group in variables(p) for name in group]
    found = [
        {"kind": kind, "a": name, "b": "", "k": place}
        for name in names
        for place in range(1, p["places"] + 1)
        for kind in ONE_ITEM
    ]
    for a, b in combinations(names, 2):
        if a[0] != b[0]:
            found += [{"kind": kind, "a": a, "b": b, "k": 0} for kind in ACROSS]
        for kind in ("before", "directly_before"):
            found += [{"kind": kind, "a": one, "b": two, "k": 0} for one, two in ((a, b), (b, a))]
        found.append({"kind": "adjacent", "a": a, "b": b, "k": 0})
        found += [{"kind": "apart", "a": a, "b": b, "k": k} for k in range(2, p["places"])]
    return found


def _word(name: str, say: Phrases) -> str:
    number, word = map(int, name.split(":"))
    return str(say.things(LISTS[number])[word])


def _clue_text(clue: Mapping[str, Any], say: Phrases) -> str:
    other = _word(clue["b"], say) if clue["b"] else ""
    return _capital(say(clue["kind"], a=_word(clue["a"], say), b=other, k=clue["k"]))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def question(p: Parameters, say: Phrases) -> str:
    lists = ", ".join(_word(name, say) for name in variables(p)[0])
    lines = [say("row", count=p["places"], people=lists)]
    if len(p["items"]) > 1:
        lines.append(say("property", keepers=", ".join(_word(name, say) for name in variables(p)[1])))
    lines += [f"{number}. {_clue_text(clue, say)}" for number, clue in enumerate(p["clues"], start=1)]
    asked = say(f"ask_{p['ask']}", who=_word(p["subject"], say), place=p["asked_place"])
    return "\n".join([*lines, _capital(asked)])


def steps(p: Parameters, say: Phrases) -> list[str]:
    def words(event: Event) -> dict[str, object]:
        places = ", ".join(map(str, event.values))
        who = _word(event.variable, say) if event.variable else ""
        return {"who": who, "places": places, "clue": event.clue}

    return [_capital(line) for line in told(derive(problem(p, p["clues"])).events, say, words)]


def solutions(p: Parameters) -> list[dict[str, int]]:
    """Every arrangement that fits, by trying all of them."""
    groups = variables(p)
    orders = list(permutations(range(1, p["places"] + 1)))
    found: list[dict[str, int]] = []
    for rows in product(orders, repeat=len(groups)):
        places = {
            name: place for group, row in zip(groups, rows, strict=True) for name, place in zip(group, row, strict=True)
        }
        if all(clue_holds(clue, places) for clue in p["clues"]):
            found.append(places)
    return found


def answer(places: Mapping[str, int], p: Parameters, say: Phrases) -> str:
    people = sorted(variables(p)[0], key=lambda name: places[name])
    if p["ask"] == "place_of":
        return str(places[p["subject"]])
    if p["ask"] == "who_at":
        return _word(people[p["asked_place"] - 1], say)
    if p["ask"] == "who_is":
        return _word(people[places[p["subject"]] - 1], say)
    return ", ".join(_word(name, say) for name in people)


ARRANGEMENT = Puzzle("arrangement", draw, question, steps, solutions, answer)
