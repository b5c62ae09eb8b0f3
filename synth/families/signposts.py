"""Long input: signs in numbered rooms, each pointing to another room; follow them from a start for some steps.

Contract: every room has one sign, the signs stand in the text in random order, so the steps are spread over all of it
and cannot be skipped; the text is as long as asked, to within a few lines (rooms have numbers of the same length). The
map is one cycle over all rooms (Sattolo's algorithm), so no path comes back early. Parameters hold the path and the
seed of the map. Cost: proportional to the text, about 10 MB/s.
"""

from __future__ import annotations

from random import Random

from synth.families.base import Family, Parameters, Phrases, Size, Worked

FEWEST_ROOMS = 12
FEWEST_DIGITS = 3  # of a room's number: rooms are not mistaken for counts of steps


def draw_signposts(dice: Random, level: int, size: Size) -> Parameters:
    return {
        "hops": 2 + level,
        "filler": dice.getrandbits(48),
        "characters": size.characters,
        "variant": dice.randrange(2),
    }


def work_signposts(p: Parameters, say: Phrases) -> Worked:
    """One sign after the other, then the room they lead to."""
    dice = Random(p["filler"])
    rooms, first = rooms_for(int(p["characters"]), say)
    numbers = list(range(first, first + rooms))
    following = cycle(numbers, dice)
    lines = [_sign(dice, say, room, following[room]) for room in dice.sample(numbers, rooms)]
    start = numbers[dice.randrange(rooms)]
    steps: list[str] = []
    room = start
    for number in range(1, p["hops"] + 1):
        steps.append(say("step", number=number, room=room, next=following[room]))
        room = following[room]
    problem = say.problem(p["variant"], start=start, hops=p["hops"], list="\n".join(lines))
    return Worked(problem, steps, str(room), 0)


def rooms_for(characters: int, say: Phrases) -> tuple[int, int]:
    """(how many rooms, the number of the first) whose signs fill so many characters; all numbers equally long."""
    signs = say.things("signs")
    bare = sum(len(sign.format(room="", next="")) + 1 for sign in signs) / len(signs)
    digits = FEWEST_DIGITS
    while (rooms := max(FEWEST_ROOMS, int(characters / (bare + 2 * digits)))) > 9 * 10 ** (digits - 1):
        digits += 1
    return rooms, 10 ** (digits - 1)


def cycle(numbers: list[int], dice: Random) -> dict[int, int]:
    """Which room follows which: one cycle through all of them."""
    order = list(numbers)
    for i in range(len(order) - 1, 0, -1):
        j = dice.randrange(i)
        order[i], order[j] = order[j], order[i]
    return dict(zip(numbers, order, strict=True))


def _sign(dice: Random, say: Phrases, room: int, following: int) -> str:
    wordings = say.things("signs")
    return wordings[dice.randrange(len(wordings))].format(room=room, next=following)


SIGNPOSTS = Family("signposts", "mathematics", draw_signposts, work_signposts)
