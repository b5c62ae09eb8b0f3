"""Consumed equals planned: the trainer's log against the plan, step by step, to the token.

Contract: a pure function of the plan and the log's lines. Every line must continue where the one before it stopped, lie
in the segment it names, and have as many tokens, of each source, as the plan serves at those positions. Cost: the
pieces of the rows that were trained.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixes.order import RowOrder, served_pieces
from pipeline.core.errors import InputError
from pipeline.core.plans import Plan, Segment, SegmentRows

MOST_PROBLEMS = 20  # told one by one


@dataclass(frozen=True)
class Audit:
    """What was compared, and what differs."""

    steps: int
    rows: int
    tokens: int
    problems: tuple[str, ...]

    @property
    def clean(self) -> bool:
        return not self.problems


def audit(plan: Plan, lines: Iterable[Mapping[str, Any]]) -> Audit:
    """Compare the lines of one or more phases' logs, in order, with the plan."""
    served = _Served(plan)
    problems: list[str] = []
    steps = rows = tokens = 0
    expected: int | None = None
    for line in lines:
        steps, rows, tokens = steps + 1, rows + line["rows"], tokens + line["tokens"]
        name = f"{line['phase']} step {line['step']}"
        if expected is not None and line["position"] != expected:
            problems.append(f"{name}: begins at row {line['position']:,}, the step before it ended at {expected:,}")
        expected = line["position"] + line["rows"]
        problems += [f"{name}: {problem}" for problem in served.problems(line)]
    more = len(problems) - MOST_PROBLEMS
    told = problems[:MOST_PROBLEMS] + ([f"and {more:,} more"] if more > 0 else [])
    return Audit(steps, rows, tokens, tuple(told))


class _Served:
    """What the plan serves, with the segments opened so far."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._opened: dict[str, tuple[SegmentRows, RowOrder]] = {}

    def problems(self, line: Mapping[str, Any]) -> list[str]:
        position, rows = line["position"], line["rows"]
        try:
            segment = self._plan.segment_at(position)
        except InputError as error:
            return [error.what]
        if segment.fingerprint != line["segment"]:
            return [f"trained on segment {line['segment'][:8]}, the plan has {segment.fingerprint[:8]} there"]
        if position + rows > segment.first_row + segment.rows:
            return [f"{rows} rows from {position:,} cross the end of segment `{segment.name}`"]
        planned = self._by_source(segment, position, rows)
        found = []
        if sum(planned.values()) != line["tokens"]:
            found.append(f"{line['tokens']:,} tokens, planned {sum(planned.values()):,}")
        told = {source: tokens for source, tokens in line["tokens_by_source"].items() if tokens}
        if told != planned:
            found.append(f"tokens by source {told}, planned {planned}")
        return found

    def _by_source(self, segment: Segment, position: int, count: int) -> dict[str, int]:
        if segment.fingerprint not in self._opened:
            rows = SegmentRows(self._plan, segment)
            self._opened[segment.fingerprint] = rows, RowOrder(rows)
        rows, order = self._opened[segment.fingerprint]
        _, piece_P = served_pieces(rows, order, position - segment.first_row, count)
        pieces = rows.pieces(piece_P, ("source", "length"))
        tokens = np.zeros(len(segment.sources), np.int64)
        np.add.at(tokens, pieces["source"], pieces["length"])
        return {source: total for source, total in zip(segment.sources, tokens.tolist(), strict=True) if total}
