"""Books: their parts by number, by name where they have none.

Contract: parts with numbers of the same depth come by number, natural order of their names for equal ones; the book
counts as incomplete when numbers of one level have a gap or begin above 1. A part without a number (a preface, an
afterword) stays where its name stands among the others; without any numbers the names decide.
"""

from __future__ import annotations

from collections.abc import Sequence

from synth.long.groups import Part
from synth.long.naming import natural


def arranged(parts: Sequence[Part]) -> tuple[list[Part], int]:
    """(parts in reading order, how many are missing)."""
    by_name = sorted(parts, key=lambda part: (natural(part.name), part.id))
    numbers = [part.number for part in by_name if part.number is not None]
    depth = max(map(len, numbers), default=0)
    placed: list[tuple[tuple[int, ...], Part]] = []
    last: tuple[int, ...] = ()
    for part in by_name:
        last = part.number if part.number is not None else last
        placed.append((last, part))
    placed.sort(key=lambda item: item[0])  # stable: names decide between equals
    return [part for _, part in placed], _missing({number[0] for number in numbers}) if depth == 1 else 0


def _missing(numbers: set[int]) -> int:
    """Numbers that are not there, from 1 (or a 0 that is) to the highest."""
    return max(numbers) - min(1, *numbers) + 1 - len(numbers) if numbers else 0
