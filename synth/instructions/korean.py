"""Korean: tasks about the language and its usual ways of writing, each with an answer that can be computed.

Contract: `numbers` and `hangul` (1억 2,345만 and 일억 이천삼백사십오만, both ways), `weekday` and `interval` (dates),
`count` (native numerals before counters), `particle` (은/는, 이/가, 을/를, 와/과, 으로/로 by the last sound), `level`
(speech levels, from a table of sentences in all three). The verdict works the answer out by another way than the
maker: readings are parsed back, days are counted. Cost: 0.05 ms.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from random import Random
from typing import Any

from pipeline.core.verify.instructions import Constraint, check
from pipeline.core.verify.math import Verdict
from synth.families.base import Phrases
from synth.instructions.exercise import Conversation, Draw, Exercise, Unmade, say_in
from synth.instructions.korean_words import (
    counted,
    from_reading,
    from_scaled,
    has_final,
    is_rieul,
    native_value,
    particle,
    reading,
    scaled,
)

Facts = Mapping[str, Any]
WEEKDAYS = "월화수목금토일"
EPOCH = date(1970, 1, 1)  # a Thursday
SPAN_DAYS = 40_000  # from 1950 on


@dataclass(frozen=True)
class Item:
    """A question with its steps and answer; `value` is what stands in the answer."""

    question: str
    steps: str
    value: str
    facts: dict[str, Any]


def make_numbers(dice: Random, level: int, say: Phrases) -> Item:
    number = dice.randrange(10 ** (3 + level), 10 ** (4 + 2 * level))
    way = dice.choice(("to_scaled", "from_scaled"))
    given, value = (f"{number:,}", scaled(number)) if way == "to_scaled" else (scaled(number), f"{number:,}")
    parts = ", ".join(scaled(part) for part in _parts(number))
    return Item(say(way, given=given), say("number_steps", parts=parts), value, {"way": way, "given": given})


def make_hangul(dice: Random, level: int, say: Phrases) -> Item:
    number = dice.randrange(10**level, 10 ** (3 + level))
    way = dice.choice(("to_hangul", "from_hangul"))
    given, value = (f"{number:,}", reading(number)) if way == "to_hangul" else (reading(number), f"{number:,}")
    parts = ", ".join(f"{part:,} {reading(part)}" for part in _parts(number))
    return Item(say(way, given=given), say("number_steps", parts=parts), value, {"way": way, "given": given})


def _parts(number: int) -> list[int]:
    """What each scale of four digits adds: 1_2345 as 10000 and 2345."""
    found: list[int] = []
    scale = 1
    while number:
        number, part = divmod(number, 10_000)
        if part:
            found.insert(0, part * scale)
        scale *= 10_000
    return found


def _day(dice: Random) -> date:
    return date(1950, 1, 1) + timedelta(days=dice.randrange(SPAN_DAYS))


def _written(day: date) -> str:
    return f"{day.year}년 {day.month}월 {day.day}일"


def make_weekday(dice: Random, level: int, say: Phrases) -> Item:
    known = _day(dice)
    day = known + timedelta(days=dice.randrange(2, 10 ** min(level, 4) + 10))
    days = (day - known).days
    first = WEEKDAYS[known.weekday()]
    value = f"{WEEKDAYS[day.weekday()]}요일"
    steps = say("weekday_steps", days=days, weeks=days // 7, rest=days % 7, first=first)
    facts = {"known": known.isoformat(), "first": first, "day": day.isoformat()}
    return Item(say("weekday", known=_written(known), first=first, day=_written(day)), steps, value, facts)


def make_interval(dice: Random, level: int, say: Phrases) -> Item:
    first = _day(dice)
    days = dice.randrange(5, 40 * level + 10)
    last = first + timedelta(days=days)
    months: list[str] = []
    day = first
    while day < last:
        following = min(last, date(day.year + day.month // 12, day.month % 12 + 1, 1))
        months.append(f"{day.year}년 {day.month}월에 {(following - day).days}일")
        day = following
    steps = say("interval_steps", months=", ".join(months))
    facts = {"first": first.isoformat(), "last": last.isoformat()}
    return Item(say("interval", first=_written(first), last=_written(last)), steps, f"{days}일", facts)


def make_count(dice: Random, level: int, say: Phrases) -> Item:
    """Several things, for one alone is soon said again."""
    things = dice.sample(say.own["counters"], 2 + level // 3)
    numbers = [dice.randrange(1, min(99, 20 * level)) for _ in things]
    counters = [counter for _, counter in things]
    given = ", ".join(f"{thing} {number}{counter}" for (thing, counter), number in zip(things, numbers, strict=True))
    facts = {"numbers": numbers, "counters": counters}
    steps = [say("count_steps", number=number, word=counted(number)) for number in numbers]
    return Item(say("count", given=given), "\n".join(steps), right_count(facts, say), facts)


def make_particle(dice: Random, level: int, say: Phrases) -> Item:
    words = dice.sample(say.things("nouns"), 2 + level // 2)
    kinds = [dice.choice(tuple(say.own["particles"])) for _ in words]
    pairs = [say.own["particles"][kind] for kind in kinds]
    blanks = [
        f"{number}. {sentence.format(word=word)} ({pair})"
        for number, (word, (pair, sentence)) in enumerate(zip(words, pairs, strict=True), start=1)
    ]
    steps = [
        say("closed_rieul" if is_rieul(word) else "closed" if has_final(word) else "open", word=word) for word in words
    ]
    facts = {"words": words, "kinds": kinds}
    question = "\n".join([say("particle"), *blanks])
    return Item(question, "\n".join(steps), right_particle(facts, say), facts)


def make_level(dice: Random, level: int, say: Phrases) -> Item:
    indices = dice.sample(range(len(say.own["sentences"])), 2 + level // 3)
    given, wanted = dice.sample(("formal", "polite", "plain"), 2)
    facts = {"sentences": indices, "given": given, "wanted": wanted}
    text = " ".join(say.own["sentences"][index][given] for index in indices)
    question = say("level", wanted=say.own["levels"][wanted], sentence=text)
    return Item(question, say("level_steps", given=say.own["levels"][given]), right_level(facts, say), facts)


def right_number(facts: Facts, say: Phrases) -> str:
    """What is written is read again and has to give the number."""
    del say
    given, way = facts["given"], facts["way"]
    write, read = (scaled, from_scaled) if way.endswith("scaled") else (reading, from_reading)
    if way.startswith("from"):
        number = read(given)
        assert write(number) == given
        return f"{number:,}"
    number = int(given.replace(",", ""))
    assert read(write(number)) == number
    return write(number)


def right_weekday(facts: Facts, say: Phrases) -> str:
    """Days counted from one Thursday."""
    del say
    days = (date.fromisoformat(facts["day"]) - EPOCH).days
    known = (date.fromisoformat(facts["known"]) - EPOCH).days
    assert WEEKDAYS[(known + 3) % 7] == facts["first"]
    return f"{WEEKDAYS[(days + 3) % 7]}요일"


def right_interval(facts: Facts, say: Phrases) -> str:
    del say
    return f"{date.fromisoformat(facts['last']).toordinal() - date.fromisoformat(facts['first']).toordinal()}일"


def right_count(facts: Facts, say: Phrases) -> str:
    """Numerals whose values, read back, are the numbers."""
    del say
    words = [counted(number) for number in facts["numbers"]]
    assert [native_value(word) for word in words] == facts["numbers"]
    return ", ".join(f"{word} {counter}" for word, counter in zip(words, facts["counters"], strict=True))


def right_particle(facts: Facts, say: Phrases) -> str:
    del say
    return ", ".join(particle(word, kind) for word, kind in zip(facts["words"], facts["kinds"], strict=True))


def right_level(facts: Facts, say: Phrases) -> str:
    return " ".join(say.own["sentences"][index][facts["wanted"]] for index in facts["sentences"])


TASKS: Mapping[str, tuple[Callable[[Random, int, Phrases], Item], Callable[[Facts, Phrases], str]]] = {
    "numbers": (make_numbers, right_number),
    "hangul": (make_hangul, right_number),
    "weekday": (make_weekday, right_weekday),
    "interval": (make_interval, right_interval),
    "count": (make_count, right_count),
    "particle": (make_particle, right_particle),
    "level": (make_level, right_level),
}


class Korean:
    """The domain's generator and filter."""

    families: Sequence[str] = tuple(TASKS)

    def make(self, draws: Sequence[Draw]) -> list[Exercise | Unmade]:
        return [make_exercise(draw) for draw in draws]

    def verify(self, conversations: Sequence[Conversation]) -> list[Verdict]:
        return [judged(one) for one in conversations]


def make_exercise(draw: Draw) -> Exercise:
    dice, say = draw.dice(), say_in("korean", "ko")
    task = dice.choice(tuple(TASKS))
    item = TASKS[task][0](dice, draw.level, say)
    wished = dice.randrange(2)
    question = f"{item.question} {say('alone')}" if wished else item.question
    answer = item.value if wished or task == "level" else say("answer", value=item.value)
    system = dice.choice(say.things("system"))
    return Exercise(task, question, item.steps, answer, answer, {**item.facts, "asked": item.question}, system)


def judged(one: Conversation) -> Verdict:
    """The answer holds the right value, and a sentence of the wanted level is of that level."""
    if one.facts["asked"] not in one.question:
        return Verdict(False, "question", "the question is not asked")
    expected = TASKS[one.family][1](one.facts, say_in("korean", "ko"))
    given = one.content.strip()
    bare = given.removeprefix("답: ").rstrip(".")
    if bare != expected.rstrip("."):
        return Verdict(False, "wrong_answer", f"`{given[:80]}`, expected `{expected}`")
    if one.family == "level":
        kept = check(given, Constraint("speech_level", {"level": one.facts["wanted"]}), "ko")
        return kept if kept.right else Verdict(False, "constraint", kept.detail)
    return Verdict(True)


KOREAN = Korean()
