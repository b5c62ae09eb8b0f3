"""How much of a set each of its filters lets through, in the order in which they are applied.

Contract: a filter's share is of what came to it: what earlier filters dropped is not counted. Reasons that are in no
order of ours (a plugged-in filter's) come last, by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# As in the makers, `checks.check_thought`, `parallel_checks.check_pair`, `reasoning.verify` and
# `tools.validators.CHECKS`.
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
    "tools": (
        "no_answer", "schema_invalid", "reference_fails", "ungrounded", "reset_inexact", "noop_passes",
        "perturbed_passes", "violation_passes", "leaked", "language", "duplicate", "judge",
    ),
    "solutions": (
        "duplicate", "no_answer", "finish", "leakage", "loop", "language", "wrong_answer", "wrong_step",
    ),
    "programming": ("disagrees", "too_slow", "failed", "duplicate"),
    "gym": ("no_entry", "not_exact", "accepts_wrong", "wrong_step", "duplicate"),
    "instructions": (
        "ambiguous", "tests", "form", "language", "question", "no_answer", "wrong_answer", "wrong_step",
        "missing_steps", "evidence", "constraint", "duplicate",
    ),
    "answers": (
        "ambiguous", "tests", "no_completion", "finish", "no_thinking", "leakage", "form", "language", "question",
        "no_answer", "wrong_answer", "wrong_step", "missing_steps", "evidence", "constraint", "judge",
    ),
    "grounded": (
        "document_too_long", "no_answer", "finish", "evidence", "language", "leakage", "numbers", "repeated", "too_few",
        "judge",
    ),
    "ingest": (
        "empty", "too_long", "not_a_number", "ambiguous", "not_in_context", "copied", "structure", "length",
        "placeholders", "numbers", "form", "language", "question", "wrong_answer", "wrong_step", "evidence",
        "duplicate",
    ),
    "search": (
        "question_no_answer", "question_finish", "question_evidence", "question_answer", "question_language",
        "question_leakage", "no_question", "no_answer", "finish", "tool_call", "steps", "not_found", "lost_fact",
        "wrong_answer",
        "summariser_no_answer", "summariser_finish", "summariser_empty", "summariser_too_long", "summariser_numbers",
        "summariser_ungrounded", "summariser_leakage", "summariser_language", "summariser_missed",
        "summariser_invented", "record_no_answer", "record_finish", "compressor_record_no_answer",
        "compressor_record_finish", "compressor_fact_source", "compressor_fact_number", "compressor_fact_terms",
        "compressor_fact_lost", "compressor_open_questions", "duplicate",
    ),
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
