"""Logic: our own parametric puzzles, each with exactly one answer, and their derivations in six languages.

Contract: an answer is right when brute force over everything (`Puzzle.solutions`) leaves one answer and it is this one;
the question must be the puzzle's, and our own working must be the derivation word for word (`worked` in the facts says
that it is ours). Cost: 1-20 ms a puzzle, most of it brute force.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.core.documents import text_hash
from pipeline.core.verify.math import Verdict
from synth.families.base import phrases
from synth.instructions.arrangements import ARRANGEMENT
from synth.instructions.exercise import Conversation, Draw, Exercise, Unmade, say_in
from synth.instructions.puzzles import Puzzle
from synth.instructions.syllogisms import SYLLOGISM
from synth.instructions.truth_tables import TRUTH_TABLE
from synth.instructions.truthtellers import TRUTHTELLERS

PUZZLES: Mapping[str, Puzzle] = {puzzle.name: puzzle for puzzle in (ARRANGEMENT, TRUTHTELLERS, SYLLOGISM, TRUTH_TABLE)}
WORKED = "worked"  # a fact: hash of our solver's working


class Logic:
    """The domain's generator and filter."""

    families: Sequence[str] = tuple(PUZZLES)

    def make(self, draws: Sequence[Draw]) -> list[Exercise | Unmade]:
        return [make_exercise(draw) for draw in draws]

    def verify(self, conversations: Sequence[Conversation]) -> list[Verdict]:
        return [judged(one) for one in conversations]


def make_exercise(draw: Draw) -> Exercise | Unmade:
    dice = draw.dice()
    puzzle = dice.choice(tuple(PUZZLES.values()))
    parameters = puzzle.draw(dice, draw.level)
    say = say_in(puzzle.name, draw.language)
    problem = puzzle.question(parameters, say)
    found = puzzle.solutions(parameters)
    if len(found) != 1:
        return Unmade("ambiguous", f"{len(found)} answers fit", problem)
    steps = "\n".join(puzzle.steps(parameters, say))
    label = answer_label(draw.language)
    answer = f"{label} {puzzle.answer(found[0], parameters, say)}"
    wished = dice.randrange(2)
    question = f"{problem}\n\n{say_in('mathematics', draw.language)('label', label=label)}" if wished else problem
    system = say_in("logic", draw.language).things("system")
    facts = {"parameters": parameters, WORKED: text_hash(steps)}
    return Exercise(
        puzzle.name, question, steps, answer, f"{steps}\n\n{answer}", facts, system[dice.randrange(len(system))]
    )


def answer_label(language: str) -> str:
    return phrases(language, "euclid").answer_label


def judged(one: Conversation) -> Verdict:
    """Judge the question, the answer and our own working."""
    puzzle, parameters = PUZZLES[one.family], one.facts["parameters"]
    say = say_in(one.family, one.language)
    if puzzle.question(parameters, say) not in one.question:
        return Verdict(False, "question", "the question does not state the puzzle")
    found = puzzle.solutions(parameters)
    if len(found) != 1:
        return Verdict(False, "ambiguous", f"{len(found)} answers fit")
    last, label = one.final.strip().rsplit("\n", 1)[-1], answer_label(one.language)
    if not last.startswith(label):
        return Verdict(False, "no_answer", f"the last line is `{last[:80]}`")
    given, expected = last.removeprefix(label).strip(), puzzle.answer(found[0], parameters, say)
    if given.rstrip(".。") != expected.rstrip(".。"):
        return Verdict(False, "wrong_answer", f"`{given[:80]}`, expected `{expected}`")
    if WORKED in one.facts and text_hash(one.working) != one.facts[WORKED]:
        return Verdict(False, "wrong_step", "the working is not the derivation")
    return Verdict(True)


LOGIC = Logic()
