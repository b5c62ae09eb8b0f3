"""Texts for deduplication: seeded prose, families of near-copies, documents put together from few pieces."""

from __future__ import annotations

import random

from dedup_run import Row, row

WORDS = [
    "the",
    "river",
    "snow",
    "melts",
    "water",
    "spring",
    "mountain",
    "village",
    "bridge",
    "stone",
    "summer",
    "winter",
    "market",
    "horse",
    "road",
    "bread",
]
ALPHABETS = ("abcdefghij ", "가나다라마바사 ", "ab", "\U0001f40d\U0001f99cx")


def prose(seed: int, words: int = 120) -> str:
    generator = random.Random(seed)
    return " ".join(generator.choice(WORDS) + str(generator.randrange(40)) for _ in range(words))


def families(count: int = 12) -> list[Row]:
    """Documents in families of up to three near-copies."""
    rows = []
    for number in range(count):
        words = prose(number // 3).split()
        for k in range(number % 3):
            words[(k * 50 + 7) % len(words)] = f"edit{number}{k}"
        rows.append(row(str(number), " ".join(words)))
    return rows


def pieced(seed: int, documents: int, pieces: int = 12, length: int = 40) -> list[Row]:
    """Documents put together from few pieces of text, so that much is repeated at odd places."""
    dice = random.Random(seed)
    alphabet = dice.choice(ALPHABETS)
    stock = ["".join(dice.choice(alphabet) for _ in range(dice.randint(3, length))) for _ in range(pieces)]
    return [
        row(str(number), "".join(dice.choice(stock) for _ in range(dice.randint(0, 9)))) for number in range(documents)
    ]
