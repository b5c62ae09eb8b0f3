"""Solvers of ours for reasoning-gym's problems: each works the answer out again, mostly from the question's lines."""

from __future__ import annotations

import itertools
import json
import math
import operator
import re
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction
from graphlib import CycleError, TopologicalSorter
from typing import Any

from sympy import primerange

from synth.gym.config import GymFamily

Entry = dict[str, Any]
Cell = tuple[int, int]
Grid = dict[Cell, Any]


def rows_of(text: str) -> list[list[str]]:
    """The last block of lines of single characters with spaces between."""
    found: list[list[str]] = []
    for line in text.strip().split("\n"):
        if re.fullmatch(r"\S(?: \S)*", line.strip()):
            found.append(line.split())
        else:
            found.clear()
    return found


def cells(rows: Sequence[Sequence[Any]]) -> Grid:
    return {(r, c): value for r, row in enumerate(rows) for c, value in enumerate(row)}


def near(cell: Cell) -> list[Cell]:
    return [(cell[0] + 1, cell[1]), (cell[0] - 1, cell[1]), (cell[0], cell[1] + 1), (cell[0], cell[1] - 1)]


def distances(starts: Sequence[Cell], open_cells: set[Cell]) -> dict[Cell, int]:
    """Steps from the nearest start over open cells."""
    found = dict.fromkeys(starts, 0)
    edge = list(starts)
    while edge:
        following = {cell for one in edge for cell in near(one) if cell in open_cells and cell not in found}
        found |= dict.fromkeys(following, max(found.values()) + 1)
        edge = list(following)
    return found


def numbers(text: str) -> list[int]:
    return list(map(int, re.findall(r"-?\d+", text)))


def told(pattern: str, entry: Entry) -> str:
    """What stands in the question."""
    found = re.search(pattern, entry["question"])
    assert found is not None, entry["question"]
    return found[0]


def last_line(entry: Entry) -> str:
    return entry["question"].split("\n")[-1]


def base_conversion(entry: Entry) -> bool:
    names = {"binary": 2, "hexadecimal": 16}
    told = re.search(r"convert the (?:base-)?(\w+) number (\w+) to (?:base-)?(\w+)", entry["question"])
    assert told is not None
    one, other = (names.get(name) or int(name) for name in (told[1], told[3]))
    return int(told[2], one) == int(entry["answer"], other)


def bitwise_arithmetic(entry: Entry) -> bool:
    assert re.fullmatch(r"[0-9a-fx()+\-*&|^<> ]+", last_line(entry))
    return hex(eval(last_line(entry))) == entry["answer"]


def binary_matrix(entry: Entry) -> bool:
    grid = cells(rows_of(entry["question"]))
    found = distances([cell for cell, value in grid.items() if value == "0"], set(grid))
    return found == {cell: int(value) for cell, value in cells(rows_of(entry["answer"])).items()}


def course_schedule(entry: Entry) -> bool:
    listed = next(line for line in entry["question"].split("\n") if line.startswith("[("))
    graph: dict[int, set[int]] = {}
    for course, before in zip(numbers(listed)[::2], numbers(listed)[1::2], strict=True):
        graph.setdefault(course, set()).add(before)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError:
        return entry["answer"] == "False"
    return entry["answer"] == "True"


def count_primes(entry: Entry) -> bool:
    first, last = numbers(entry["question"])
    return len(list(primerange(first, last + 1))) == int(entry["answer"])


def countdown(entry: Entry) -> bool:
    return sorted(numbers(entry["answer"].replace("-", " "))) == sorted(entry["metadata"]["numbers"])


def dice(entry: Entry) -> bool:
    told = re.search(r"dice: (.*?)\. What are the odds of rolling (\d+)", entry["question"])
    assert told is not None
    sums = Counter({0: 1})
    for sides in map(int, re.findall(r"1d(\d+)", told[1])):
        before, sums = sums, Counter()
        for total, side in itertools.product(before, range(1, sides + 1)):
            sums[total + side] += before[total]
    high = sum(ways for total, ways in sums.items() if total >= int(told[2]))
    return str(Fraction(high, sums.total())) == entry["answer"]


def game_of_life(entry: Entry) -> bool:
    board = json.loads(entry["question"].split("\n\n")[-1].rstrip("."))
    (steps,) = numbers(told(r"after (\d+) steps", entry))
    height, width = len(board), len(board[0])
    alive = {cell for cell, value in cells(board).items() if value}
    for _ in range(steps):
        around = Counter(
            ((r + dr) % height, (c + dc) % width)
            for r, c in alive
            for dr, dc in itertools.product((-1, 0, 1), repeat=2)
            if (dr, dc) != (0, 0)
        )
        alive = {cell for cell, count in around.items() if count == 3 or (count == 2 and cell in alive)}
    return alive == {cell for cell, value in cells(json.loads(entry["answer"])).items() if value}


def largest_island(entry: Entry) -> bool:
    block = entry["question"].split("grid:\n")[1].split("\n\n")[0]
    land = {cell for cell, value in cells(rows_of(block)).items() if value == "1"}
    return max((len(distances([cell], land)) for cell in land), default=0) == int(entry["answer"])


def maze(entry: Entry) -> bool:
    start, goal = re.findall(r"'(.)' \((?:start|goal)\)", entry["question"])
    wall = told(r"'(.)' = Wall", entry)[1]
    fenced = entry["question"].split("\n```\n", 1)[1].rsplit("\n```\nLegend", 1)[0]  # a wall may be a backtick
    grid = cells(fenced.split("\n"))
    place = {value: cell for cell, value in grid.items()}
    found = distances([place[start]], {cell for cell, value in grid.items() if value != wall})
    return found.get(place[goal], -1) == int(entry["answer"])


def shortest_path(entry: Entry) -> bool:
    grid = cells(rows_of(entry["question"]))
    place = {value: cell for cell, value in grid.items()}
    found = distances([place["*"]], {cell for cell, value in grid.items() if value != "X"})
    if entry["answer"] == "infeasible":
        return place["#"] not in found
    r, c = place["*"]
    for move in entry["answer"].split():
        r, c = r + (move == "down") - (move == "up"), c + (move == "right") - (move == "left")
        assert grid[r, c] != "X"
    return (r, c) == place["#"] and len(entry["answer"].split()) == found[place["#"]]


def rotten_oranges(entry: Entry) -> bool:
    grid = cells(rows_of(entry["question"]))
    fresh = {cell for cell, value in grid.items() if value == "1"}
    found = distances([cell for cell, value in grid.items() if value == "2"], fresh)
    return int(entry["answer"]) == (-1 if fresh - set(found) else max(found.values(), default=0))


def kakurasu(entry: Entry) -> bool:
    told = [json.loads(part) for part in re.findall(r"\[[\d, ]+\]", entry["question"])][-2:]
    answer = [[int(value) for value in row] for row in rows_of(entry["answer"])]
    columns = list(zip(*answer, strict=True))
    return told == [[sum(n * one for n, one in enumerate(line, 1)) for line in side] for side in (answer, columns)]


def sudoku(entry: Entry) -> bool:
    lines = [line for line in entry["question"].split("\n") if re.fullmatch(r"[\d_](?: [\d_])*", line.strip())]
    given, answer = (cells(rows_of(text)) for text in ("\n".join(lines), entry["answer"]))
    size = math.isqrt(len(answer))
    box = math.isqrt(size)
    units = Counter(
        (unit, value)
        for (r, c), value in answer.items()
        for unit in (("row", r), ("column", c), ("box", r // box * box + c // box))
    )
    kept = all(value == "_" or answer[cell] == value for cell, value in given.items())
    return kept and len(given) == len(answer) and len(units) == 3 * size * size


def number_filtering(entry: Entry) -> bool:
    told = re.search(r"(Keep|Remove) all numbers (larger|smaller) than (\S+) in this list: (\[.*\])", entry["question"])
    assert told is not None
    compared = operator.gt if told[2] == "larger" else operator.lt
    listed = re.findall(r"'([^']+)'", told[4])
    return re.findall(r"'([^']+)'", entry["answer"]) == [
        one for one in listed if compared(float(one), float(told[3])) == (told[1] == "Keep")
    ]


def number_sorting(entry: Entry) -> bool:
    told = re.search(r"in (ascending|descending) order: (.*)", entry["question"])
    assert told is not None
    ordered = sorted(map(float, told[2].split(", ")), reverse=told[1] == "descending")
    return [float(one) for one in re.findall(r"'([^']+)'", entry["answer"])] == ordered


def palindrome_generation(entry: Entry) -> bool:
    letters = entry["question"].rsplit(": ", 1)[1].split(", ")
    return sorted(letters) == sorted(entry["answer"]) and entry["answer"] == entry["answer"][::-1]


def path_star(entry: Entry) -> bool:
    edges, ends = last_line(entry).removesuffix(" =").split("/")
    path = entry["answer"].split()
    steps = {tuple(edge.split()) for edge in edges.strip("|").split("|")}
    return [path[0], path[-1]] == ends.split() and set(itertools.pairwise(path)) <= steps


def rotate_matrix(entry: Entry) -> bool:
    (degrees,) = numbers(told(r"by (\d+) degrees", entry))
    rows: list[tuple[str, ...]] = [tuple(row) for row in rows_of(entry["question"])]
    for _ in range(degrees // 90):
        rows = list(zip(*rows[::-1], strict=True))
    return rows == [tuple(row) for row in rows_of(entry["answer"])]


def spiral_matrix(entry: Entry) -> bool:
    rows: list[tuple[str, ...]] = [tuple(row) for row in rows_of(entry["question"])]
    peeled: list[str] = []
    while rows:
        peeled += rows[0]
        rows = list(zip(*rows[1:], strict=True))[::-1]
    return peeled == entry["answer"].split()


def string_insertion(entry: Entry) -> bool:
    after = {"ABCD": "A", "BCDE": "B", "CDEA": "C", "DEAB": "D", "EABC": "E"}
    given = last_line(entry).rsplit(": ", 1)[1]
    return re.sub("|".join(after), lambda found: found[0] + after[found[0]], given) == entry["answer"]


def simulated(entry: Entry, rules: Sequence[tuple[str, str]], kinds: str) -> bool:
    counts = Counter(dict(zip(kinds, numbers(entry["question"].split("Now, you have")[1])[:3], strict=False)))
    seen: set[tuple[int, ...]] = set()
    while (state := tuple(counts[kind] for kind in kinds)) not in seen:
        seen.add(state)
        for used, got in rules:
            if Counter(used) <= counts:
                counts = counts - Counter(used) + Counter(got)
                break
    return " ".join(map(str, state)) == entry["answer"]


def string_splitting(entry: Entry) -> bool:
    rules = [("A", "XXY"), ("BB", "X"), ("CC", "Y"), ("BC", "A"), ("XY", "Z")]
    return simulated(entry, rules, "ABCXYZ")


def string_synthesis(entry: Entry) -> bool:
    rules = [("ABC", "D"), ("AB", "F"), ("BC", "E"), ("CC", "F"), ("DF", "GH"), ("EE", "I")]
    return simulated(entry, rules, "ABCDEFGHI")


def tower_of_hanoi(entry: Entry) -> bool:
    disks, pegs, start, target = numbers(entry["question"])[:4]
    on: dict[int, list[int]] = {peg: [] for peg in range(1, pegs + 1)}
    on[start] = list(range(disks, 0, -1))
    for line in entry["answer"].split("\n"):
        disk, one, other = numbers(line)
        assert on[one][-1] == disk
        assert not on[other] or on[other][-1] > disk
        on[other].append(on[one].pop())
    return len(on[target]) == disks


def jugs(entry: Entry) -> bool:
    holds = {name: int(size) for name, size in re.findall(r"([A-Z]):(\d+)", entry["question"])}
    (target,) = numbers(told(r"target is: (\d+)", entry))
    water = dict.fromkeys(holds, 0)
    for move in json.loads(entry["answer"]):
        verb, what = move.split()
        if verb == "pour":
            one, other = what.split("->")
            poured = min(water[one], holds[other] - water[other])
            water[one], water[other] = water[one] - poured, water[other] + poured
        else:
            water[what] = holds[what] if verb == "fill" else 0
    return target in water.values()


def ab(entry: Entry) -> bool:
    """Rewritten from the right, the library goes from the left: the rules are confluent."""
    rules = {"A# #A": "", "A# #B": "#B A#", "B# #A": "#A B#", "B# #B": ""}
    tokens = entry["question"].split("program:\n\n")[1].split("\n")[0].split()
    place = len(tokens) - 2
    while place >= 0:
        made = rules.get(" ".join(tokens[place : place + 2]))
        if made is None:
            place -= 1
        else:
            tokens[place : place + 2] = made.split()
            place = len(tokens) - 2
    return " ".join(tokens) == entry["answer"]


def binary_alternation(entry: Entry) -> bool:
    given = entry["question"].rsplit(": ", 1)[1]
    swaps = []
    for first in "01":
        wanted = (first + "10"[int(first)]) * len(given)
        wrong = Counter(one for one, other in zip(given, wanted, strict=False) if one != other)
        if wrong["0"] == wrong["1"]:
            swaps.append(wrong["0"])
    return min(swaps, default=-1) == int(entry["answer"])


def circuit_logic(entry: Entry) -> bool:
    """The formula of the metadata, read by Python: `a'` is `(1 - a)`, NAND and XOR over all their inputs."""
    facts = entry["metadata"]
    inputs = dict(re.findall(r"^  ([A-Z]) = ([01])$", entry["question"], re.M))

    def gate(sign: str, values: Sequence[int]) -> int:
        return {
            "&": all(values), "↑": not all(values), "⊕": sum(values) % 2, "+": any(values), "↓": not any(values),
        }[sign]  # fmt: skip

    terms = []
    for term in facts["term_strings"]:
        values = [int(inputs[name]) ^ bool(mark) for name, mark in re.findall(r"([A-Z])('?)", term)]
        terms.append(gate(re.sub(r"[A-Z']", "", term)[0], values))
    sign = {"AND": "&", "NAND": "↑", "XOR": "⊕", "OR": "+", "NOR": "↓"}[facts["final_gate"]]
    return str(int(gate(sign, terms))) == entry["answer"]


def bf(entry: Entry) -> bool:
    program = entry["question"].split("\n\n")[1].strip()
    jumps: dict[int, int] = {}
    opened: list[int] = []
    for place, sign in enumerate(program):
        if sign == "[":
            opened.append(place)
        elif sign == "]":
            jumps[place] = opened.pop()
            jumps[jumps[place]] = place
    tape: Counter[int] = Counter()
    at, place, out = 0, 0, ""
    while place < len(program):
        sign = program[place]
        at += (sign == ">") - (sign == "<")
        tape[at] = (tape[at] + (sign == "+") - (sign == "-")) % 256
        out += chr(tape[at]) if sign == "." else ""
        if (sign == "[" and not tape[at]) or (sign == "]" and tape[at]):
            place = jumps[place]
        place += 1
    return out == entry["answer"]


def gcd(entry: Entry) -> bool:
    return math.gcd(*numbers(entry["question"])) == int(entry["answer"])


def lcm(entry: Entry) -> bool:
    return math.lcm(*numbers(entry["question"])) == int(entry["answer"])


SOLVERS: dict[GymFamily, Callable[[Entry], bool]] = {
    "ab": ab, "base_conversion": base_conversion, "bf": bf, "binary_alternation": binary_alternation,
    "binary_matrix": binary_matrix, "bitwise_arithmetic": bitwise_arithmetic, "circuit_logic": circuit_logic,
    "count_primes": count_primes, "countdown": countdown, "course_schedule": course_schedule, "dice": dice,
    "game_of_life": game_of_life, "gcd": gcd, "jugs": jugs, "kakurasu": kakurasu, "largest_island": largest_island,
    "lcm": lcm, "maze": maze, "mini_sudoku": sudoku, "number_filtering": number_filtering,
    "number_sorting": number_sorting, "palindrome_generation": palindrome_generation, "path_star": path_star,
    "rotate_matrix": rotate_matrix, "rotten_oranges": rotten_oranges, "shortest_path": shortest_path,
    "spiral_matrix": spiral_matrix, "string_insertion": string_insertion, "string_splitting": string_splitting,
    "string_synthesis": string_synthesis, "sudoku": sudoku, "tower_of_hanoi": tower_of_hanoi,
}  # fmt: skip
