"""Experts: which of them serve which language, domain or source, layer by layer, and what each is worth.

Contract: figures are those of `STORE/routing/PHASE-KIND.json`, as `seodang routing` measured them on rows of the
phase's own mix. A file about another checkpoint than the phase's last is shown and said to be old.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from pipeline.report.charts import chart, intensity_map, label, series
from pipeline.report.gather import Gathered
from pipeline.report.markup import Cell, Markup, Share, folded, missing, section, table, tag

LINE_PIXELS = 300
ROW_PIXELS, FRAME_PIXELS, MOST_PIXELS = 26, 110, 640  # of a map's row, its axes, the whole

Analysis = Mapping[str, Any]


def routing_section(gathered: Gathered) -> Markup:
    """Every analysis that was made, in the order of the phases."""
    introduction = (
        "A token goes to a few experts of each layer. Specialisation is how many bits its group (language, domain or "
        "source) tells about its expert: 0 when all groups use all experts alike."
    )
    if not gathered.routing:
        return section(
            "routing", "Experts", introduction, missing("Nothing analysed yet; `seodang routing CONFIG` does it.")
        )
    parts = [_analysis(place, one, gathered) for place, one in enumerate(gathered.routing)]
    return section("routing", "Experts", introduction, *parts)


def _analysis(place: int, one: Analysis, gathered: Gathered) -> Markup:
    name, layers = f"{one['phase']}, {one['kind']}", one["layers"]
    last = layers[-1]
    measured = f"{one['rows']:,} rows of {one['segment']}, checkpoint of step {one['step']:,}."
    newest = max((line["step"] for phase in gathered.phases if phase.view.name == one["phase"] for line in phase.lines),
                 default=one["step"])  # fmt: skip
    stale = [missing(f"The phase has gone on to step {newest:,} since.")] if newest != one["step"] else []
    experts = [str(expert) for expert in range(len(last["together"]))]
    worth = {str(layer["layer"]): layer["loss_without"] for layer in layers if layer["loss_without"] is not None}
    return tag(
        "article",
        tag("h3", name),
        tag("p", measured),
        *stale,
        _specialisation(place, name, layers),
        _shares(place, name, last, experts),
        *([_worth(place, name, worth, experts, one["loss_rows"])] if worth else []),
        folded("Experts that work together", _together(place, name, last, experts)),
        folded("Every layer, as a table", _table(name, layers)),
    )


def _specialisation(place: int, name: str, layers: Sequence[Mapping[str, Any]]) -> Markup:
    bits = [layer["specialisation_bits"] for layer in layers]
    figure = go.Figure()
    figure.add_scatter(
        x=[str(layer["layer"]) for layer in layers],
        y=bits,
        error_y={
            "type": "data",
            "symmetric": False,
            "array": [layer["interval"][1] - own for layer, own in zip(layers, bits, strict=True)],
            "arrayminus": [own - layer["interval"][0] for layer, own in zip(layers, bits, strict=True)],
        },
        mode="markers",
        meta=series(0),
        marker={"size": 9},
        hovertemplate="layer %{x}: %{y:.3f} bits<extra></extra>",
        showlegend=False,
    )
    figure.update_xaxes(title="layer", type="category", showgrid=False)
    figure.update_yaxes(title="specialisation (bits)", rangemode="tozero")
    caption = "Bars are 95 % intervals of a bootstrap over rows; the bias of small counts is taken off."
    return chart(f"specialisation-{place}", f"Specialisation by layer, {name}", figure, caption, LINE_PIXELS)


def _shares(place: int, name: str, layer: Mapping[str, Any], experts: Sequence[str]) -> Markup:
    groups = [*layer["share_by_group"]]
    values = [layer["share_by_group"][group] for group in groups]
    figure = intensity_map(values, experts, [label(group) for group in groups], "expert", "", "%{z:.1%}")
    title = f"Who uses which expert, layer {layer['layer']}, {name}"
    even = Share(1, len(experts))
    caption = f"Share of a group's choices; each row adds up to 100 %, an even one has {_shown(even)} everywhere."
    return chart(f"shares-{place}", title, figure, caption, _height(len(groups)))


def _worth(place: int, name: str, worth: Mapping[str, Sequence[float]], experts: Sequence[str], rows: int) -> Markup:
    figure = intensity_map([*worth.values()], experts, [*worth], "expert", "layer", "%{z:+.4f}")
    caption = (
        f"Rise of the loss (nats a token) over the first {rows:,} of the rows when no token may choose the expert. "
        "Near 0: others do its work as well; a negative one is worth taking a second look at."
    )
    return chart(f"worth-{place}", f"What an expert is worth, {name}", figure, caption, _height(len(worth)))


def _together(place: int, name: str, layer: Mapping[str, Any], experts: Sequence[str]) -> Markup:
    apart = [
        [None if row == column else share for column, share in enumerate(shares)]
        for row, shares in enumerate(layer["together"])
    ]
    figure = intensity_map(apart, experts, experts, "also chose", "chose", "%{z:.1%}")
    caption = "Of the tokens that chose the expert of the row, the share that chose the column's too."
    title = f"Chosen together, layer {layer['layer']}, {name}"
    return chart(f"together-{place}", title, figure, caption, _height(len(experts)))


def _table(name: str, layers: Sequence[Mapping[str, Any]]) -> Markup:
    rows: list[tuple[Cell, ...]] = [
        (layer["layer"], layer["specialisation_bits"], *layer["interval"], group, shares.index(max(shares)),
         Share(max(shares), 1), Share(min(shares), 1))
        for layer in layers
        for group, shares in layer["share_by_group"].items()
    ]  # fmt: skip
    columns = (
        "layer", "specialisation (bits)", "from", "to", "group", "busiest expert", "its share", "least share",
    )  # fmt: skip
    return table(f"Experts by layer and group, {name}", columns, rows)


def _height(rows: int) -> int:
    return min(FRAME_PIXELS + ROW_PIXELS * rows, MOST_PIXELS)


def _shown(share: Share) -> str:
    return f"{100 * share.part / share.whole:.1f} %"
