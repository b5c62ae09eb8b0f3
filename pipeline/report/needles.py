"""The gates after context extensions: needle heat maps, the short-context check and the verdict of each round.

Contract: figures are those of `gate-K.json`, shown to four digits; the verdict is the gate's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.report.charts import chart, heat_map
from pipeline.report.gather import Gathered, PhaseFacts
from pipeline.report.markup import Cell, Markup, Share, folded, join, missing, section, table, tag

CHART_PIXELS = 320

Gate = Mapping[str, Any]


def needles_section(gathered: Gathered) -> Markup:
    """Every gate of every phase, in order."""
    introduction = (
        "After a context extension the model must find a needle anywhere in its context, and must not have become "
        "worse on short rows. A red light means another round on an extended mix."
    )
    gates = [(phase, gate) for phase in gathered.phases for gate in phase.gates]
    if not gates:
        return section("gates", "Gates", introduction, missing("No gate has been run yet."))
    rounds = [_round(index, phase, gate) for index, (phase, gate) in enumerate(gates)]
    return section("gates", "Gates", introduction, _verdict_table(gates), *rounds)


def light(gate: Gate) -> Markup:
    """The verdict in a word and a colour."""
    return tag("strong", "green" if gate["green"] else "red", class_=f"light {'green' if gate['green'] else 'red'}")


def _verdict_table(gates: list[tuple[PhaseFacts, Gate]]) -> Markup:
    rows: list[tuple[Cell, ...]] = [
        (
            gate["phase"],
            gate["round"],
            light(gate),
            gate["context_tokens"],
            Share(gate["niah_mean"], 1),
            Share(gate["niah_worst_length"], 1),
            Share(gate["niah_needed"], 1),
            gate["short_context_loss"],
            gate["short_context_baseline"],
            gate["short_context_allowed"],
        )
        for _, gate in gates
    ]
    columns = (
        "phase", "round", "light", "context (tokens)", "needles found", "at the worst length", "needed",
        "short-context loss (nats)", "before (nats)", "allowed (nats)",
    )  # fmt: skip
    return table("Verdicts by phase and round", columns, rows)


def _round(index: int, phase: PhaseFacts, gate: Gate) -> Markup:
    grid = gate["niah"]
    depths = [f"{100 * depth:.0f} %" for depth in grid["depths"]]
    lengths = [f"{length:,}" for length in grid["lengths"]]
    figure = heat_map(grid["exact"], depths, lengths, "depth of the needle", "context length (tokens)")
    caption = (
        f"Share of needles found, {grid['n']} a cell. Depth 0 % is the start of the context, 100 % right before the "
        "question. Low numbers in one column are places the model does not look at; in one row, a length it has not "
        "learned."
    )
    name = f"{phase.view.name}, round {gate['round']}"
    reasons = [tag("li", reason) for reason in gate["reasons"]]
    ratio = gate["short_context_loss"] / gate["short_context_baseline"] - 1 if gate["short_context_baseline"] else 0.0
    short = tag(
        "p",
        f"Short context: {gate['short_context_loss']:.4f} nats per token, {gate['short_context_baseline']:.4f} before "
        f"({100 * ratio:+.2f} %), {gate['short_context_allowed']:.4f} allowed.",
    )
    cells = [
        (length, depth, Share(grid["exact"][row][column], 1), grid["log_probability"][row][column])
        for row, length in enumerate(grid["lengths"])
        for column, depth in enumerate(depths)
    ]
    columns = ("context length (tokens)", "depth", "found", "log-probability (nats per answer token)")
    languages = [(language, Share(share, 1)) for language, share in grid["by_language"].items()]
    return tag(
        "article",
        tag("h3", join([f"{name}: ", light(gate)])),
        tag("ul", *reasons) if reasons else tag("p", "Every condition was met."),
        chart(f"needles-{index}", f"Needles found, {name}", figure, caption, CHART_PIXELS),
        short,
        folded(
            "Every cell and language, as tables",
            table(f"Needles by length and depth, {name}", columns, cells),
            table(f"Needles by language, {name}", ("language", "found"), languages),
        ),
    )
