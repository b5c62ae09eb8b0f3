"""Logic: for how many truth values of its letters is a formula true? The whole table is written out.

Contract: a formula is a nested list in prefix form, `["and", X, Y]`, `["not", X]` or a letter; parameters hold one and
its letters. `solutions` computes all rows at once as bits, the steps row by row.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from random import Random
from typing import Any

from synth.families.base import Phrases
from synth.instructions.puzzles import Parameters, Puzzle

LETTERS: tuple[str, ...] = ("p", "q", "r")
SIGNS = {"and": "∧", "or": "∨", "implies": "→", "same": "↔"}
OPERATIONS = {
    "and": lambda a, b: a and b,
    "or": lambda a, b: a or b,
    "implies": lambda a, b: not a or b,
    "same": lambda a, b: a == b,
}
MARKS = ("F", "T")


def draw(dice: Random, level: int) -> dict[str, Any]:
    letters = list(LETTERS[: 2 if level < 3 else 3])
    while True:
        formula = _formula(dice, letters, 1 + level)
        if sorted(set(_letters(formula))) == letters:
            return {"letters": letters, "formula": formula}


def _formula(dice: Random, letters: list[str], operations: int) -> Any:
    if operations == 0:
        return dice.choice(letters)
    if dice.randrange(4) == 0:
        inner = _formula(dice, letters, operations - 1)
        return inner[1] if isinstance(inner, list) and inner[0] == "not" else ["not", inner]
    left = dice.randrange(operations)
    return [
        dice.choice(tuple(SIGNS)),
        _formula(dice, letters, left),
        _formula(dice, letters, operations - 1 - left),
    ]


def _letters(formula: Any) -> list[str]:
    return [formula] if isinstance(formula, str) else [letter for part in formula[1:] for letter in _letters(part)]


def shown(formula: Any) -> str:
    if isinstance(formula, str):
        return formula
    if formula[0] == "not":
        return f"¬{shown(formula[1])}"
    return f"({shown(formula[1])} {SIGNS[formula[0]]} {shown(formula[2])})"


def _parts(formula: Any) -> list[Any]:
    """Compound parts, inner ones first, each once."""
    if isinstance(formula, str):
        return []
    found = [part for child in formula[1:] for part in _parts(child)]
    return [*found, formula] if formula not in found else found


def value(formula: Any, truth: Mapping[str, bool]) -> bool:
    if isinstance(formula, str):
        return truth[formula]
    if formula[0] == "not":
        return not value(formula[1], truth)
    return bool(OPERATIONS[formula[0]](value(formula[1], truth), value(formula[2], truth)))


def question(p: Parameters, say: Phrases) -> str:
    return say("ask", formula=shown(p["formula"]), letters=", ".join(p["letters"]), rows=2 ** len(p["letters"]))


def steps(p: Parameters, say: Phrases) -> list[str]:
    lines, count = [say("row")], 0
    parts = list({shown(part): part for part in _parts(p["formula"])}.items())
    for row in product((True, False), repeat=len(p["letters"])):
        truth = dict(zip(p["letters"], row, strict=True))
        given = ", ".join(f"{letter}: {MARKS[held]}" for letter, held in truth.items())
        found = ", ".join(f"{name}: {MARKS[value(part, truth)]}" for name, part in parts)
        lines.append(f"`{given} ⇒ {found}`")
        count += value(p["formula"], truth)
    return [*lines, say("count", count=count)]


def solutions(p: Parameters) -> list[int]:
    """How many rows are true, all rows at once: a bit a row."""
    rows = 2 ** len(p["letters"])
    every = (1 << rows) - 1
    masks = {
        letter: sum(1 << row for row in range(rows) if row >> place & 1) for place, letter in enumerate(p["letters"])
    }
    return [_mask(p["formula"], masks, every).bit_count()]


def _mask(formula: Any, masks: Mapping[str, int], every: int) -> int:
    if isinstance(formula, str):
        return masks[formula]
    parts = [_mask(part, masks, every) for part in formula[1:]]
    return {
        "not": every ^ parts[0],
        "and": parts[0] & parts[-1],
        "or": parts[0] | parts[-1],
        "implies": (every ^ parts[0]) | parts[-1],
        "same": every ^ parts[0] ^ parts[-1],
    }[formula[0]]


def answer(count: int, p: Parameters, say: Phrases) -> str:
    del p, say
    return str(count)


TRUTH_TABLE = Puzzle("truth_table", draw, question, steps, solutions, answer)
