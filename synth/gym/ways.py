"""Ways to the answer, for the families whose entries tell one: the library itself shows answers only.

Contract: a way is written from the entry's metadata and its answer, and judged from its text (`wrong_step` says what is
wrong with it): every equation it states is exactly right, as many are stated as the family promises, and it ends in the
answer. Families without an entry in `WAYS` have no way; answers that are moves (`jugs`, `shortest_path`,
`tower_of_hanoi`) are one themselves.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.core.verify.arithmetic import stated

NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
Entry = Mapping[str, Any]  # question, answer, metadata


@dataclass(frozen=True)
class Way:
    """How a family's way is written."""

    write: Callable[[Entry], str]
    equations: int  # that are read in it, at least
    ends: Callable[[Entry], str]  # in what the text ends, a full stop aside


def way(family: str, entry: Entry) -> str:
    """The way to the entry's answer; empty where the family has none."""
    return WAYS[family].write(entry) if family in WAYS else ""


def wrong_step(family: str, entry: Entry, text: str) -> str:
    """What is wrong with a way, or an empty string."""
    if family not in WAYS:
        return ""
    found = stated(text)
    for one in found:
        if not one.right:
            return f"`{one.text}` is not right"
    if len(found) < WAYS[family].equations:
        return f"{len(found)} equations can be read, {WAYS[family].equations} should be"
    end = WAYS[family].ends(entry)
    if family == "gsm_symbolic":
        numbers = NUMBER.findall(text.replace(",", ""))
        return "" if numbers and float(numbers[-1]) == float(end) else f"the last number is not {end}"
    return "" if text.endswith(f"{end}.") else f"it does not end in {end}"


def _answer(entry: Entry) -> str:
    return entry["answer"]


def _target(entry: Entry) -> str:
    return str(entry["metadata"]["target"])


def _right_side(entry: Entry) -> str:
    return entry["metadata"]["equation"].rpartition("= ")[2]


def _evaluated(entry: Entry) -> str:
    return f"{entry['metadata']['expression']} = {entry['answer']}."


def _countdown(entry: Entry) -> str:
    return f"{entry['answer']} = {_target(entry)}."


def _put_in(entry: Entry) -> str:
    """The solution put into the equation."""
    equation, variable = entry["metadata"]["equation"], entry["metadata"]["variable"]
    checked = re.sub(rf"\b{variable}\b", f"({entry['answer']})", equation)
    return f"With {variable} being {entry['answer']}, the equation holds: {checked}."


def _bits(entry: Entry) -> str:
    number, bits = entry["metadata"]["number"], entry["metadata"]["binary"]
    powers = [2**place for place, bit in enumerate(reversed(bits)) if bit == "1"][::-1]
    total = " + ".join(map(str, powers))
    return f"As a sum of powers of two, {total} = {number}. Number of powers: {len(powers)}."


def _states(entry: Entry) -> str:
    """Counts after each rule, from the ones given on; the last ones are the answer."""
    return "\n".join(" ".join(map(str, state)) for state in entry["metadata"]["states"]) + "."


def _told(entry: Entry) -> str:
    return entry["metadata"]["answer_cot"].rpartition("####")[0].strip()


WAYS: Mapping[str, Way] = {
    "basic_arithmetic": Way(_evaluated, 1, _answer),
    "chain_sum": Way(_evaluated, 1, _answer),
    "products": Way(_evaluated, 1, _answer),
    "countdown": Way(_countdown, 1, _target),
    "simple_equations": Way(_put_in, 1, _right_side),
    "count_bits": Way(_bits, 1, _answer),
    "gsm_symbolic": Way(_told, 1, _answer),
    "string_splitting": Way(_states, 0, _answer),
    "string_synthesis": Way(_states, 0, _answer),
}
