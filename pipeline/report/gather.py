"""Collect from the store what the report page shows.

Contract: reads only finished steps' records, mix plans, statistics, run logs and gates, and changes nothing. What has
not been run yet is absent here (None or empty), never an error; a file that is there and cannot be read is one.
Cost: small files, and the dropped-document tables of steps whose record does not say what it dropped by source.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.core.documents import read_dropped, read_table
from pipeline.core.files import read_json
from pipeline.core.plans import Segment, read_plan
from pipeline.core.provenance import SourceCard
from pipeline.core.record import Record, finished, read_record
from pipeline.core.runlog import ROUTING, ROUTING_VERSION, read_lines
from pipeline.graph import Graph, Node
from pipeline.report.consumed import Composition, consumed_composition
from pipeline.report.data_card import data_card
from pipeline.report.mix_details import PhaseDetails, phase_details
from pipeline.report.tokenizer_report import read_report
from stages.contamination import ITEM_SCHEMA, ITEMS

TOKENIZER = "tokenizer"  # name of its step
UNDETERMINED = "und"  # BCP-47: the language of a document that has none
GATE_FILE = re.compile(r"gate-(\d+)\.json")


@dataclass(frozen=True)
class PhaseView:
    """A phase of the curriculum and where its parts lie, relative to the store."""

    name: str
    context_tokens: int
    budget_tokens: int
    segments: tuple[str, ...] = ()  # mix folders, in order
    train: str | None = None  # folder of the run log and gates


@dataclass(frozen=True)
class Tally:
    """Documents of one source or language in one step; None where the step did not say."""

    documents_in: int | None
    documents_out: int | None
    dropped: Mapping[str, int]  # by reason


@dataclass(frozen=True)
class StepFacts:
    """A step of the graph; `record` is None until it is finished."""

    name: str
    kind: str
    folder: str  # relative to the store
    record: Record | None
    by_source: Mapping[str, Tally] = field(default_factory=dict)
    by_language: Mapping[str, Tally] = field(default_factory=dict)
    quoted_items: tuple[Mapping[str, Any], ...] = ()  # of benchmarks, those that a document quotes


@dataclass(frozen=True)
class SegmentFacts:
    """A mix segment; `segment` is None and `stats` empty until it is made."""

    folder: str
    segment: Segment | None
    stats: Mapping[str, Any]
    consumed_rows: int = 0
    consumed: Composition = field(default_factory=dict)  # group -> name -> tokens trained on
    data_card: tuple[Mapping[str, Any], ...] = ()  # rows of `pipeline.report.data_card`


@dataclass(frozen=True)
class PhaseFacts:
    """A phase with its mixes, its run log and its gates."""

    view: PhaseView
    segments: tuple[SegmentFacts, ...]
    lines: tuple[Mapping[str, Any], ...]  # of train.jsonl, in order
    gates: tuple[Mapping[str, Any], ...]  # by round

    @property
    def consumed_rows(self) -> int:
        return sum(line["rows"] for line in self.lines)

    @property
    def consumed_tokens(self) -> int:
        return sum(line["tokens"] for line in self.lines)


@dataclass(frozen=True)
class Gathered:
    """Everything the page shows."""

    steps: tuple[StepFacts, ...]  # in running order
    phases: tuple[PhaseFacts, ...]
    cards: Mapping[str, SourceCard]  # by source
    details: tuple[PhaseDetails, ...] = ()  # of the planned phases' mixes
    tokenizer_report: Mapping[str, Any] | None = None  # of `seodang tokenizer report`
    routing: tuple[Mapping[str, Any], ...] = ()  # of `seodang routing`, in the order of the phases

    def record(self, name: str) -> Record | None:
        """The record of the step `name`, when there is such a step and it is finished."""
        return next((step.record for step in self.steps if step.name == name), None)


def gather(
    store: Path,
    graph: Graph,
    phases: Sequence[PhaseView],
    cards: Mapping[str, SourceCard] | None = None,
    origins: Callable[[Iterable[str]], Sequence[str]] = tuple,
) -> Gathered:
    """Everything the page shows about `graph` and `phases`.

    Args:
        store: Folder of all steps.
        graph: The curriculum's steps, finished or not.
        phases: In order.
        cards: Source -> its card.
        origins: The sources behind names of sources and synthetic sets.

    Raises `InputError` when a record, plan or table is of another version or unreadable.
    """
    steps = tuple(_step(store, node) for node in graph.nodes.values())
    known = dict(sorted((cards or {}).items()))

    found = [_carded(gather_phase(store, view), known, origins) for view in phases]
    planned = [
        (phase.view.name, [one.folder for one in phase.segments if one.stats], phase.lines)
        for phase in found
        if any(one.stats for one in phase.segments)
    ]
    tokenizer = graph.nodes.get(TOKENIZER)
    details = phase_details(store, planned, tokenizer.folder if tokenizer else None)
    return Gathered(steps, tuple(found), known, details, read_report(store), _routing(store, phases))


def _carded(
    phase: PhaseFacts, cards: Mapping[str, SourceCard], origins: Callable[[Iterable[str]], Sequence[str]]
) -> PhaseFacts:
    """The phase with the data card of each planned segment."""
    segments = (
        replace(one, data_card=tuple(data_card(one.stats, cards, origins)) if one.stats and cards else ())
        for one in phase.segments
    )
    return replace(phase, segments=tuple(segments))


def _step(store: Path, node: Node) -> StepFacts:
    name, kind = node.step.name, node.step.kind
    folder = node.folder.relative_to(store).as_posix()
    if not finished(node.folder):
        return StepFacts(name, kind, folder, None)
    record = read_record(node.folder)
    by_source, by_language = _tallies(record.facts.get("by_source")), _tallies(record.facts.get("by_language"))
    if record.dropped and not (by_source and by_language):
        from_source, from_language = _tallies_of_dropped(node.folder)
        by_source, by_language = by_source or from_source, by_language or from_language
    return StepFacts(name, kind, folder, record, by_source, by_language, _quoted_items(node.folder))


def _quoted_items(folder: Path) -> tuple[Mapping[str, Any], ...]:
    path = folder / ITEMS / "items.parquet"
    if not path.is_file():
        return ()
    return tuple(row for row in read_table(path, ITEM_SCHEMA).to_pylist() if row["documents"])


def _tallies(stored: Mapping[str, Mapping[str, Any]] | None) -> dict[str, Tally]:
    if not stored:
        return {}
    return {
        name or UNDETERMINED: Tally(item.get("in"), item.get("out"), dict(sorted(item.get("dropped", {}).items())))
        for name, item in sorted(stored.items())
    }


def _tallies_of_dropped(folder: Path) -> tuple[dict[str, Tally], dict[str, Tally]]:
    """(by source, by language) counted from the dropped documents themselves."""
    sources: dict[str, Counter[str]] = {}
    languages: dict[str, Counter[str]] = {}
    for table in read_dropped(folder):
        columns = (table[name].to_pylist() for name in ("source", "lang", "reason"))
        for (source, language, reason), count in Counter(zip(*columns, strict=True)).items():
            sources.setdefault(source, Counter())[reason] += count
            languages.setdefault(language or UNDETERMINED, Counter())[reason] += count
    return _uncounted(sources), _uncounted(languages)


def _uncounted(dropped: Mapping[str, Counter[str]]) -> dict[str, Tally]:
    return {name: Tally(None, None, dict(sorted(counts.items()))) for name, counts in sorted(dropped.items())}


def gather_phase(store: Path, view: PhaseView) -> PhaseFacts:
    lines: tuple[Mapping[str, Any], ...] = ()
    gates: tuple[Mapping[str, Any], ...] = ()
    if view.train is not None:
        lines = tuple(read_lines(store / view.train / "train.jsonl"))
        gates = _gates(store / view.train)
    rows: Counter[str] = Counter()
    for line in lines:
        rows[line["segment"]] += line["rows"]
    return PhaseFacts(view, tuple(_segment(store, folder, rows) for folder in view.segments), lines, gates)


def _routing(store: Path, phases: Sequence[PhaseView]) -> tuple[Mapping[str, Any], ...]:
    order = [view.name for view in phases]
    found = [read_json(path) for path in sorted((store / ROUTING).glob("*.json"))]
    known = (one for one in found if one["phase"] in order and one.get("version") == ROUTING_VERSION)
    return tuple(sorted(known, key=lambda one: order.index(one["phase"])))


def _segment(store: Path, folder: str, rows_by_segment: Mapping[str, int]) -> SegmentFacts:
    place = store / folder
    if not (finished(place) and (place / "segments.json").is_file()):
        return SegmentFacts(folder, None, {})
    plan = read_plan(store, place)
    segment = plan.segments[-1]
    stats = read_json(place / "stats.json") if (place / "stats.json").is_file() else {}
    served = rows_by_segment.get(segment.fingerprint, 0)
    return SegmentFacts(folder, segment, stats, served, consumed_composition(plan, segment, served))


def _gates(folder: Path) -> tuple[Mapping[str, Any], ...]:
    if not folder.is_dir():
        return ()
    found = [(int(match[1]), path) for path in folder.iterdir() if (match := GATE_FILE.fullmatch(path.name))]
    return tuple(read_json(path) for _, path in sorted(found))
