"""Korean numerals and particles: writing numbers in scales of ten thousand, reading them, counting natively.

Contract: `scaled` and `reading` have inverses that parse (`from_scaled`, `from_reading`); a particle follows from
whether the last syllable ends in a consonant. Rules: the standard grammar (한글 맞춤법 제44항 for writing numbers in
scales of 만; 표준어 numerals).
"""

from __future__ import annotations

import re

SCALES = ("", "만", "억", "조", "경")
UNITS = ("", "십", "백", "천")
DIGITS = "영일이삼사오육칠팔구"
NATIVE_ONES = ("", "하나", "둘", "셋", "넷", "다섯", "여섯", "일곱", "여덟", "아홉")
NATIVE_TENS = ("", "열", "스물", "서른", "마흔", "쉰", "예순", "일흔", "여든", "아흔")
BEFORE_COUNTER = {"하나": "한", "둘": "두", "셋": "세", "넷": "네"}
FIRST_SYLLABLE, LAST_SYLLABLE, FINALS = 0xAC00, 0xD7A3, 28
RIEUL = 8  # the final ㄹ, after which 로 stands
# Kind -> after a final consonant, after a vowel.
PARTICLES = {
    "topic": ("은", "는"),
    "subject": ("이", "가"),
    "object": ("을", "를"),
    "with": ("과", "와"),
    "direction": ("으로", "로"),
}


def fours(number: int) -> list[tuple[int, str]]:
    """(part of four digits, its scale), the highest first, parts of zero left out."""
    found: list[tuple[int, str]] = []
    for scale in SCALES:
        number, part = divmod(number, 10_000)
        if part:
            found.insert(0, (part, scale))
    assert number == 0, "beyond 경"
    return found


def scaled(number: int) -> str:
    """123456789 as `1억 2,345만 6,789`."""
    return " ".join(f"{part:,}{scale}" for part, scale in fours(number)) or "0"


def from_scaled(text: str) -> int:
    total = 0
    for part in text.split():
        found = re.fullmatch(r"([\d,]+)([만억조경]?)", part)
        assert found, text
        total += int(found[1].replace(",", "")) * 10_000 ** SCALES.index(found[2])
    return total


def reading(number: int) -> str:
    """12345 as `만 이천삼백사십오`: a one is not said before 만 at the head, nor before 십, 백, 천."""
    words: list[str] = []
    for part, scale in fours(number):
        digits = f"{part:04d}"
        said = "".join(
            ("" if digit == "1" and unit else DIGITS[int(digit)]) + unit
            for digit, unit in zip(digits, reversed(UNITS), strict=True)
            if digit != "0"
        )
        words.append(scale if part == 1 and scale == "만" and not words else said + scale)
    return " ".join(words) or DIGITS[0]


def from_reading(text: str) -> int:
    total = 0
    for word in text.split():
        scale = word[-1] if word[-1] in SCALES[1:] else ""
        part, digit = 0, 0
        for letter in word.removesuffix(scale) if scale else word:
            if letter in DIGITS:
                digit = DIGITS.index(letter)
            else:
                part += max(digit, 1) * 10 ** UNITS.index(letter)
                digit = 0
        part += digit
        total += (part if word != scale else 1) * 10_000 ** SCALES.index(scale)
    return total


def counted(number: int) -> str:
    """A native numeral as it stands before a counter: 21 as `스물한`, 20 as `스무`."""
    tens, ones = divmod(number, 10)
    if ones == 0:
        return "스무" if tens == 2 else NATIVE_TENS[tens]
    word = NATIVE_ONES[ones]
    return NATIVE_TENS[tens] + BEFORE_COUNTER.get(word, word)


def native_value(word: str) -> int:
    """The value of a native numeral before a counter."""
    if word == "스무":
        return 20
    full = {BEFORE_COUNTER.get(one, one): value for value, one in enumerate(NATIVE_ONES) if one}
    tens = next((value for value in range(9, 0, -1) if word.startswith(NATIVE_TENS[value])), 0)
    rest = word.removeprefix(NATIVE_TENS[tens])
    return 10 * tens + (full[rest] if rest else 0)


def final(word: str) -> int:
    """The number of the last syllable's final consonant; 0: none."""
    code = ord(word[-1])
    assert FIRST_SYLLABLE <= code <= LAST_SYLLABLE, word
    return (code - FIRST_SYLLABLE) % FINALS


def has_final(word: str) -> bool:
    return final(word) != 0


def is_rieul(word: str) -> bool:
    return final(word) == RIEUL


def particle(word: str, kind: str) -> str:
    """The particle of a kind that follows the word."""
    closed = final(word) not in (0, RIEUL) if kind == "direction" else has_final(word)
    return PARTICLES[kind][0 if closed else 1]
