"""What the page shows of mixes beyond their statistics: overlap, audit of the log, sample rows.

Contract: collected from plans, run logs and token shards; changes nothing. What cannot be had yet (no log, no
tokenizer) is empty. Cost: the pieces of every segment once, a sample of documents for each component, two rows a phase.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixes.audit import Audit, audit
from mixes.loader import MixLoader
from mixes.overlap import Sample, Shared, sample_components, sampled_overlap, shared_documents
from mixes.trace import documents_at
from pipeline.core.plans import Plan, Segment, read_plan
from pipeline.core.tokenizer import Tokenizer

SAMPLE_ROWS = 2  # shown of each phase
SAMPLED_DOCUMENTS = 200  # of each component, for near-duplicates


@dataclass(frozen=True)
class Piece:
    """A document, or part of one, in a sample row."""

    source: str
    lang: str
    document: str
    tokens: int
    text: str


@dataclass(frozen=True)
class SampleRow:
    """One training row."""

    position: int
    pieces: tuple[Piece, ...]
    padding_tokens: int


@dataclass(frozen=True)
class PhaseDetails:
    """One phase; its segments are those of the last plan."""

    phase: str
    shared: Mapping[str, Mapping[str, Shared]]  # component -> earlier phase -> what both have
    sampled: Mapping[str, Mapping[str, Any]]  # component -> near-duplicates of and n-grams in earlier components
    audit: Audit | None
    rows: tuple[SampleRow, ...]


def phase_details(
    store: Path,
    phases: Sequence[tuple[str, Sequence[str], Sequence[Mapping[str, Any]]]],
    tokenizer_folder: Path | None,
) -> tuple[PhaseDetails, ...]:
    """Details of each planned phase.

    Args:
        store: Root of the plans.
        phases: (name, folders of its planned segments, lines of its run log), in order.
        tokenizer_folder: Where `tokenizer.json` is, if there is one.
    """
    tokenizer = None
    if tokenizer_folder is not None and (tokenizer_folder / "tokenizer.json").is_file():
        tokenizer = Tokenizer.load(tokenizer_folder / "tokenizer.json")
    found: list[PhaseDetails] = []
    earlier: list[tuple[str, Plan, Segment]] = []
    samples: dict[str, Sample] = {}
    for name, folders, lines in phases:
        plan = read_plan(store, store / folders[-1])
        segment = next(one for one in plan.segments if one.folder == folders[0])
        shared: dict[str, dict[str, Shared]] = {component: {} for component in segment.components}
        for other, other_plan, other_segment in earlier:
            for component, row in shared_documents((other_plan, other_segment), (plan, segment)).items():
                shared[component][other] = row["all"]
        own = {f"{name} / {key}": one for key, one in sample_components(plan, segment, SAMPLED_DOCUMENTS).items()}
        sampled = {
            key.split(" / ")[1]: {other: sampled_overlap(first, one) for other, first in samples.items()}
            for key, one in own.items()
        }
        checked = audit(plan, lines) if lines else None
        found.append(PhaseDetails(name, shared, sampled, checked, _rows(plan, segment, tokenizer)))
        earlier.append((name, plan, segment))
        samples |= own
    return tuple(found)


def _rows(plan: Plan, segment: Segment, tokenizer: Tokenizer | None) -> tuple[SampleRow, ...]:
    if tokenizer is None:
        return ()
    loader = MixLoader(plan)
    found = []
    for number in range(min(SAMPLE_ROWS, segment.rows)):
        position = segment.first_row + number * (segment.rows // SAMPLE_ROWS or 1)
        batch, facts = loader.batch(position, 1), documents_at(plan, position, 1)
        pieces = []
        for row in facts.iter_rows(named=True):
            token_ids = batch.token_ids_RT[0, row["offset"] : row["offset"] + row["length"]]
            text = tokenizer.decode(token_ids.tolist())
            pieces.append(Piece(row["source"], row["lang"] or "und", row["id"], row["length"], text))
        used = sum(piece.tokens for piece in pieces)
        found.append(SampleRow(position, tuple(pieces), segment.context_tokens - used))
    return tuple(found)
