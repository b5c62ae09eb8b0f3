"""Instruction following with free text: a subject to write about under conditions that a program can check.

Contract: only an endpoint can answer; `judged` looks at the conditions and whether the question says them, not at what
is said about the subject. One task in four wants its answer in another language: its conditions are drawn for that
language and counted in it. Cost: 0.1 ms.
"""

from __future__ import annotations

from pipeline.core.languages import LANGUAGES
from pipeline.core.verify.instructions import Constraint, check_all
from pipeline.core.verify.math import Verdict
from synth.instructions.checks import ANOTHER_LANGUAGE
from synth.instructions.constraints import open_constraints, wording
from synth.instructions.exercise import Conversation, Draw, Exercise, say_in

FAMILY = "open"
ABROAD_SHARE = 4  # one task in so many is answered in another language
OF_ONE_LANGUAGE = ("words", "speech_level")  # conditions that not every language has words for


def make_exercise(draw: Draw) -> Exercise:
    """A subject, and as many conditions as half the level and one."""
    dice, say = draw.dice(), say_in("open_tasks", draw.language)
    asked = dice.choice(say.things("tasks")).format(subject=dice.choice(say.things("subjects")))
    others = [language for language in LANGUAGES if language != draw.language]
    target = dice.choice(others) if dice.randrange(ABROAD_SHARE) == 0 else draw.language
    constraints = open_constraints(dice, target, 1 + (draw.level + 1) // 2)
    if target != draw.language:
        constraints = [one for one in constraints if one.name not in OF_ONE_LANGUAGE]
        constraints.append(Constraint("language", {"language": target}))
    question = "\n".join([asked, *(f"- {wording(one, draw.language)}" for one in constraints)])
    system = dice.choice(say_in("constraints", draw.language).things("system"))
    facts = {"asked": asked, "constraints": [one.row() for one in constraints]}
    if target != draw.language:
        facts[ANOTHER_LANGUAGE] = target
    return Exercise(FAMILY, question, "", "", "", facts, system)


def judged(one: Conversation) -> Verdict:
    constraints = [Constraint.of(row) for row in one.facts["constraints"]]
    wanted = [one.facts["asked"], *(wording(constraint, one.language) for constraint in constraints)]
    if any(text not in one.question for text in wanted):
        return Verdict(False, "question", "a condition is not asked for")
    kept = check_all(one.content, constraints, one.facts.get(ANOTHER_LANGUAGE, one.language))
    return kept if kept.right else Verdict(False, "constraint", f"{kept.reason}: {kept.detail}")
