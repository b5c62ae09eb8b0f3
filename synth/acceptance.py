"""How much of a set each of its filters lets through, in the order in which they are applied.

Contract: a filter's share is of what came to it: what earlier filters dropped is not counted. Reasons that are in no
order of ours (a plugged-in filter's) come last, by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# As in the makers, `checks.check_thought`, `parallel_checks.check_pair` and `reasoning.verify`.
FILTERS: Mapping[str, Sequence[str]] = {
    "thinking": (
        "document_too_long", "no_answer", "finish", "too_short", "length_ratio", "leakage", "loop", "hesitation",
        "copy", "ungrounded", "arithmetic", "language", "judge",
    ),
    "translation": (
        "document_too_long", "no_prose", "no_answer", "finish", "brackets", "placeholders", "leakage", "untranslated",
        "loop", "structure", "length", "numbers", "language", "round_trip", "judge",
    ),
    "questions": (
        "document_too_long", "no_answer", "evidence", "language", "leakage", "numbers", "repeated", "too_few", "judge",
    ),
    "long": (
        "too_few_parts", "too_short", "too_long", "incomplete", "repetitive", "incompressible", "repeated", "unrelated",
    ),
    "crosslingual": ("structure", "length", "placeholders", "numbers", "language"),
    "solutions": (
        "duplicate", "no_answer", "finish", "leakage", "loop", "language", "wrong_answer", "wrong_step",
    ),
    "programming": ("disagrees", "too_slow", "failed", "duplicate"),
    "reasoning": ("no_answer", "wrong_answer", "wrong_step", "missing_steps", "evidence", "duplicate"),
}  # fmt: skip


@dataclass(frozen=True)
class FilterShare:
    """One filter: how many came to it and how many it dropped."""

    reason: str  # kind.filter
    reached: int
    dropped: int

    @property
    def accepted_share(self) -> float:
        return (self.reached - self.dropped) / self.reached if self.reached else 1.0


def acceptance(kind: str, documents_in: int, dropped: Mapping[str, int]) -> list[FilterShare]:
    """One row a filter of the kind, in order; others that dropped something after them."""
    known = [f"{kind}.{name}" for name in FILTERS[kind]]
    shares: list[FilterShare] = []
    reached = documents_in
    for reason in (*known, *sorted(set(dropped) - set(known))):
        count = dropped.get(reason, 0)
        shares.append(FilterShare(reason, reached, count))
        reached -= count
    return shares
