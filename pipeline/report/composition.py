"""What each phase's mix is made of: planned and consumed tokens by component, source, language, domain, licence, maker.

Contract: planned figures are the mix statistics', consumed ones follow from the run log's rows; both whole tokens.
Charts show shares of the planned tokens, tables the tokens. A phase with several segments (rounds after a red gate)
is their sum.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mixes.catalog import HUMAN
from pipeline.report.charts import MUTED, PALETTE_SIZE, bars_height, chart, stacked_bars
from pipeline.report.gather import Gathered, PhaseFacts
from pipeline.report.markup import Cell, Markup, Share, folded, missing, section, table, tag

GROUP_TITLES = {
    "component": "component",
    "source": "source",
    "lang": "language",
    "domain": "domain",
    "license": "licence",
    "maker": "maker",
}
OTHER = "all others"
SYNTHETIC_GROUPS = ("lang", "domain", "source", "maker")


@dataclass
class Amount:
    """Tokens of one name in one phase, added up over its segments."""

    asked: int | None = None
    planned: int = 0
    unique: int = 0
    synthetic: int = 0  # planned tokens of documents that have a maker
    documents: int = 0
    consumed: int = 0


def amounts(phase: PhaseFacts, group: str) -> dict[str, Amount]:
    """Name -> its tokens in the phase, most planned tokens first. `asked` is known by component and source only."""
    found: dict[str, Amount] = {}
    for segment in phase.segments:
        for name, part in segment.stats.get(f"by_{group}", {}).items():
            amount = found.setdefault(name, Amount())
            amount.planned += part["tokens"]
            amount.unique += part.get("unique_tokens", 0)
            amount.synthetic += part.get("synthetic_tokens", 0)
            amount.documents += part.get("documents", 0)
        for name, asked in asked_tokens(segment.stats, group).items():
            amount = found.setdefault(name, Amount())
            amount.asked = (amount.asked or 0) + asked
        for name, tokens in segment.consumed.get(group, {}).items():
            found.setdefault(name, Amount()).consumed += tokens
    return dict(sorted(found.items(), key=lambda item: (-item[1].planned, item[0])))


def asked_tokens(stats: Mapping[str, Mapping[str, Mapping[str, Mapping[str, int]]]], group: str) -> Counter[str]:
    """Tokens the mix asked for, by component or by source; empty for other groups."""
    found: Counter[str] = Counter()
    for component, sources in stats.get("targets", {}).items():
        for source, target in sources.items():
            if group in ("component", "source"):
                found[component if group == "component" else source] += target["asked"]
    return found


def composition_section(gathered: Gathered) -> Markup:
    """Tokens of every phase's mix."""
    introduction = "What each phase trains on. Planned tokens count every repeat; consumed tokens are those trained on."
    made = planned_phases(gathered)
    waiting = [phase.view.name for phase in gathered.phases if phase not in made]
    parts = [missing(f"No mix has been made yet for: {', '.join(waiting)}.")] if waiting else []
    if not made:
        if not gathered.phases:
            parts.append(missing("The curriculum has no phases."))
        return section("composition", "Mix composition", introduction, *parts)
    parts.append(_overview(made))
    charts = [_group_chart(made, group) for group in GROUP_TITLES]
    parts.append(tag("div", *charts, class_="pair"))
    parts += [
        folded(f"Tokens by {title}, as a table", _group_table(made, group)) for group, title in GROUP_TITLES.items()
    ]
    parts.append(_synthetic_table(made))
    return section("composition", "Mix composition", introduction, *parts)


def planned_phases(gathered: Gathered) -> list[PhaseFacts]:
    """Phases with at least one segment made."""
    return [phase for phase in gathered.phases if any(segment.stats for segment in phase.segments)]


def ranked_names(phases: Sequence[PhaseFacts], group: str) -> list[str]:
    """All names of the group, most planned tokens over all phases first: their places in every chart's palette."""
    together: Counter[str] = Counter()
    for phase in phases:
        together.update({name: amount.planned for name, amount in amounts(phase, group).items()})
    return sorted(together, key=lambda name: (-together[name], name))


def planned_tokens(phase: PhaseFacts) -> int:
    return sum(segment.stats.get("tokens", 0) for segment in phase.segments)


def _overview(phases: Sequence[PhaseFacts]) -> Markup:
    rows: list[tuple[Cell, ...]] = []
    for phase in phases:
        planned = planned_tokens(phase)
        unique = sum(segment.stats.get("unique_tokens", 0) for segment in phase.segments)
        human = amounts(phase, "maker").get(HUMAN, Amount()).planned
        segments = sum(1 for segment in phase.segments if segment.stats)
        rows.append(
            (
                phase.view.name,
                phase.view.context_tokens,
                phase.view.budget_tokens,
                segments,
                planned,
                unique,
                phase.consumed_tokens,
                Share(phase.consumed_tokens, planned),
                Share(planned - human, planned),
            )
        )
    columns = (
        "phase", "context (tokens)", "budget (tokens)", "segments", "planned (tokens)", "unique (tokens)",
        "consumed (tokens)", "consumed share", "synthetic share",
    )  # fmt: skip
    return table("Tokens by phase", columns, rows)


def _synthetic_table(phases: Sequence[PhaseFacts]) -> Markup:
    """How much of each language, domain and source is synthetic, and how much of a phase each maker wrote."""
    rows: list[tuple[Cell, ...]] = []
    for phase in phases:
        whole = planned_tokens(phase)
        for group in SYNTHETIC_GROUPS:
            for name, amount in amounts(phase, group).items():
                if amount.synthetic:
                    of = whole if group == "maker" else amount.planned
                    rows.append(
                        (phase.view.name, GROUP_TITLES[group], name, amount.synthetic, Share(amount.synthetic, of))
                    )
    if not rows:
        return missing("No phase has synthetic tokens.")
    columns = ("phase", "by", "name", "synthetic (tokens)", "share of the name's tokens (maker: of the phase's)")
    return table("Synthetic share by language, domain, source and maker", columns, rows)


def _group_chart(phases: Sequence[PhaseFacts], group: str) -> Markup:
    title = GROUP_TITLES[group]
    by_phase = [amounts(phase, group) for phase in phases]
    ranked = ranked_names(phases, group)
    names = ranked if len(ranked) <= PALETTE_SIZE else ranked[: PALETTE_SIZE - 1]
    wholes = [sum(amount.planned for amount in found.values()) or 1 for found in by_phase]
    parts = {
        name: [100 * found.get(name, Amount()).planned / whole for found, whole in zip(by_phase, wholes, strict=True)]
        for name in names
    }
    places = {name: place for place, name in enumerate(names)}
    if len(names) < len(ranked):
        parts[OTHER] = [100 - sum(values) for values in zip(*parts.values(), strict=True)]
        places[OTHER] = MUTED
    figure = stacked_bars([phase.view.name for phase in phases], parts, places, "share of planned tokens (%)")
    figure.update_xaxes(range=[0, 100])
    figure.update_traces(hovertemplate="%{customdata}<br>%{fullData.name}: %{x:.1f} %<extra></extra>")
    return chart(
        f"composition-{group}",
        f"Planned tokens by {title}",
        figure,
        _CAPTIONS[group],
        bars_height(len(phases)),
    )


_CAPTIONS = {
    "component": "One bar a phase, all of equal width. Extensions should show their rehearsal part here.",
    "source": "A source that fills most of a bar decides what that phase learns.",
    "lang": "Compare bars downwards: a language that fades out from one phase to the next will be forgotten.",
    "domain": "Domains come from the documents; `unknown` means that nothing has given them one.",
    "license": "Every part has a source card below, in the data card.",
    "maker": f"The model or rule that wrote the text; `{HUMAN}` is text that was not synthesised.",
}


def _group_table(phases: Sequence[PhaseFacts], group: str) -> Markup:
    title = GROUP_TITLES[group]
    with_asked = group in ("component", "source")
    rows: list[tuple[Cell, ...]] = []
    for phase in phases:
        whole = planned_tokens(phase)
        for name, amount in amounts(phase, group).items():
            asked = (amount.asked,) if with_asked else ()
            rows.append(
                (
                    phase.view.name,
                    name,
                    *asked,
                    amount.planned,
                    Share(amount.planned, whole),
                    amount.unique,
                    amount.documents,
                    amount.consumed,
                )
            )
    asked_column = ("asked (tokens)",) if with_asked else ()
    columns = ("phase", title, *asked_column, "planned (tokens)", "share", "unique (tokens)", "documents drawn")
    return table(f"Tokens by {title}", (*columns, "consumed (tokens)"), rows)
