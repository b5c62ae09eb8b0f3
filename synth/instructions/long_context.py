"""Long context: a question whose evidence lies somewhere in a long list of notes, and the answer is known.

Contract: the notes are a depot's day book (`synth.families.ledger`'s sentences), one after the other or, where the draw
has documents, among those documents' paragraphs; the notes that count are spread over places drawn from the whole
length, their depths stand in the facts in permille. Asked are one entry (`lookup`), three
entries (`several`), how many there are (`count`), which of two comes first (`first`), the last of many (`latest`), the
sum of a person's entries and where signs lead (the families `ledger` and `signposts`). The verdict reads the evidence
from the question's own lines, not from how it was made. The question stands before or after the notes. Cost:
proportional to the text, about 5 MB/s.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from random import Random
from typing import Any

from pipeline.core.verify.arithmetic import stated
from pipeline.core.verify.math import Verdict, equivalent
from synth.families import FAMILIES
from synth.families.base import Phrases, Size, phrases
from synth.instructions.exercise import Conversation, Draw, Exercise, Passage, Unmade, say_in
from synth.language import facts
from synth.reasoning import verify

NOTE_TASKS = ("lookup", "several", "count", "first", "latest")
FAMILY_TASKS = ("ledger", "signposts")
NUMBER = re.compile(r"\d+")
ASIDE_SHARE = 4  # one note in so many is an aside, as in the day book
PEOPLE = 24
MOST = 160  # crates a note may tell of


class LongContext:
    """The domain's generator and filter."""

    families: Sequence[str] = (*NOTE_TASKS, *FAMILY_TASKS)

    def make(self, draws: Sequence[Draw]) -> list[Exercise | Unmade]:
        return [make_exercise(draw) for draw in draws]

    def verify(self, conversations: Sequence[Conversation]) -> list[Verdict]:
        return [judged(one) for one in conversations]


def make_exercise(draw: Draw) -> Exercise:
    dice = draw.dice()
    task = dice.choice(NOTE_TASKS if draw.passages else (*NOTE_TASKS, *FAMILY_TASKS))
    characters = int(draw.tokens * facts(draw.language).characters_per_token)
    system = dice.choice(say_in("long_context", draw.language).things("system"))
    if task in FAMILY_TASKS:
        return _of_family(task, draw, dice, Size(characters), system)
    own, say = phrases(draw.language, "ledger"), say_in("long_context", draw.language)
    chosen = dice.sample(range(PEOPLE), PEOPLE)
    asked = [own.things("names")[one] for one in chosen[:3]]
    others = [own.things("names")[one] for one in chosen[3:]]
    notes = _among(dice, own, others, draw.passages) if draw.passages else _filler(dice, own, others, characters)
    who = asked[:1] if task in ("lookup", "count", "latest") else asked[: 2 if task == "first" else 3]
    told = {"count": 2 + draw.level, "latest": 2 + draw.level}.get(task, 1)
    needles = [name for name in who for _ in range(told)]
    dice.shuffle(needles)
    depths = sorted(dice.sample(range(1001), len(needles)))
    for name, depth in reversed(list(zip(needles, depths, strict=True))):
        notes.insert(depth * len(notes) // 1000, _note(dice, own, name))
    between = "\n\n" if draw.passages else "\n"
    question = say(f"ask_{task}", a=who[0], b=who[-1], list=", ".join(who))
    layout = dice.choice(("before", "after"))
    whole = say(layout, question=question, notes=between.join(notes))
    patterns = _patterns(draw.language)
    notes = [note for note in notes if any(pattern.fullmatch(note) for pattern in patterns)]
    answer = _answer(task, who, notes, say)
    steps = "\n".join([say("quoted"), *(f"- {note}" for note in _naming(notes, who))])
    told_facts = {"task": task, "who": who, "depths": depths, "tokens": draw.tokens}
    return Exercise(task, whole, steps, answer, answer, told_facts, system)


def _of_family(task: str, draw: Draw, dice: Random, size: Size, system: str) -> Exercise:
    family = FAMILIES[task]
    parameters = family.draw(dice, draw.level, size)
    own = phrases(draw.language, task)
    worked = family.work(parameters, own)
    steps, answer = "\n".join(worked.steps), f"{own.answer_label} {worked.answer}"
    known = {"task": task, "parameters": parameters, "equations": worked.equations, "tokens": draw.tokens}
    return Exercise(task, worked.problem, steps, answer, f"{steps}\n\n{answer}", known, system)


def _filler(dice: Random, own: Phrases, names: Sequence[str], characters: int) -> list[str]:
    asides = own.things("asides")
    notes: list[str] = []
    written = 0
    while written < characters:
        note = dice.choice(asides) if dice.randrange(ASIDE_SHARE) == 0 else _note(dice, own, dice.choice(names))
        notes.append(note)
        written += len(note) + 1
    return notes


def _among(dice: Random, own: Phrases, names: Sequence[str], passages: Sequence[Passage]) -> list[str]:
    """The paragraphs of documents, with one note about somebody else in each."""
    parts: list[str] = []
    for passage in passages:
        own_parts = [passage.title] * bool(passage.title) + [one for one in passage.text.split("\n\n") if one.strip()]
        own_parts.insert(dice.randint(1, len(own_parts)), _note(dice, own, dice.choice(names)))
        parts += own_parts
    return parts


def _note(dice: Random, own: Phrases, name: str) -> str:
    wording = dice.choice(own.things("entries"))
    return wording.format(
        who=name, day=dice.randrange(1, 31), amount=dice.randrange(2, MOST), place=dice.randrange(1, 10)
    )


def _naming(notes: Sequence[str], who: Sequence[str]) -> list[str]:
    return [note for note in notes if any(name in note for name in who)]


def _answer(task: str, who: Sequence[str], notes: Sequence[str], say: Phrases) -> str:
    """Read off the notes; `amount` is told by the wording's own place for it."""
    own = {name: [note for note in notes if name in note] for name in who}
    if task == "count":
        return say("answer_count", who=who[0], count=len(own[who[0]]))
    if task == "first":
        return say("answer_first", who=min(who, key=lambda name: notes.index(own[name][0])))
    amounts = {name: _amount(found[-1], name, say.language) for name, found in own.items()}
    return "\n".join(say("answer_lookup", who=name, amount=amounts[name]) for name in who)


def _amount(note: str, name: str, language: str) -> int:
    """The crates in a note of the day book: matched against the wordings."""
    for pattern in _patterns(language):
        found = pattern.fullmatch(note)
        if found and found["who"] == name:
            return int(found["amount"])
    raise AssertionError(f"no wording of the day book: {note}")


@cache
def _patterns(language: str) -> list[re.Pattern[str]]:
    """One for each wording of an entry."""
    places: dict[str, Any] = {"who": r"(?P<who>.+?)", "amount": r"(?P<amount>\d+)", "day": r"\d+", "place": r"\d+"}
    marks = {name: f"\x00{name}\x00" for name in places}
    found: list[re.Pattern[str]] = []
    for wording in phrases(language, "ledger").things("entries"):
        pattern = re.escape(wording.format(**marks))
        for name, place in places.items():
            pattern = pattern.replace(re.escape(marks[name]), place)
        found.append(re.compile(pattern))
    return found


def judged(one: Conversation) -> Verdict:
    """Judge the answer by the notes that stand in the question."""
    task = one.facts["task"]
    if task in FAMILY_TASKS:
        own = phrases(one.language, task)
        problem = one.question.rstrip()
        label = own.answer_label
        last = one.final.strip().rsplit("\n", 1)[-1]
        if not last.startswith(label):
            return Verdict(False, "no_answer", f"the last line is `{last[:80]}`")
        if one.has_free_steps:
            return _judged_freely(one, last.removeprefix(label).strip())
        text = f"{problem}\n\n{one.working}\n\n{last}"
        return verify(task, one.language, one.facts["parameters"], text, one.facts["equations"])
    return _judged_notes(one, task)


def _judged_freely(one: Conversation, given: str) -> Verdict:
    """A model's answer to a problem of the families: the value is right, and so is every equation it states."""
    worked = FAMILIES[one.family].work(one.facts["parameters"], phrases(one.language, one.family))
    if worked.problem not in one.question:
        return Verdict(False, "question", "the question does not state the problem")
    if not equivalent(given, worked.answer):
        return Verdict(False, "wrong_answer", f"`{given[:80]}`, expected `{worked.answer}`")
    wrong = [equation.text for equation in stated(one.working) if not equation.right]
    return Verdict(False, "wrong_step", wrong[0]) if wrong else Verdict(True)


def _judged_notes(one: Conversation, task: str) -> Verdict:
    say, who = say_in("long_context", one.language), one.facts["who"]
    patterns = _patterns(one.language)
    notes = [line for line in one.question.split("\n") if any(pattern.fullmatch(line) for pattern in patterns)]
    named = _naming(notes, who)
    if len(named) != len(one.facts["depths"]):
        return Verdict(False, "evidence", f"{len(named)} notes name {', '.join(who)}, {len(one.facts['depths'])} count")
    if say(f"ask_{task}", a=who[0], b=who[-1], list=", ".join(who)) not in one.question:
        return Verdict(False, "question", "the question is not asked")
    expected = _answer(task, who, notes, say)
    told, wanted = (_values(text, who) for text in (one.content, expected))
    if told != wanted:
        return Verdict(False, "wrong_answer", f"`{one.content[:100]}`, expected `{expected}`")
    if one.form == "reasoning" and not one.has_free_steps and not all(note in one.reasoning for note in named):
        return Verdict(False, "evidence", "a note that counts is not quoted")
    return Verdict(True)


def _values(text: str, who: Sequence[str]) -> tuple[list[str], list[str]]:
    """(names asked about, numbers) in the order of the text."""
    names = re.findall("|".join(re.escape(name) for name in sorted(who, key=len, reverse=True)), text)
    return names, NUMBER.findall(text)


LONG_CONTEXT = LongContext()
