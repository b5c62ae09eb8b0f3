"""Logic puzzles: one answer by brute force that shares nothing with the solver, and derivations that are sound."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import permutations, product
from random import Random

import pytest

from synth.config import LANGUAGES
from synth.instructions import arrangements, syllogisms, truth_tables, truthtellers
from synth.instructions.deduction import Problem, derive
from synth.instructions.domains import verdicts
from synth.instructions.exercise import Conversation, say_in
from synth.instructions.logic import PUZZLES, WORKED

Make = Callable[..., Sequence[Conversation]]


def test_every_puzzle_has_one_answer_in_every_language(conversations: Make) -> None:
    made = conversations("logic", 180)
    assert [(v.reason, v.detail) for v in verdicts(made) if not v.right] == []
    assert {(one.family, one.language) for one in made} == set(product(PUZZLES, LANGUAGES))
    assert {one.form for one in made} == {"reasoning", "plain"}
    assert not [one for one in made if "{" in one.text() or "}" in one.text()]


def test_arrangements_are_unique_by_an_enumeration_written_apart() -> None:
    """Clues read again from their English sentences, all orders tried."""
    say = say_in("arrangement", "en")
    for seed in range(20):
        p = arrangements.draw(Random(seed), 1 + seed % 2)
        people = [say.things("people")[i] for i in p["items"][0]]
        lines = [line.split(". ", 1)[1] for line in arrangements.question(p, say).split("\n")[1:-1]]
        fitting = [order for order in permutations(people) if all(_fits(line, order) for line in lines)]
        assert len(fitting) == 1, (seed, lines)
        (only,) = arrangements.solutions(p)
        assert [say.things("people")[int(n[2:])] for n in sorted(only, key=lambda name: only[name])] == list(fitting[0])


def _fits(line: str, order: tuple[str, ...]) -> bool:
    words = line.rstrip(".").split()
    named = [order.index(word) + 1 for word in words if word in order]
    number = int(words[-1]) if words[-1].isdigit() else 0
    if "differ by exactly" in line:
        return abs(named[0] - named[1]) == number
    if "is not at place" in line:
        return named[0] != number
    if "is at place" in line:
        return named[0] == number
    if "lower place number" in line:
        return named[0] < named[1]
    if "directly to the left" in line:
        return named[0] + 1 == named[1]
    assert "next to each other" in line
    return abs(named[0] - named[1]) == 1


@pytest.mark.parametrize("seed", range(15))
def test_no_clue_is_idle_and_no_line_is_wrong(seed: int) -> None:
    p = arrangements.draw(Random(seed), 1 + seed % 5)
    (only,) = arrangements.solutions(p)
    _sound(arrangements.problem(p, p["clues"]), only)
    for clue in p["clues"]:
        fewer = {**p, "clues": [one for one in p["clues"] if one is not clue]}
        assert len(derive(arrangements.problem(p, fewer["clues"])).solutions) > 1
    q = truthtellers.draw(Random(seed), 1 + seed % 5)
    (kinds,) = truthtellers.solutions(q)
    _sound(truthtellers.problem(q), kinds)


def _sound(problem: Problem, only: dict[str, int]) -> None:
    """Outside suppositions every line holds in the one solution; each supposition that is refuted is false."""
    told = derive(problem)
    assert told.solutions == [only]
    supposed: list[tuple[str, int]] = []
    for event in told.events:
        if event.kind == "suppose":
            supposed = [*supposed[: event.depth - 1], (event.variable, event.values[0])]
            continue
        supposed = supposed[: event.depth]
        true_so_far = all(only[name] == value for name, value in supposed)
        if true_so_far and event.kind in ("left_out", "refuted"):
            assert only[event.variable] not in event.values
        if true_so_far and event.kind in ("fixed", "only_one_for"):
            assert event.values == (only[event.variable],)
        assert not (true_so_far and event.kind == "dead")


def test_syllogisms_known_from_the_books() -> None:
    def verdict(premises: list[tuple[str, int, int]], conclusion: tuple[str, int, int]) -> list[str]:
        rows = [dict(zip(("kind", "a", "b"), one, strict=True)) for one in (*premises, conclusion)]
        return syllogisms.solutions({"groups": [0, 1, 2], "premises": rows[:-1], "conclusion": rows[-1]})

    assert verdict([("all", 1, 2), ("all", 0, 1)], ("all", 0, 2)) == ["follows"]  # Barbara
    assert verdict([("no", 1, 2), ("all", 0, 1)], ("no", 0, 2)) == ["follows"]  # Celarent
    assert verdict([("all", 1, 2), ("some", 0, 1)], ("some", 0, 2)) == ["follows"]  # Darii
    assert verdict([("no", 1, 2), ("some", 0, 1)], ("some_not", 0, 2)) == ["follows"]  # Ferio
    assert verdict([("all", 1, 2), ("all", 1, 0)], ("some", 0, 2)) == ["follows"]  # Darapti: groups have members
    assert verdict([("all", 1, 2), ("all", 0, 1)], ("no", 0, 2)) == ["ruled_out"]
    assert verdict([("all", 2, 1), ("all", 0, 1)], ("all", 0, 2)) == ["open"]  # undistributed middle
    assert verdict([("all", 0, 1), ("no", 0, 1)], ("all", 0, 2)) == []


@pytest.mark.parametrize(
    ("letters", "formula", "count"),
    [
        ("p", ["or", "p", ["not", "p"]], 2),
        ("p", ["and", "p", ["not", "p"]], 0),
        ("pq", ["implies", "p", "q"], 3),
        ("pq", ["same", "p", "q"], 2),
        ("pqr", ["and", ["or", "p", "q"], ["not", "r"]], 3),
    ],
)
def test_truth_tables(letters: str, formula: list[object], count: int) -> None:
    p = {"letters": list(letters), "formula": formula}
    assert truth_tables.solutions(p) == [count]
    told = truth_tables.steps(p, say_in("truth_table", "en"))
    assert sum(line.endswith("T`") for line in told) == count


def test_planted_mistakes_are_caught_for_the_right_reason(conversations: Make) -> None:
    tried = caught = 0
    dice = Random(3)
    for one in conversations("logic", 100):
        label, _, right = one.final.replace("： ", ": ").partition(": ")
        wrong = str(int(right) + 1) if right.isdigit() else right[:-1] + ("i" if right[-1] != "i" else "o")
        head = one.content.rpartition("\n\n")[0]
        answer = one.final[: len(label) + 2] + wrong
        bad = {
            "wrong_answer": replace(one, content=f"{head}\n\n{answer}" if head else answer),
            "no_answer": replace(one, content=f"{head}\n\n{right}" if head else right),
            "question": replace(one, question=one.question.replace("1", "9")),
            "form": replace(one, reasoning="" if one.reasoning else "…"),
        }
        lines = one.working.split("\n")
        if len(lines) > 1:
            dropped = "\n".join(line for n, line in enumerate(lines) if n != dice.randrange(len(lines)))
            if dropped != one.working:
                parts = {"reasoning": dropped} if one.form == "reasoning" else {"content": f"{dropped}\n\n{one.final}"}
                bad["wrong_step"] = replace(one, **parts)
        if "1" not in one.question:
            bad.pop("question")
        for reason, sample in bad.items():
            tried += 1
            caught += verdicts([sample])[0].reason == reason
    print(f"logic, planted and caught for its reason: {caught} of {tried}")
    assert caught >= 0.95 * tried


def test_an_endpoints_working_is_its_own(conversations: Make) -> None:
    one = next(one for one in conversations("logic", 20) if one.form == "reasoning" and one.language == "en")
    other = replace(one, reasoning="Let me think about who may stand where.")
    assert verdicts([other])[0].reason == "wrong_step"
    facts = {name: value for name, value in one.facts.items() if name != WORKED}
    assert verdicts([replace(other, facts=facts)])[0].right
