"""Numbers of parts as sources write them: digits, Roman numerals, Japanese numerals below a thousand."""

from __future__ import annotations

import re
from typing import Any

ROMAN = {"i": 1, "v": 5, "x": 10, "l": 50, "c": 100}
WELL_FORMED = re.compile(r"c{0,3}(?:xc|xl|l?x{0,3})(?:ix|iv|v?i{0,3})")
HAN = {digit: value for value, digit in enumerate("〇一二三四五六七八九")}
UNITS = {"十": 10, "百": 100}


def number_in(value: Any) -> int | None:
    """The number that a value is or says; None for anything else."""
    if isinstance(value, int | float):
        return int(value) if value == int(value) else None
    text = str(value).strip().casefold()
    if text.isdecimal():
        return int(text)
    if text and WELL_FORMED.fullmatch(text):
        return _roman(text)
    return _han(text) if text and all(char in HAN or char in UNITS for char in text) else None


def _roman(text: str) -> int:
    values = [ROMAN[char] for char in text]
    return sum(-one if one < later else one for one, later in zip(values, [*values[1:], 0], strict=True))


def _han(text: str) -> int:
    """`二十三`, `百五`, and digit by digit `一〇三`."""
    if not any(char in UNITS for char in text):
        return int("".join(str(HAN[char]) for char in text))
    total = digit = 0
    for char in text:
        if char in UNITS:
            total += (digit or 1) * UNITS[char]
            digit = 0
        else:
            digit = HAN[char]
    return total + digit
