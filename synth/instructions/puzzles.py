"""What a logic puzzle is, and telling a derivation in words.

Contract: a `Puzzle` draws JSON parameters with exactly one answer; `solutions` finds the answers again by trying
everything out, which shares nothing with the solver that tells the steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from synth.families.base import Phrases
from synth.instructions.deduction import Event

Parameters = Mapping[str, Any]


@dataclass(frozen=True)
class Puzzle:
    """One kind of puzzle."""

    name: str
    draw: Callable[[Random, int], dict[str, Any]]  # level 1-5
    question: Callable[[Parameters, Phrases], str]
    steps: Callable[[Parameters, Phrases], Sequence[str]]
    solutions: Callable[[Parameters], Sequence[Any]]  # every answer there is, found by brute force
    answer: Callable[[Any, Parameters, Phrases], str]  # a solution in words


def told(events: Sequence[Event], say: Phrases, words: Callable[[Event], Mapping[str, object]]) -> list[str]:
    """The lines of a derivation. `words` gives what stands in the places of an event's sentence.

    Not told: values left out because another has them (what is left then is), and the end of a search without
    suppositions.
    """
    lines: list[str] = []
    for event in events:
        silent = event.clue == 0 if event.kind == "left_out" else event.kind == "solved" and event.depth == 0
        if not silent:
            key = "dead_by_clue" if event.kind == "dead" and event.clue else event.kind
            lines.append(say(key, **words(event)))
    return lines
