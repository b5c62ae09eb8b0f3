"""Numbers of parts as sources write them: digits, Roman numerals, Japanese numerals below a thousand.

Contract: what has more than `LONGEST_DIGITS` digits, or is not finite, is no number. Python itself refuses to read
more than 4,300 (`sys.int_info`), with a `ValueError`; no source counts that far.
"""

from __future__ import annotations

import re
from math import isfinite
from typing import Any

ROMAN = {"i": 1, "v": 5, "x": 10, "l": 50, "c": 100}
WELL_FORMED = re.compile(r"c{0,3}(?:xc|xl|l?x{0,3})(?:ix|iv|v?i{0,3})")
HAN = {digit: value for value, digit in enumerate("〇一二三四五六七八九")}
UNITS = {"十": 10, "百": 100}
LONGEST_DIGITS = 640  # the lowest limit that Python can be set to (`sys.int_info.str_digits_check_threshold`)


def number_in(value: Any) -> int | None:
    """The number that a value is or says; None for anything else."""
    if isinstance(value, int | float):
        is_whole = isfinite(value) and value == int(value) and abs(value) < 10**LONGEST_DIGITS
        return int(value) if is_whole else None
    text = str(value).strip().casefold()
    if text.isdecimal():
        return number_of_digits(text)
    if text and WELL_FORMED.fullmatch(text):
        return _roman(text)
    return _han(text) if text and all(char in HAN or char in UNITS for char in text) else None


def number_of_digits(digits: str) -> int | None:
    """The number that a run of decimal digits says; None for one too long to be a number."""
    return int(digits) if len(digits) <= LONGEST_DIGITS else None


def _roman(text: str) -> int:
    values = [ROMAN[char] for char in text]
    return sum(-one if one < later else one for one, later in zip(values, [*values[1:], 0], strict=True))


def _han(text: str) -> int | None:
    """`二十三`, `百五`, and digit by digit `一〇三`."""
    if not any(char in UNITS for char in text):
        return number_of_digits("".join(str(HAN[char]) for char in text))
    total = digit = 0
    for char in text:
        if char in UNITS:
            total += (digit or 1) * UNITS[char]
            digit = 0
        else:
            digit = HAN[char]
    return total + digit
