"""Terms of a text as the index has them, its sentences, and how well a sentence fits a question.

Contract: a term is a word, case-folded, or a pair of neighbouring characters where no spaces stand between words (Han,
kana) or particles are glued to them (Hangul). A run of such characters gives its pairs and its last character alone, so
that any stretch of it, of whatever length, is a phrase or a prefix in the index. Cost: linear, about 10 MB/s.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

CJK = "ᄀ-ᇿ々぀-ヿ㄰-㆏㐀-䶿一-鿿가-힣豈-﫿ｦ-ﾝ"
PIECE = re.compile(rf"[{CJK}]+|[^\W_{CJK}]+")
Weigh = Callable[[str], float]  # of a term: the logarithm of how rare it is in the collection
IS_CJK = re.compile(rf"[{CJK}]")
# A stop between digits ends no sentence; full-width stops need no space behind them.
SENTENCE_END = re.compile(r"(?<=[.!?…])\s+|(?<=[.!?…][\"'”»)\]])\s+|(?<=[。！？])(?![」』）])|\n+")


def pieces(text: str) -> Iterator[str]:
    """Words and runs of CJK characters, case-folded."""
    return (match.group() for match in PIECE.finditer(text.casefold()))


def is_run(piece: str) -> bool:
    """Whether a piece is a run of characters that are indexed in pairs."""
    return IS_CJK.match(piece) is not None


def pairs(run: str) -> list[str]:
    return [run[i : i + 2] for i in range(len(run) - 1)]


def index_terms(text: str) -> list[str]:
    """What the index stores of a text, in order."""
    found: list[str] = []
    for piece in pieces(text):
        if is_run(piece):
            found += pairs(piece)
            found.append(piece[-1])
        else:
            found.append(piece)
    return found


def query_terms(text: str) -> list[str]:
    """Distinct terms of a question in order: single characters of a run say too little and are left out."""
    found: list[str] = []
    for piece in pieces(text):
        found += pairs(piece) if is_run(piece) else [piece]
    return list(dict.fromkeys(found))


def sentences(text: str) -> list[str]:
    """The sentences and lines of a text, trimmed, none empty."""
    return [part for one in SENTENCE_END.split(text) if (part := one.strip())]


@dataclass(frozen=True)
class Fit:
    """How well a sentence fits a question."""

    position: int  # among the text's sentences
    sentence: str
    share: float  # of the question's terms in the sentence, each by its weight


def fits(parts: Sequence[str], question: str, weigh: Weigh) -> list[Fit]:
    """Every sentence of a page with its fit to the question, in order. A term's weight counts squared: once for the
    question and once for the sentence, as in a cosine of inverse document frequencies."""
    weights = {term: weigh(term) ** 2 for term in query_terms(question)}
    total = sum(weights.values()) or 1.0
    found: list[Fit] = []
    for number, part in enumerate(parts):
        own = set(index_terms(part))
        found.append(Fit(number, part, sum(weight for term, weight in weights.items() if term in own) / total))
    return found
