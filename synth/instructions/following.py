"""Instruction following without an endpoint: small tasks on lists whose answer is written in the form asked for.

Contract: the task (order, choose or clean a list of words or numbers) has one right list; its form and what stands
around it are conditions of `pipeline.core.verify.instructions`. The verdict works the list out again, reads the list
back from the answer's form and checks every condition; the question must say the task and each condition. Cost: 0.1 ms.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from json import JSONDecodeError
from random import Random
from typing import Any

from pipeline.core.verify.instructions import BULLET, NUMBERED, Constraint, check_all, lines
from pipeline.core.verify.math import Verdict
from synth.families.base import Phrases
from synth.instructions import open_tasks
from synth.instructions.constraints import LATIN, wording
from synth.instructions.exercise import Conversation, Draw, Exercise, Unmade, say_in

Items = list[str]
# Task -> what it makes of the items; `k` is its number.
WORD_TASKS: Mapping[str, Callable[[Items, int], Items]] = {
    "sort": lambda items, _: sorted(items, key=str.casefold),
    "reverse": lambda items, _: items[::-1],
    "dedupe": lambda items, _: list(dict.fromkeys(items)),
    "first": lambda items, k: items[:k],
    "longer": lambda items, k: [item for item in items if len(item) >= k],
}
NUMBER_TASKS: Mapping[str, Callable[[Items, int], Items]] = {
    "ascending": lambda items, _: sorted(items, key=int),
    "descending": lambda items, _: sorted(items, key=int, reverse=True),
    "even": lambda items, _: [item for item in items if int(item) % 2 == 0],
    "above": lambda items, k: [item for item in items if int(item) > k],
}
TASKS = {**WORD_TASKS, **NUMBER_TASKS}
WHOLE = ("json_array", "json_object", "table", "quoted")  # forms in which nothing else may stand beside
FORMS = ("bullets", "numbered", "lines", "comma", *WHOLE)
SEPARATOR = ", "
KEY = "result"


class Following:
    """The domain's generator and filter."""

    families: Sequence[str] = tuple(TASKS)

    def make(self, draws: Sequence[Draw]) -> list[Exercise | Unmade]:
        return [make_exercise(draw) for draw in draws]

    def verify(self, conversations: Sequence[Conversation]) -> list[Verdict]:
        return [judged(one) for one in conversations]


def make_exercise(draw: Draw) -> Exercise:
    dice, say = draw.dice(), say_in("constraints", draw.language)
    task, items, k, result = _task(dice, say, 4 + 2 * draw.level)
    form = dice.choice(FORMS)
    asked = say(f"task_{task}", items=SEPARATOR.join(items), k=k)
    constraints = [*_form_constraints(form, len(result)), *_decorations(dice, draw, form, task, say, asked)]
    answer = _rendered(result, form, constraints)
    wishes = [say("as_comma")] * (form == "comma") + [wording(one, draw.language) for one in constraints]
    question = "\n".join([asked, *(f"- {wish}" for wish in wishes)])
    steps = "\n".join([say("thought_list", list=SEPARATOR.join(result)), say("thought_form"), *wishes])
    facts = {
        "task": task,
        "items": items,
        "k": k,
        "form": form,
        "constraints": [constraint.row() for constraint in constraints],
    }
    system = dice.choice(say.things("system"))
    return Exercise(task, question, steps, answer, answer, facts, system)


def _task(dice: Random, say: Phrases, count: int) -> tuple[str, Items, int, Items]:
    """(task, items, its number, the right list), the right list not empty and not the list as given."""
    while True:
        task = dice.choice(tuple(TASKS))
        if task in NUMBER_TASKS:
            items = [str(number) for number in dice.sample(range(1, 1000), count)]
        else:
            items = dice.sample(say.things("things"), min(count, len(say.things("things"))))
        if task == "dedupe":
            items = dice.sample(items + items[: count // 2], len(items) + count // 2)
        k = {"first": count // 2, "longer": 3 if say.language in ("ko", "ja") else 6, "above": 500}.get(task, 0)
        result = TASKS[task](items, k)
        if len(result) > 1 and result != items:
            return task, items, k, result


def _form_constraints(form: str, count: int) -> list[Constraint]:
    exactly = {"minimum": count, "maximum": count}
    return {
        "bullets": [Constraint("bullets", exactly)],
        "numbered": [Constraint("numbered", exactly)],
        "json_array": [Constraint("json_array", exactly)],
        "json_object": [Constraint("json_object", {"keys": [KEY]})],
        "table": [Constraint("table", {**exactly, "columns": 2})],
        "quoted": [Constraint("quoted", {})],
    }.get(form, [])


def _decorations(dice: Random, draw: Draw, form: str, task: str, say: Phrases, asked: str) -> list[Constraint]:
    """Further conditions, more on higher levels, that the form leaves room for."""
    has_letters = task in WORD_TASKS and draw.language in LATIN
    case = Constraint(dice.choice(("upper", "lower")), {})
    if form in WHOLE:
        return [case] if has_letters and form in ("json_array", "quoted") and dice.randrange(2) else []
    pool = [
        Constraint("starts_with", {"text": dice.choice(say.things("openings"))}),
        Constraint("ends_with", {"text": dice.choice(say.things("closings"))}),
        Constraint("title", {}),
        Constraint("headings", {"minimum": 1, "maximum": 1}),
        Constraint("postscript", {"mark": "P.S."}),
        Constraint("repeats", {"text": asked}),
        Constraint("bold", {"minimum": 1}),
    ]
    if form != "comma":
        pool.append(Constraint("forbidden_characters", {"characters": [",", "，", "、"]}))
    if form != "numbered" and task in WORD_TASKS:
        pool.append(Constraint("no_digits", {}))
    drawn = dice.sample(pool, min(1 + draw.level // 2, len(pool)))
    names = {one.name for one in drawn}
    taken: list[Constraint] = []
    for one in drawn:
        pairs = {"starts_with": {"repeats", "title", "headings"}, "title": {"headings"}, "ends_with": {"postscript"}}
        clash = any(one.name in pairs.get(other.name, ()) or other.name in pairs.get(one.name, ()) for other in taken)
        if not clash and not (one.name == "repeats" and names & {"forbidden_characters", "no_digits"}):
            taken.append(one)
    if has_letters and not taken:
        taken.append(case)
    return taken


def _rendered(result: Items, form: str, constraints: Sequence[Constraint]) -> str:
    named = {one.name: one.options for one in constraints}
    items = [item.upper() if "upper" in named else item.lower() if "lower" in named else item for item in result]
    if "bold" in named:
        items = [f"**{item}**" for item in items]
    body = {
        "bullets": "\n".join(f"- {item}" for item in items),
        "numbered": "\n".join(f"{number}. {item}" for number, item in enumerate(items, start=1)),
        "lines": "\n".join(items),
        "comma": SEPARATOR.join(items),
        "json_array": json.dumps(items, ensure_ascii=False),
        "json_object": json.dumps({KEY: items}, ensure_ascii=False),
        "quoted": f'"{SEPARATOR.join(items)}"',
        "table": "\n".join(["| # | = |", "|---|---|", *(f"| {n} | {item} |" for n, item in enumerate(items, start=1))]),
    }[form]
    before = [named["repeats"]["text"]] if "repeats" in named else []
    before += ["<<P>>"] if "title" in named else ["# P"] if "headings" in named else []
    before += [named["starts_with"]["text"]] if "starts_with" in named else []
    after = [named["ends_with"]["text"]] if "ends_with" in named else ["P.S. ✓"] if "postscript" in named else []
    return "\n\n".join([*before, body, *after])


def read_back(answer: str, form: str, constraints: Sequence[Constraint]) -> Items:
    """The list an answer holds; raises `ValueError` when it is not in the form."""
    body = answer.strip()
    for one in constraints:
        if one.name in ("repeats", "starts_with"):
            body = body.removeprefix(one.options["text"])
        if one.name == "ends_with":
            body = body.removesuffix(one.options["text"])
    if form == "bullets":
        found = BULLET.findall(body)
    elif form == "numbered":
        found = [item for _, item in NUMBERED.findall(body)]
    elif form == "table":
        found = [row.strip("| ").split(" | ")[-1] for row in lines(body)[2:]]
    elif form in ("json_array", "json_object"):
        value: Any = json.loads(body)
        found = list(map(str, value[KEY] if form == "json_object" else value))
    else:
        rows = [row for row in lines(body) if not row.startswith(("<<", "# ", "P.S."))]
        found = rows if form == "lines" else "".join(rows).strip('"').split(SEPARATOR)
    return [re.sub(r"^\*\*(.*)\*\*$", r"\1", item.strip()) for item in found]


def judged(one: Conversation) -> Verdict:
    """Work the list out again, read it back from the answer, check every condition."""
    if one.family == open_tasks.FAMILY:
        return open_tasks.judged(one)
    task, items, k, form = (one.facts[name] for name in ("task", "items", "k", "form"))
    constraints = [Constraint.of(row) for row in one.facts["constraints"]]
    say = say_in("constraints", one.language)
    wanted = [say(f"task_{task}", items=SEPARATOR.join(items), k=k), *(wording(c, one.language) for c in constraints)]
    missing = [text for text in wanted if text not in one.question]
    if missing:
        return Verdict(False, "question", f"not asked: {missing[0][:100]}")
    kept = check_all(one.content, constraints, one.language)
    if not kept.right:
        return Verdict(False, "constraint", f"{kept.reason}: {kept.detail}")
    try:
        found = read_back(one.content, form, constraints)
    except (JSONDecodeError, KeyError, TypeError) as error:
        return Verdict(False, "constraint", f"{form}: {error}")
    expected = TASKS[task](items, k)
    cased = any(c.name in ("upper", "lower") for c in constraints)
    if [item.casefold() for item in found] != [item.casefold() for item in expected] or not (
        cased or found == expected
    ):
        return Verdict(False, "wrong_answer", f"{found[:6]}, expected {expected[:6]}")
    return Verdict(True)


FOLLOWING = Following()
