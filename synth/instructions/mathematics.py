"""Mathematics and science: the parametric families' problems as instructions, worked solutions as reasoning.

Contract: the question holds the family's problem, a way of asking and, mostly, a wish for the form of the answer:
`label` (a last line), `boxed`, `value` (the value alone, thinking form only) or none. The verdict is that of
`synth.reasoning.verify`: the answer of an independent solver, and every stated equation exactly right. Cost: 0.3 ms.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pipeline.core.verify.math import Verdict
from synth.families import FAMILIES
from synth.families.base import Size, phrases
from synth.instructions.exercise import Conversation, Draw, Exercise, Unmade, say_in
from synth.reasoning import verify

LONG_INPUT = ("ledger", "signposts")  # these are long-context tasks
DOMAINS = ("mathematics", "science")
FAMILY_NAMES = tuple(name for name, one in FAMILIES.items() if one.domain in DOMAINS and name not in LONG_INPUT)
FORMATS = ("none", "label", "boxed", "value")
BOXED = re.compile(r"\\boxed\{(.*)\}[.。]?$")


class Mathematics:
    """The domain's generator and filter."""

    families: Sequence[str] = FAMILY_NAMES

    def make(self, draws: Sequence[Draw]) -> list[Exercise | Unmade]:
        return [make_exercise(draw) for draw in draws]

    def verify(self, conversations: Sequence[Conversation]) -> list[Verdict]:
        return [judged(one) for one in conversations]


def make_exercise(draw: Draw) -> Exercise:
    dice = draw.dice()
    family = FAMILIES[FAMILY_NAMES[dice.randrange(len(FAMILY_NAMES))]]
    parameters = family.draw(dice, draw.level, Size(0))
    own = phrases(draw.language, family.name)
    worked = family.work(parameters, own)
    say = say_in("mathematics", draw.language)
    formats = FORMATS if draw.form == "reasoning" else FORMATS[:-1]
    wish = formats[dice.randrange(len(formats))]
    leads = say.things("leads")
    question = leads[dice.randrange(len(leads))].format(problem=worked.problem)
    if wish != "none":
        question += "\n\n" + say(wish, label=own.answer_label)
    steps = "\n".join(worked.steps)
    answer = {
        "boxed": say("boxed_answer", answer=f"\\boxed{{{worked.answer}}}"),
        "value": worked.answer,
    }.get(wish, f"{own.answer_label} {worked.answer}")
    facts = {"parameters": parameters, "wish": wish, "equations": worked.equations, "answer": worked.answer}
    system = say.things("system")[dice.randrange(len(say.things("system")))]
    return Exercise(family.name, question, steps, answer, f"{steps}\n\n{answer}", facts, system)


def judged(one: Conversation) -> Verdict:
    """Judge the question's problem, the steps and the answer from the problem's numbers alone."""
    own = phrases(one.language, one.family)
    parameters = one.facts["parameters"]
    problem = FAMILIES[one.family].work(parameters, own).problem
    if problem not in one.question:
        return Verdict(False, "question", "the question does not state the problem")
    answer = _answer(one, own.answer_label)
    if answer is None:
        return Verdict(False, "no_answer", f"asked for `{one.facts['wish']}`, the answer is `{one.final[-80:]}`")
    text = f"{problem}\n\n{one.working}\n\n{own.answer_label} {answer}"
    return verify(one.family, one.language, parameters, text, one.facts["equations"])


def _answer(one: Conversation, label: str) -> str | None:
    """The answer in the form asked for."""
    last = one.final.strip().rsplit("\n", 1)[-1]
    wish = one.facts["wish"]
    if wish == "boxed":
        found = BOXED.search(last)
        return found[1] if found else None
    if wish == "value":
        return one.content if one.content == last and not last.startswith(label) else None
    return last.removeprefix(label).strip() if last.startswith(label) else None


MATHEMATICS = Mathematics()
