"""Loss curves by phase and by source, learning rate, expert load.

Contract: every point is from the run logs. A faint line is what was measured, the strong one the same lightly
smoothed; tables give unsmoothed means. Losses are nats a labelled token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.report.charts import PALETTE_SIZE, add_line, add_smoothed_line, chart, line_chart
from pipeline.report.composition import ranked_names
from pipeline.report.gather import Gathered, PhaseFacts
from pipeline.report.markup import Cell, Markup, folded, missing, section, table, tag

CHART_PIXELS = 380
SMALL_CHART_PIXELS = 300
NATS = "loss (nats per token)"
TOKENS = "tokens trained on, all phases"
ENDS_PART = 10  # first and last tenth of a phase's steps
TICK_FORMATS = {"learning_rate": ".1e", "dead_experts": ",.1~f"}
GROUPS = {"loss_by_source": "source", "loss_by_language": "language", "loss_by_domain": "domain"}

Line = Mapping[str, Any]


def losses_section(gathered: Gathered) -> Markup:
    """What training did, step by step."""
    introduction = "What the model learned: loss over training, by phase and by source, and how its experts were used."
    trained = [phase for phase in gathered.phases if phase.lines]
    waiting = [phase.view.name for phase in gathered.phases if not phase.lines]
    parts = [missing(f"Not trained yet: {', '.join(waiting)}.")] if waiting else []
    if not trained:
        return section("losses", "Training", introduction, *(parts or [missing("The curriculum has no phases.")]))
    axes = _token_axes(trained)
    sources = _ranked_sources(gathered)
    parts += [
        _loss_chart(trained, axes),
        _phase_table(trained),
        tag("div", *(_source_chart(index, phase, sources) for index, phase in enumerate(trained)), class_="pair"),
        tag("div", _rate_chart(trained, axes), _norm_chart(trained, axes), class_="pair"),
        tag("div", _load_chart(trained, axes), _dead_chart(trained, axes), class_="pair"),
    ]
    parts += [folded(f"Loss by {title}, as a table", _group_table(trained, key)) for key, title in GROUPS.items()]
    return section("losses", "Training", introduction, *parts)


def _ranked_sources(gathered: Gathered) -> list[str]:
    """Sources in the order of the composition charts, so that one has the same colour in all; then any others."""
    ranked = ranked_names(gathered.phases, "source")
    logged = {name for phase in gathered.phases for line in phase.lines for name in line["loss_by_source"]}
    return [*ranked, *sorted(logged - {*ranked})]


def mean_loss(lines: Sequence[Line], key: str = "loss") -> float:
    """Mean over the lines' labelled tokens."""
    labelled = sum(line["labelled_tokens"] for line in lines)
    return sum(line[key] * line["labelled_tokens"] for line in lines) / labelled if labelled else 0.0


def first_part(lines: Sequence[Line]) -> Sequence[Line]:
    return lines[: _part(lines)]


def last_part(lines: Sequence[Line]) -> Sequence[Line]:
    return lines[-_part(lines) :]


def _part(lines: Sequence[Line]) -> int:
    return max(1, len(lines) // ENDS_PART)


def _token_axes(phases: Sequence[PhaseFacts]) -> list[list[int]]:
    """[phase][step] tokens trained on after the step, phases one after the other."""
    axes: list[list[int]] = []
    done = 0
    for phase in phases:
        axis: list[int] = []
        for line in phase.lines:
            done += line["tokens"]
            axis.append(done)
        axes.append(axis)
    return axes


def _loss_chart(phases: Sequence[PhaseFacts], axes: Sequence[Sequence[int]]) -> Markup:
    figure = line_chart(TOKENS, NATS)
    for place, (phase, axis) in enumerate(zip(phases, axes, strict=True)):
        add_smoothed_line(figure, phase.view.name, axis, [line["loss"] for line in phase.lines], place)
    caption = (
        "Each phase has its own colour; faint is every step, strong lightly smoothed. A step up where a phase begins "
        "is its new mix or context; it should fall again at once. Drag to zoom, double-click to go back."
    )
    return chart("loss", "Training loss", figure, caption, CHART_PIXELS)


def _source_chart(index: int, phase: PhaseFacts, ranked: Sequence[str]) -> Markup:
    figure = line_chart("step", NATS)
    seen = {name for line in phase.lines for name in line["loss_by_source"]}
    names = [(place, name) for place, name in enumerate(ranked) if name in seen]
    shown = names[:PALETTE_SIZE]
    for place, name in shown:
        points = [
            (line["step"], line["loss_by_source"][name]) for line in phase.lines if name in line["loss_by_source"]
        ]
        add_smoothed_line(figure, name, [step for step, _ in points], [loss for _, loss in points], place)
    rest = f" The first {len(shown)} of {len(names)} sources; all are in the table." if len(shown) < len(names) else ""
    caption = f"A source whose line stays flat teaches nothing new, or is too rare to be learned.{rest}"
    return chart(f"loss-source-{index}", f"Loss by source, {phase.view.name}", figure, caption, SMALL_CHART_PIXELS)


def _over_phases(
    name: str,
    title: str,
    key: str,
    unit: str,
    caption: str,
    phases: Sequence[PhaseFacts],
    axes: Sequence[Sequence[int]],
) -> Markup:
    figure = line_chart(TOKENS, unit)
    for place, (phase, axis) in enumerate(zip(phases, axes, strict=True)):
        add_line(figure, phase.view.name, axis, [line[key] for line in phase.lines], place)
    figure.update_yaxes(rangemode="tozero", tickformat=TICK_FORMATS.get(key, ""))
    return chart(name, title, figure, caption, SMALL_CHART_PIXELS)


def _rate_chart(phases: Sequence[PhaseFacts], axes: Sequence[Sequence[int]]) -> Markup:
    caption = "Warm-up, stable, decay, as each phase's schedule says."
    return _over_phases("rate", "Learning rate", "learning_rate", "learning rate", caption, phases, axes)


def _norm_chart(phases: Sequence[PhaseFacts], axes: Sequence[Sequence[int]]) -> Markup:
    caption = "Before clipping. Lasting peaks say that the learning rate is too high."
    return _over_phases("norm", "Gradient norm", "gradient_norm", "gradient norm", caption, phases, axes)


def _load_chart(phases: Sequence[PhaseFacts], axes: Sequence[Sequence[int]]) -> Markup:
    caption = "Tokens of the busiest expert over the mean, in the worst layer. 1 is even; it should fall and stay low."
    unit = "busiest / mean (ratio)"
    return _over_phases("load", "Expert load", "load_max_over_mean", unit, caption, phases, axes)


def _dead_chart(phases: Sequence[PhaseFacts], axes: Sequence[Sequence[int]]) -> Markup:
    caption = "Experts of all layers that got no token in a step. It should be 0 after the first steps."
    return _over_phases("dead", "Idle experts", "dead_experts", "experts", caption, phases, axes)


def _phase_table(phases: Sequence[PhaseFacts]) -> Markup:
    rows: list[tuple[Cell, ...]] = []
    for phase in phases:
        lines = phase.lines
        last = lines[-1]
        seconds = sum(line["seconds"] for line in lines)
        rows.append(
            (
                phase.view.name,
                len(lines),
                phase.consumed_tokens,
                mean_loss(first_part(lines)),
                mean_loss(last_part(lines)),
                mean_loss(last_part(lines), "mtp_loss"),
                last["learning_rate"],
                last["load_max_over_mean"],
                last["dead_experts"],
                round(phase.consumed_tokens / seconds) if seconds else None,
            )
        )
    columns = (
        "phase", "steps", "tokens", "loss, first tenth (nats)", "loss, last tenth (nats)", "MTP loss, last tenth",
        "learning rate at the end", "expert load at the end", "idle experts at the end", "tokens per second",
    )  # fmt: skip
    return table("Training by phase", columns, rows)


def _group_table(phases: Sequence[PhaseFacts], key: str) -> Markup:
    rows: list[tuple[Cell, ...]] = []
    for phase in phases:
        for name in sorted({name for line in phase.lines for name in line[key]}):
            values = [line[key][name] for line in phase.lines if name in line[key]]
            part = max(1, len(values) // ENDS_PART)
            first, last = values[:part], values[-part:]
            rows.append((phase.view.name, name, len(values), sum(first) / part, sum(last) / part))
    title = GROUPS[key]
    columns = ("phase", title, "steps with it", "first tenth (nats)", "last tenth (nats)")
    return table(f"Loss by {title}, mean over steps", columns, rows)
