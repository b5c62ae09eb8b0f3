"""Filters on thoughts: each takes the thought and its document and says why the thought must go, or nothing.

Contract: `check_thought` runs all of them in a fixed order and returns the first `Failure`; names become drop reasons
`thinking.NAME`. Nothing here asks a model. Cost: 1-3 ms for a thought of 3,000 characters, most of it language
identification.

Terms are words in spaced scripts and pairs of characters in Japanese; so are the n-grams below.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from pipeline.core.verify.arithmetic import stated
from synth.config import ThoughtChecks
from synth.language import facts, foreign_share, hesitation_pattern, leakage_pattern

CheckName = Literal[
    "finish", "too_short", "length_ratio", "loop", "hesitation", "leakage", "copy", "ungrounded", "arithmetic",
    "language", "no_answer",
]  # fmt: skip

WORD = re.compile(r"[^\W\d_]+", re.UNICODE)
SENTENCE_END = re.compile(r"(?<=[.!?。！？…])\s*|\n+")
REPEATED_GRAM = 10  # terms (characters in Japanese: twice as many): a phrase of this length said again is a loop
COPY_GRAM = 8  # terms; the usual length of contamination and copying checks
TERM_CHARACTERS = 4  # shortest word that counts as a content term in Latin script; ours
HESITATIONS_NEEDED = 4  # fewer are how people think


@dataclass(frozen=True)
class Thought:
    """A generated thought with the document it is about."""

    text: str
    finish_reason: str
    document: str
    language: str
    document_language: str = ""  # empty: the thought's


@dataclass(frozen=True)
class Failure:
    """Which filter failed and the value that did."""

    check: CheckName
    detail: str


def check_thought(thought: Thought, limits: ThoughtChecks) -> Failure | None:
    """The first failure in a fixed order, cheapest checks first; None when the thought may stay."""
    for check in (_finish, _length, _leakage, _loop, _hesitation, _overlap, _arithmetic, _language):
        failure = check(thought, limits)
        if failure is not None:
            return failure
    return None


def _finish(thought: Thought, _: ThoughtChecks) -> Failure | None:
    if thought.finish_reason != "stop":
        return Failure("finish", f"finish_reason `{thought.finish_reason}`")
    return None


def _length(thought: Thought, limits: ThoughtChecks) -> Failure | None:
    characters = len(thought.text)
    if characters < limits.minimum_characters:
        return Failure("too_short", f"{characters} characters")
    ratio = characters / max(1, len(thought.document))
    if not limits.minimum_length_ratio <= ratio <= limits.maximum_length_ratio:
        return Failure("length_ratio", f"{ratio:.2f} times the document")
    return None


def _leakage(thought: Thought, _: ThoughtChecks) -> Failure | None:
    # Models fall back to English when they talk about their task, whatever language they were asked in.
    for language in dict.fromkeys((thought.language, "en")):
        for match in leakage_pattern(language).finditer(thought.text):
            if match.group().lower() not in thought.document.lower():
                return Failure("leakage", match.group())
    return None


def _loop(thought: Thought, limits: ThoughtChecks) -> Failure | None:
    terms = _units(thought.text, thought.language)
    share = repeated_share(terms, REPEATED_GRAM * (2 if thought.language == "ja" else 1))
    if share > limits.maximum_repeated_share:
        return Failure("loop", f"{share:.2f} of the text is said again")
    return None


def _hesitation(thought: Thought, limits: ThoughtChecks) -> Failure | None:
    sentences = [sentence for sentence in SENTENCE_END.split(thought.text) if sentence.strip()]
    pattern = hesitation_pattern(thought.language)
    count = sum(1 for sentence in sentences if pattern.match(sentence))
    if count >= HESITATIONS_NEEDED and count > limits.maximum_hesitation_share * len(sentences):
        return Failure("hesitation", f"{count} of {len(sentences)} sentences hesitate")
    return None


def _overlap(thought: Thought, limits: ThoughtChecks) -> Failure | None:
    gram = COPY_GRAM * (2 if thought.language == "ja" else 1)
    own, source = (_grams(_units(text, thought.language), gram) for text in (thought.text, thought.document))
    share = sum(count for item, count in own.items() if item in source) / max(1, own.total())
    if share > limits.maximum_copy_share:
        return Failure("copy", f"{share:.2f} of the thought stands in the document")
    if thought.document_language not in ("", thought.language):
        return None  # terms of two languages cannot be compared: what a thought is about is the judge's to tell
    terms = content_terms(thought.text, thought.language)
    shared = len(terms & content_terms(thought.document, thought.language)) / max(1, len(terms))
    if shared < limits.minimum_grounding * facts(thought.language).unrelated_share:
        return Failure("ungrounded", f"{shared:.3f} of the thought's terms stand in the document")
    return None


def _arithmetic(thought: Thought, limits: ThoughtChecks) -> Failure | None:
    wrong = [equation.text for equation in stated(thought.text, "rounded") if not equation.right]
    if len(wrong) > limits.maximum_wrong_equations:
        return Failure("arithmetic", "; ".join(wrong[:3]))
    return None


def _language(thought: Thought, limits: ThoughtChecks) -> Failure | None:
    share = foreign_share(thought.text, thought.language)
    if share > limits.maximum_foreign_share:
        return Failure("language", f"{share:.2f} of the thought is not in `{thought.language}`")
    return None


def _units(text: str, language: str) -> list[str]:
    if language == "ja":
        return [character for character in text if not character.isspace()]
    return text.lower().split()


def _grams(units: list[str], size: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(units[i : i + size]) for i in range(len(units) - size + 1))


def repeated_share(units: list[str], size: int) -> float:
    """Share of the n-grams of `size` units that occurred before in the same text."""
    grams = _grams(units, size)
    total = grams.total()
    return (total - len(grams)) / total if total else 0.0


def content_terms(text: str, language: str) -> set[str]:
    """Terms that carry a document's subject: longer words, pairs of kanji or katakana, pairs of Korean syllables,
    pairs of Vietnamese syllables."""
    if language == "ja":
        return {text[i : i + 2] for i in range(len(text) - 1) if re.fullmatch(r"[一-鿿々ァ-ヺー]{2}", text[i : i + 2])}
    words = WORD.findall(text.lower())
    if language == "ko":
        return {word[:2] for word in words if len(word) >= 3}
    if language == "vi":
        return {f"{a} {b}" for a, b in pairwise(words)}
    return {word for word in words if len(word) > TERM_CHARACTERS}
