"""Instruction following with free text: a subject to write about under conditions that a program can check.

Contract: only an endpoint can answer; `judged` looks at the conditions and whether the question says them, not at what
is said about the subject. Cost: 0.1 ms.
"""

from __future__ import annotations

from pipeline.core.verify.instructions import Constraint, check_all
from pipeline.core.verify.math import Verdict
from synth.instructions.constraints import open_constraints, wording
from synth.instructions.exercise import Conversation, Draw, Exercise, say_in

FAMILY = "open"


def make_exercise(draw: Draw) -> Exercise:
    """A subject, and as many conditions as half the level and two."""
    dice, say = draw.dice(), say_in("open_tasks", draw.language)
    asked = dice.choice(say.things("tasks")).format(subject=dice.choice(say.things("subjects")))
    constraints = open_constraints(dice, draw.language, 1 + (draw.level + 1) // 2)
    question = "\n".join([asked, *(f"- {wording(one, draw.language)}" for one in constraints)])
    system = dice.choice(say_in("constraints", draw.language).things("system"))
    facts = {"asked": asked, "constraints": [one.row() for one in constraints]}
    return Exercise(FAMILY, question, "", "", "", facts, system)


def judged(one: Conversation) -> Verdict:
    constraints = [Constraint.of(row) for row in one.facts["constraints"]]
    wanted = [one.facts["asked"], *(wording(constraint, one.language) for constraint in constraints)]
    if any(text not in one.question for text in wanted):
        return Verdict(False, "question", "a condition is not asked for")
    kept = check_all(one.content, constraints, one.language)
    return kept if kept.right else Verdict(False, "constraint", f"{kept.reason}: {kept.detail}")
