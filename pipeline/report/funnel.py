"""The funnel: what came in, what was dropped and why, what went out, as a whole, per source and per language.

Contract: every figure is from records; a table beneath each chart has the same numbers, with a column that is 0 when
documents in = documents out + dropped (law: nothing dropped in silence).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.report.charts import MUTED, PALETTE_SIZE, bars_height, chart, stacked_bars
from pipeline.report.gather import Gathered, StepFacts, Tally
from pipeline.report.markup import Markup, Share, folded, missing, section, table

FUNNEL_STEPS = frozenset({"clean", "filter", "dedup", "decontaminate", "split"})
SYNTHETIC_STEPS = frozenset({"synth", "distinct", "guard"})  # a set made, without its copies, decontaminated
KEPT = "kept"
OTHER = "other reasons"
SPLIT = "documents_split"
TOP_REASONS = 20


@dataclass(frozen=True)
class Flow:
    """Documents of one name on their way through all funnel steps."""

    read: int
    gained: int  # by splitting documents
    dropped: Mapping[str, int]  # by reason
    out: int

    @property
    def unaccounted(self) -> int:
        return self.read + self.gained - sum(self.dropped.values()) - self.out


def funnel_section(gathered: Gathered) -> Markup:
    """Documents from reading to the last cleaning step."""
    steps = funnel_steps(gathered)
    done = [step for step in steps if step.record is not None]
    introduction = "How many documents were read, which were dropped and why, and how many are left."
    if not done:
        return section("funnel", "The funnel", introduction, missing("No cleaning step has been run yet."))
    waiting = [step.name for step in steps if step.record is None]
    parts = [missing(f"Not run yet: {', '.join(waiting)}.")] if waiting else []
    parts += [_by_step(done), _by_reason(done)]
    for name, title, tallies in (
        ("source", "source", [(step, step.by_source) for step in done]),
        ("language", "language", [(step, step.by_language) for step in done]),
    ):
        parts.append(_by_name(name, title, flows(tallies)))
    parts.append(_synthesis(gathered))
    return section("funnel", "The funnel", introduction, *parts)


def funnel_steps(gathered: Gathered) -> list[StepFacts]:
    """The steps that let documents through or drop them, in running order."""
    return [step for step in gathered.steps if step_family(step.name) in FUNNEL_STEPS]


def step_family(name: str) -> str:
    """`clean.web-ko` and `clean-2` → `clean`."""
    return name.split(".")[0].split("-")[0]


def stage_of(name: str) -> str:
    """Steps that stand side by side share a stage: `clean.web-ko` → `clean`; others are stages of their own."""
    return name.partition(".")[0] if step_family(name) in ("clean", "filter") else name


def flows(tallies: Iterable[tuple[StepFacts, Mapping[str, Tally]]]) -> dict[str, Flow]:
    """Follow each name through the steps in order. Steps that only say what they dropped take it off the last out."""
    read: dict[str, int] = {}
    gained: Counter[str] = Counter()
    dropped: dict[str, Counter[str]] = {}
    out: dict[str, int] = {}
    first: dict[str, str] = {}  # the stage that read it
    last: dict[str, str] = {}
    for step, by_name in tallies:
        assert step.record is not None
        splits = SPLIT in step.record.counts
        for name, tally in by_name.items():
            lost = sum(tally.dropped.values())
            dropped.setdefault(name, Counter()).update(tally.dropped)
            if tally.documents_in is None or tally.documents_out is None:
                out[name] = out.get(name, 0) - lost
                continue
            stage = stage_of(step.name)
            if first.setdefault(name, stage) == stage:
                read[name] = read.get(name, 0) + tally.documents_in
            before = out[name] if last.get(name) == stage else 0  # side by side: add up
            last[name], out[name] = stage, before + tally.documents_out
            if splits:
                gained[name] += tally.documents_out + lost - tally.documents_in
    names = sorted(read, key=lambda name: (-read[name], name))
    return {name: Flow(read[name], gained[name], dict(sorted(dropped[name].items())), out[name]) for name in names}


def totals(steps: Sequence[StepFacts]) -> tuple[int, int, Counter[str]]:
    """(documents read by the first stage, documents out of the last, dropped by reason) of finished steps."""
    stages = _stages(steps)
    if not stages:
        return 0, 0, Counter()
    dropped: Counter[str] = Counter()
    for stage in stages.values():
        dropped.update(stage.dropped)
    ordered = list(stages.values())
    return ordered[0].read, ordered[-1].out, dropped


def _stages(steps: Sequence[StepFacts]) -> dict[str, Flow]:
    """Stage -> its documents, in running order."""
    found: dict[str, list[StepFacts]] = {}
    for step in steps:
        if step.record is not None:
            found.setdefault(stage_of(step.name), []).append(step)
    return {stage: _sum_of(members) for stage, members in found.items()}


def _sum_of(steps: Sequence[StepFacts]) -> Flow:
    counts: Counter[str] = Counter()
    dropped: Counter[str] = Counter()
    for step in steps:
        assert step.record is not None
        counts.update(step.record.counts)
        dropped.update(step.record.dropped)
    return Flow(counts["documents_in"], counts[SPLIT], dict(dropped), counts["documents_out"])


def _by_step(steps: Sequence[StepFacts]) -> Markup:
    stages = _stages(steps)
    parts = {
        KEPT: [flow.out for flow in stages.values()],
        "dropped": [sum(flow.dropped.values()) for flow in stages.values()],
    }
    figure = stacked_bars(list(stages), parts, {KEPT: 0, "dropped": 1}, "documents")
    drawn = chart(
        "funnel-steps",
        "Documents after each step",
        figure,
        "Each bar is what a step was given: how much of it went on, and how much was dropped. Where the bar halves, "
        "look at the reasons below.",
        bars_height(len(stages)),
    )
    rows = [(step.name, *_flow_cells(flow)) for step, flow in ((step, _sum_of([step])) for step in steps)]
    columns = ("step", "in", "gained by splitting", "dropped", "share dropped", "out", "unaccounted")
    return Markup(drawn + table("Documents by step", columns, rows))


def _flow_cells(flow: Flow) -> tuple[int, int, int, Share, int, int]:
    lost = sum(flow.dropped.values())
    return flow.read, flow.gained, lost, Share(lost, flow.read + flow.gained), flow.out, flow.unaccounted


def _by_reason(steps: Sequence[StepFacts]) -> Markup:
    _, _, dropped = totals(steps)
    if not dropped:
        return missing("No document was dropped.")
    ranked = sorted(dropped.items(), key=lambda item: (-item[1], item[0]))
    top = ranked[:TOP_REASONS]
    figure = stacked_bars(
        [reason for reason, _ in top], {"dropped": [count for _, count in top]}, {"dropped": 1}, "documents"
    )
    figure.update_layout(showlegend=False)
    figure.update_traces(texttemplate="%{x:,}", textposition="auto")
    drawn = chart(
        "funnel-reasons",
        "Documents dropped, by reason",
        figure,
        f"The {len(top)} most frequent reasons, as `block.rule`. One reason far above the others is worth reading "
        "samples of: `seodang peek CONFIG STEP --dropped REASON`.",
        bars_height(len(top)),
    )
    lost = sum(dropped.values())
    rows = [(reason, count, Share(count, lost)) for reason, count in ranked]
    listed = table("Documents dropped, by reason", ("reason", "documents", "share of dropped"), rows)
    return Markup(drawn + folded(f"All {len(ranked)} reasons as a table", listed))


def _by_name(name: str, title: str, found: Mapping[str, Flow]) -> Markup:
    if not found:
        return missing(f"No step has recorded its documents by {title}.")
    blocks = _leading_blocks(found.values())
    parts = {KEPT: [max(flow.out, 0) for flow in found.values()]}
    parts |= {block: [_lost_to(flow, block, blocks) for flow in found.values()] for block in blocks}
    places = {part: MUTED if part == OTHER else place for place, part in enumerate(parts)}
    drawn = chart(
        f"funnel-{name}",
        f"Documents kept and dropped, by {title}",
        stacked_bars(list(found), parts, places, "documents"),
        f"Each bar is all documents read of one {title}; its parts add up to it. Compare the kept part between bars: "
        "a bar that loses much more than the others points at a rule that does not suit it.",
        bars_height(len(found)),
    )
    columns = (title, "in", "gained by splitting", "dropped", "share dropped", "out", "unaccounted")
    rows = [(key, *_flow_cells(flow)) for key, flow in found.items()]
    reasons = sorted({reason for flow in found.values() for reason in flow.dropped})
    detail = table(
        f"Documents dropped, by reason and {title}",
        ("reason", *found),
        [(reason, *(flow.dropped.get(reason, 0) for flow in found.values())) for reason in reasons],
    )
    return Markup(drawn + table(f"Documents by {title}", columns, rows) + folded(f"Every reason by {title}", detail))


def _leading_blocks(found: Iterable[Flow]) -> list[str]:
    """The blocks that dropped most, as many as the palette tells apart; the rest is one part."""
    lost: Counter[str] = Counter()
    for flow in found:
        for reason, count in flow.dropped.items():
            lost[_block(reason)] += count
    ranked = sorted(lost, key=lambda block: (-lost[block], block))
    room = PALETTE_SIZE - 1  # one place is for what was kept
    return ranked if len(ranked) <= room else [*ranked[: room - 1], OTHER]


def _block(reason: str) -> str:
    """`rules.gopher_short` → `rules`; `dedup.minhash` stays whole, because its two halves are two steps."""
    return reason if reason.startswith("dedup.") else reason.split(".")[0]


def _lost_to(flow: Flow, block: str, blocks: Sequence[str]) -> int:
    if block == OTHER:
        return sum(count for reason, count in flow.dropped.items() if _block(reason) not in blocks)
    return sum(count for reason, count in flow.dropped.items() if _block(reason) == block)


def _synthesis(gathered: Gathered) -> Markup:
    steps = [step for step in gathered.steps if step_family(step.name) in SYNTHETIC_STEPS]
    if not steps:
        return Markup("")
    done = [(step.name, step.record) for step in steps if step.record is not None]
    waiting = [step.name for step in steps if step.record is None]
    parts = [missing(f"Not run yet: {', '.join(waiting)}.")] if waiting else []
    rows = [
        (name, record.counts.get("documents_in"), sum(record.dropped.values()), record.counts.get("documents_out"))
        for name, record in done
    ]
    if rows:
        parts.append(table("Synthetic documents by step", ("step", "candidates", "rejected", "accepted"), rows))
        reasons = [(name, reason, count) for name, record in done for reason, count in sorted(record.dropped.items())]
        if reasons:
            listed = table("Synthetic documents rejected", ("step", "reason", "documents"), reasons)
            parts.append(folded("Why synthetic documents were rejected", listed))
    return Markup("".join(parts))
