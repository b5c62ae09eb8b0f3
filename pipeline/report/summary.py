"""The top of the page: one line that says what came of the run, the main figures, and where things are.

Contract: figures only, each from a record, a plan, a run log or a gate; what has not been run is named.
"""

from __future__ import annotations

from pipeline.report.composition import planned_phases, planned_tokens
from pipeline.report.funnel import funnel_steps, totals
from pipeline.report.gather import Gathered, PhaseFacts, StepFacts
from pipeline.report.losses import last_part, mean_loss
from pipeline.report.markup import Cell, Markup, Share, facts, folded, join, percent, section, shown, table, tag
from pipeline.report.needles import Gate, light


def summary_section(gathered: Gathered) -> Markup:
    """The run in one line, in figures, and step by step."""
    return section(
        "summary",
        "Summary",
        _sentence(gathered),
        tag("div", facts(_figures(gathered)), class_="tiles"),
        _phase_table(gathered),
        folded("Steps and where they are", _step_table(gathered)),
    )


def _sentence(gathered: Gathered) -> str:
    read, kept, _ = totals(funnel_steps(gathered))
    trained = [phase for phase in gathered.phases if phase.lines]
    parts: list[str] = []
    if read:
        parts.append(f"{read:,} documents were read and {kept:,} kept ({percent(Share(kept, read))})")
    if trained:
        tokens = sum(phase.consumed_tokens for phase in trained)
        loss = mean_loss(last_part(trained[-1].lines))
        parts.append(
            f"the model trained on {tokens:,} tokens in {len(trained)} of {len(gathered.phases)} phases and ended at a "
            f"loss of {loss:.3f} nats per token"
        )
    verdicts = last_gates(gathered)
    if verdicts:
        green = sum(1 for gate in verdicts if gate["green"])
        parts.append(f"{green} of {len(verdicts)} gated phases ended on green")
    return "; ".join(parts) + "." if parts else "Nothing has been run yet."


def last_gates(gathered: Gathered) -> list[Gate]:
    """The last gate of each gated phase."""
    return [phase.gates[-1] for phase in gathered.phases if phase.gates]


def _figures(gathered: Gathered) -> list[tuple[str, Cell | Markup]]:
    read, kept, dropped = totals(funnel_steps(gathered))
    encoded = [
        step.record.counts["tokens"]
        for step in gathered.steps
        if step.name.startswith("encode.") and step.record is not None and "tokens" in step.record.counts
    ]
    planned = [planned_tokens(phase) for phase in planned_phases(gathered)]
    trained = [phase for phase in gathered.phases if phase.lines]
    finished = sum(1 for step in gathered.steps if step.record is not None)
    verdicts = last_gates(gathered)
    green = sum(1 for gate in verdicts if gate["green"])
    return [
        ("documents read", read or None),
        ("documents dropped", sum(dropped.values()) if read else None),
        ("documents kept", kept if read else None),
        ("tokens encoded", sum(encoded) if encoded else None),
        ("tokens planned", sum(planned) if planned else None),
        ("tokens trained on", sum(phase.consumed_tokens for phase in trained) if trained else None),
        ("last loss (nats per token)", mean_loss(last_part(trained[-1].lines)) if trained else None),
        ("phases trained", f"{len(trained)} of {len(gathered.phases)}"),
        ("gates green", f"{green} of {len(verdicts)}" if verdicts else None),
        ("steps finished", f"{finished} of {len(gathered.steps)}"),
    ]


def _phase_table(gathered: Gathered) -> Markup:
    rows: list[tuple[Cell, ...]] = []
    for phase in gathered.phases:
        view = phase.view
        rows.append(
            (
                view.name,
                view.context_tokens,
                view.budget_tokens,
                phase.consumed_tokens if phase.lines else None,
                mean_loss(last_part(phase.lines)) if phase.lines else None,
                _gate_cell(phase),
                view.train or "not trained yet",
            )
        )
    columns = (
        "phase",
        "context (tokens)",
        "budget (tokens)",
        "trained on (tokens)",
        "last loss (nats)",
        "gate",
        "folder",
    )
    return table("Phases", columns, rows)


def _gate_cell(phase: PhaseFacts) -> Cell:
    if not phase.gates:
        return "no gate"
    rounds = len(phase.gates)
    return join([light(phase.gates[-1]), f" after {rounds} {'round' if rounds == 1 else 'rounds'}"])


def _step_table(gathered: Gathered) -> Markup:
    columns = ("step", "kind", "folder", "state", "counts")
    return table("Steps", columns, [_step_row(step) for step in gathered.steps])


def _step_row(step: StepFacts) -> tuple[Cell, ...]:
    record = step.record
    if record is None:
        return step.name, step.kind, step.folder, "not run yet", None
    counts = ", ".join(f"{shown(value)} {name.replace('_', ' ')}" for name, value in record.counts.items() if value)
    return step.name, step.kind, step.folder, "finished", counts or None
