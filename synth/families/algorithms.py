"""Algorithms traced by hand: Dijkstra's shortest path, insertion sort, matching brackets with a stack."""

from __future__ import annotations

from random import Random

from synth.families.base import Family, Parameters, Phrases, Size, Worked

TOWNS = "ABCDEFGHIJKLMNOP"
OPENING = {")": "(", "]": "[", "}": "{"}


def draw_shortest_path(dice: Random, level: int, _: Size) -> Parameters:
    towns = 4 + level
    # A random tree makes every town reachable; the extra roads make the choice.
    roads = {(dice.randrange(town), town): dice.randint(1, 6 + 6 * level) for town in range(1, towns)}
    for _extra in range(towns):
        a, b = sorted(dice.sample(range(towns), 2))
        roads.setdefault((a, b), dice.randint(1, 6 + 6 * level))
    listed = [[a, b, length] for (a, b), length in roads.items()]
    dice.shuffle(listed)
    return {"towns": towns, "roads": listed, "variant": dice.randrange(2)}


def work_shortest_path(p: Parameters, say: Phrases) -> Worked:
    """Settle the nearest open town, look along its roads, until the last town is settled."""
    neighbours: dict[int, list[tuple[int, int]]] = {town: [] for town in range(p["towns"])}
    for a, b, length in p["roads"]:
        neighbours[a].append((b, length))
        neighbours[b].append((a, length))
    goal = p["towns"] - 1
    known, settled = {0: 0}, set()
    steps, equations = [], 0
    while goal not in settled:
        town = min((town for town in known if town not in settled), key=lambda t: (known[t], t))
        settled.add(town)
        steps.append(say("settle", town=TOWNS[town], distance=known[town]))
        for other, length in sorted(neighbours[town]) if town != goal else ():
            if other in settled:
                continue
            reached = known[town] + length
            key = "first" if other not in known else "better" if reached < known[other] else "worse"
            equation = f"{known[town]} + {length} = {reached}"
            steps.append(say(key, town=TOWNS[other], equation=equation, known=known.get(other, 0)))
            equations += 1
            known[other] = min(reached, known.get(other, reached))
    listed = "\n".join(say("road", a=TOWNS[a], b=TOWNS[b], length=length) for a, b, length in p["roads"])
    problem = say.problem(p["variant"], start=TOWNS[0], goal=TOWNS[goal], list=listed)
    return Worked(problem, steps, str(known[goal]), equations)


def draw_insertion_sort(dice: Random, level: int, _: Size) -> Parameters:
    return {"values": dice.sample(range(1, 30 * level + 20), 4 + level), "variant": dice.randrange(2)}


def work_insertion_sort(p: Parameters, say: Phrases) -> Worked:
    """Each value moves left past the larger ones; the moves are counted and added."""
    values = list(p["values"])
    steps, moves = [], []
    for position in range(1, len(values)):
        value = values[position]
        target = position
        while target > 0 and values[target - 1] > value:
            target -= 1
        values[target : position + 1] = [value, *values[target:position]]
        moves.append(position - target)
        steps.append(say("insert", value=value, moves=position - target, listed=" ".join(map(str, values))))
    total = sum(moves)
    steps.append(say("sum", equation=f"{' + '.join(map(str, moves))} = {total}"))
    problem = say.problem(p["variant"], listed=" ".join(map(str, p["values"])))
    return Worked(problem, steps, str(total), 1)


def draw_brackets(dice: Random, level: int, _: Size) -> Parameters:
    pairs = 3 + 2 * level
    text: list[str] = []
    stack: list[str] = []
    opened = 0
    while opened < pairs or stack:
        if opened < pairs and (not stack or dice.randrange(5) < 3):
            stack.append(dice.choice(")]}"))
            text.append(OPENING[stack[-1]])
            opened += 1
        else:
            text.append(stack.pop())
    if dice.randrange(3) == 0:  # one closing bracket of another kind
        closing = [i for i, mark in enumerate(text) if mark in OPENING]
        place = dice.choice(closing)
        text[place] = dice.choice([mark for mark in ")]}" if mark != text[place]])
    return {"text": "".join(text), "variant": dice.randrange(2)}


def work_brackets(p: Parameters, say: Phrases) -> Worked:
    """A stack, one mark at a time; the answer is the greatest depth, or 0 from the first mismatch."""
    stack: list[str] = []
    steps, deepest, equations = [], 0, 0
    for position, mark in enumerate(p["text"], start=1):
        depth = len(stack)
        if mark not in OPENING:
            stack.append(mark)
            steps.append(say("open", position=position, mark=mark, equation=f"{depth} + 1 = {depth + 1}"))
            equations += 1
            deepest = max(deepest, depth + 1)
        elif stack[-1] == OPENING[mark]:
            stack.pop()
            steps.append(say("close", position=position, mark=mark, equation=f"{depth} - 1 = {depth - 1}"))
            equations += 1
        else:
            steps.append(say("mismatch", position=position, mark=mark, top=stack[-1]))
            deepest = 0
            break
    if deepest:
        steps.append(say("balanced", deepest=deepest))
    return Worked(say.problem(p["variant"], text=p["text"]), steps, str(deepest), equations)


SHORTEST_PATH = Family("shortest_path", "code", draw_shortest_path, work_shortest_path)
INSERTION_SORT = Family("insertion_sort", "code", draw_insertion_sort, work_insertion_sort)
BRACKETS = Family("brackets", "code", draw_brackets, work_brackets)
