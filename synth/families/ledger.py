"""Long input: a day book of deliveries in which one person's entries must be found and added up.

Contract: the entries that count are spread over the whole text (one in each of as many equal stretches), every other
line is about other people or nothing to the point; the text is as long as asked, to within one line. Parameters hold
the evidence and a seed for the filler, not the filler itself. Cost: proportional to the text, about 20 MB/s.
"""

from __future__ import annotations

from random import Random

from synth.families.base import Family, Parameters, Phrases, Size, Worked

ASIDE_SHARE = 4  # one filler line in so many is an aside without numbers that could count


def draw_ledger(dice: Random, level: int, size: Size) -> Parameters:
    return {
        "who": dice.randrange(24),
        "amounts": [dice.randint(2, 9 + 30 * level) for _ in range(2 + level)],
        "filler": dice.getrandbits(48),
        "characters": size.characters,
        "variant": dice.randrange(2),
    }


def work_ledger(p: Parameters, say: Phrases) -> Worked:
    """Go through the book, note the entries that count, keep a running total."""
    dice = Random(p["filler"])
    names = say.things("names")
    who = names[int(p["who"])]
    others = [name for name in names if name != who]
    lines = _filler(dice, say, others, p["characters"])
    entries = _spread(dice, lines, [(dice.randrange(1, 31), amount) for amount in p["amounts"]], who, say)
    problem = say.problem(p["variant"], who=who, list="\n".join(lines))
    steps = [
        say("found", number=number, day=day, amount=amount) for number, (day, amount) in enumerate(entries, start=1)
    ]
    total = entries[0][1]
    for _, amount in entries[1:]:
        steps.append(say("total", equation=f"{total} + {amount} = {total + amount}"))
        total += amount
    return Worked(problem, steps, str(total), len(entries) - 1)


def _filler(dice: Random, say: Phrases, others: list[str], characters: int) -> list[str]:
    asides = say.things("asides")
    lines: list[str] = []
    written = 0
    while written < characters:
        if dice.randrange(ASIDE_SHARE) == 0:
            line = asides[dice.randrange(len(asides))]
        else:
            line = _entry(dice, say, others[dice.randrange(len(others))], dice.randrange(1, 31), dice.randrange(2, 160))
        lines.append(line)
        written += len(line) + 1
    return lines


def _entry(dice: Random, say: Phrases, name: str, day: int, amount: int) -> str:
    wordings = say.things("entries")
    return wordings[dice.randrange(len(wordings))].format(who=name, day=day, amount=amount, place=dice.randrange(1, 10))


def _spread(
    dice: Random, lines: list[str], entries: list[tuple[int, int]], who: str, say: Phrases
) -> list[tuple[int, int]]:
    """Put one entry into each equal stretch of the lines; gives (day, amount) in the order of the text."""
    count = len(entries)
    stretch = max(1, len(lines) // count)
    for i, (day, amount) in reversed(list(enumerate(entries))):
        lines.insert(min(len(lines), i * stretch + dice.randrange(stretch)), _entry(dice, say, who, day, amount))
    return entries


LEDGER = Family("ledger", "mathematics", draw_ledger, work_ledger)
