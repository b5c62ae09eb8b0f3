"""`seodang stats`: what is in each phase's mix, planned and consumed, to the token, and the mix's data card."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.commands.mixes import check_phase, phase_names
from pipeline.commands.plan import print_json
from pipeline.commands.report import phase_views
from pipeline.commands.terminal import console
from pipeline.core.errors import InputError
from pipeline.recipe import open_curriculum


def show_stats(config: Path, mix: str, overrides: Sequence[str], *, as_json: bool, as_csv: bool) -> None:
    """Print the statistics of one phase's mix, or of all that are planned."""
    opened = open_curriculum(config, overrides)
    if mix:
        check_phase(opened, mix)
    from pipeline.report.data_card import data_card
    from pipeline.report.gather import gather_phase

    wanted = [mix] if mix else phase_names(opened)
    views = [view for view in phase_views(opened) if view.name in wanted]
    found = {
        segment.stats["name"]: segment
        for view in views
        for segment in gather_phase(opened.graph.store, view).segments
        if segment.stats
    }
    if not found:
        raise InputError("no mix is planned yet", where=str(opened.graph.store), fix=f"seodang run {config}")
    from pipeline.report.terminal_stats import card_table, csv_text, statistics_tables

    if as_csv:
        print(csv_text((one.stats, one.consumed) for one in found.values()), end="")
        return
    cards = {name: data_card(one.stats, opened.cards, opened.curriculum.origins) for name, one in found.items()}
    if as_json:
        print_json(
            {
                name: {
                    **one.stats,
                    "consumed": {
                        "rows": one.consumed_rows,
                        **{f"by_{group}": part for group, part in one.consumed.items()},
                    },
                    "data_card": cards[name],
                }
                for name, one in found.items()
            }
        )
        return
    for name, one in found.items():
        for part in (*statistics_tables(name, one.stats, one.consumed), card_table(name, cards[name])):
            console.print(part)
