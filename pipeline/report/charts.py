"""Plotly figures that take their colours from the page, so that they switch between light and dark.

Contract: a figure goes into the page as JSON beside an empty box; `page.js` draws it and sets every colour. A trace
says which place of the palette it wants (`meta.series`), never a colour; -1 is the muted one. Text from outside is
escaped, because plotly reads a little HTML in labels. No WebGL traces: they need `eval`, which the page forbids.
Cost: a line is thinned to at most MOST_POINTS points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate

import plotly.graph_objects as go

from pipeline.report.markup import Markup, tag, with_code

PALETTE_SIZE = 8  # places in the palettes of page.js
MUTED = -1
MOST_POINTS = 1000  # a line of them is about as wide as a screen
LABEL_CHARACTERS = 26
BAR_PIXELS = 30  # height of one horizontal bar
MOST_WRITTEN_CELLS = 16  # side by side in a heat map with their values in them
FRAME_PIXELS = 150  # legend, axis and its title


def label(text: str) -> str:
    """Text from outside, as plotly shows it unchanged."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def short(text: str, characters: int = LABEL_CHARACTERS) -> str:
    return text if len(text) <= characters else text[: characters - 1] + "…"


def series(place: int) -> dict[str, int]:
    """The `meta` of a trace: its place in the palette, around again after the last."""
    return {"series": place % PALETTE_SIZE if place >= 0 else MUTED}


def chart(name: str, title: str, figure: go.Figure, caption: str, height: int) -> Markup:
    """A titled figure: box, data and caption. `name` is unique in the page; `height` in pixels."""
    figure.update_layout(template=go.layout.Template())  # plotly's own theme would fight the page's
    written = figure.to_json(engine="json")
    assert written is not None
    data = written.replace("<", "\\u003c")  # nothing in it can close the script element
    box = tag(
        "div", id=f"chart-{name}", class_="chart", style=f"height: {height}px", data_height=str(height), role="img",
        aria_label=title,
    )  # fmt: skip
    source = tag("script", Markup(data), type="application/json", id=f"data-{name}", class_="chart-data")
    return tag("figure", tag("h4", title), box, source, tag("figcaption", with_code(caption)))


def stacked_bars(
    names: Sequence[str], parts: Mapping[str, Sequence[float]], places: Mapping[str, int], unit: str
) -> go.Figure:
    """Horizontal bars, the first name on top, each stacked from `parts` in their order.

    Args:
        names: [bars] labels.
        parts: Part -> [bars] values.
        places: Part -> place in the palette.
        unit: Title of the value axis.
    """
    figure = go.Figure()
    rows = list(range(len(names)))
    for part, values in parts.items():
        figure.add_bar(
            x=list(values),
            y=rows,
            orientation="h",
            name=label(short(part)),
            meta=series(places[part]),
            customdata=[label(name) for name in names],
            hovertemplate="%{customdata}<br>%{fullData.name}: %{x:,}<extra></extra>",
        )
    figure.update_layout(barmode="stack", bargap=0.3, legend={"traceorder": "normal"})
    figure.update_xaxes(title=unit, rangemode="tozero")
    ticks = [label(short(name)) for name in names]
    figure.update_yaxes(tickvals=rows, ticktext=ticks, range=[len(names) - 0.5, -0.5], showgrid=False, zeroline=False)
    return figure


def bars_height(count: int) -> int:
    return FRAME_PIXELS + BAR_PIXELS * count


def line_chart(x_title: str, y_title: str) -> go.Figure:
    """An empty frame for `add_line`."""
    figure = go.Figure()
    figure.update_layout(hovermode="x unified", meta={"zoom": "x"})
    figure.update_xaxes(title=x_title, rangemode="tozero")
    figure.update_yaxes(title=y_title)
    return figure


def add_line(figure: go.Figure, name: str, x: Sequence[float], y: Sequence[float], place: int) -> None:
    """A line as it is."""
    figure.add_scatter(
        x=thinned(x), y=thinned(y), mode=_mode(x), name=label(short(name)), meta=series(place), line={"width": 2}
    )


def add_smoothed_line(figure: go.Figure, name: str, x: Sequence[float], y: Sequence[float], place: int) -> None:
    """The raw line, faint, and in front of it the same lightly smoothed."""
    group = label(short(name))
    figure.add_scatter(
        x=thinned(x), y=thinned(y), mode="lines", name=group, legendgroup=group, showlegend=False, hoverinfo="skip",
        opacity=0.4, meta=series(place), line={"width": 1},
    )  # fmt: skip
    figure.add_scatter(
        x=thinned(x), y=thinned(smoothed(y)), mode=_mode(x), name=group, legendgroup=group, meta=series(place),
        line={"width": 2},
    )  # fmt: skip


def _mode(x: Sequence[float]) -> str:
    return "lines" if len(x) > 1 else "markers"


def smoothed(values: Sequence[float]) -> list[float]:
    """Centred mean over a fiftieth of the line (at least three points): no lag, and narrower towards both ends."""
    most = max(1, len(values) // 100)
    sums = list(accumulate(values, initial=0.0))
    found = []
    for place in range(len(values)):
        reach = min(most, place, len(values) - 1 - place)
        found.append((sums[place + reach + 1] - sums[place - reach]) / (2 * reach + 1))
    return found


def thinned(values: Sequence[float]) -> list[float]:
    """At most MOST_POINTS values: means of equal runs, the last one shorter."""
    run = -(-len(values) // MOST_POINTS) or 1
    if run == 1:
        return list(values)
    return [sum(part) / len(part) for start in range(0, len(values), run) if (part := values[start : start + run])]


def heat_map(
    z: Sequence[Sequence[float | None]], x: Sequence[str], y: Sequence[str], x_title: str, y_title: str
) -> go.Figure:
    """Shares between 0 and 1 with their percentage in each cell; [y][x], the first row at the bottom."""
    figure = go.Figure()
    figure.add_heatmap(
        z=[list(row) for row in z],
        x=list(x),
        y=list(y),
        zmin=0,
        zmax=1,
        texttemplate="%{z:.0%}",
        hovertemplate=f"{label(y_title)} %{{y}}<br>{label(x_title)} %{{x}}<br>%{{z:.1%}}<extra></extra>",
        xgap=2,
        ygap=2,
        showscale=False,
    )
    figure.update_xaxes(title=x_title, type="category", showgrid=False)
    figure.update_yaxes(title=y_title, type="category", showgrid=False)
    return figure


def intensity_map(
    z: Sequence[Sequence[float | None]], x: Sequence[str], y: Sequence[str], x_title: str, y_title: str, shown: str
) -> go.Figure:
    """Values of any size as colours, from the least to the largest; [y][x], the first row on top.

    `shown` is plotly's format of a value, as in "%{z:.1%}"; it stands in the cells where there is room.
    """
    figure = go.Figure()
    figure.add_heatmap(
        z=[list(row) for row in z],
        x=list(x),
        y=list(y),
        texttemplate=shown if len(x) <= MOST_WRITTEN_CELLS else None,
        hovertemplate=f"{label(y_title)} %{{y}}, {label(x_title)} %{{x}}: {shown}<extra></extra>",
        xgap=1,
        ygap=1,
        showscale=len(x) > MOST_WRITTEN_CELLS,
        colorbar={"thickness": 12, "tickformat": ".1%" if "%}" in shown else ".3f"},
    )
    figure.update_xaxes(title=x_title, type="category", showgrid=False)
    figure.update_yaxes(title=y_title, type="category", showgrid=False, autorange="reversed")
    return figure


def histogram(buckets: Sequence[str], lines: Mapping[str, Sequence[float]], x_title: str, y_title: str) -> go.Figure:
    """Vertical bars over named buckets, one group of bars a name of `lines`."""
    figure = go.Figure()
    for place, (name, values) in enumerate(lines.items()):
        figure.add_bar(x=list(buckets), y=list(values), name=label(short(name)), meta=series(place))
    figure.update_layout(barmode="group", bargap=0.15)
    figure.update_xaxes(title=x_title, type="category", showgrid=False)
    figure.update_yaxes(title=y_title, rangemode="tozero")
    return figure
