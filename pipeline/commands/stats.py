"""`seodang stats`: what is in each phase's mix, to the token, and the mix's data card."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.commands.plan import print_json
from pipeline.commands.terminal import console
from pipeline.core.errors import InputError, unknown_name
from pipeline.core.files import read_json
from pipeline.recipe import open_curriculum


def show_stats(config: Path, mix: str, overrides: Sequence[str], *, as_json: bool) -> None:
    """Print the statistics of one phase's mix, or of all that are planned."""
    opened = open_curriculum(config, overrides)
    names = [phase.name for phase in opened.curriculum.phases]
    if mix and mix not in names:
        raise unknown_name("phase", mix, names)
    found = {}
    for name in [mix] if mix else names:
        path = opened.graph.node(f"mix.{name}").folder / "stats.json"
        if path.is_file():
            found[name] = read_json(path)
    if not found:
        raise InputError("no mix is planned yet", where=str(opened.graph.store), fix=f"seodang run {config}")
    from pipeline.report.data_card import data_card

    cards = {name: data_card(each, opened.cards, opened.curriculum.origins) for name, each in found.items()}
    if as_json:
        print_json({name: {**statistics, "data_card": cards[name]} for name, statistics in found.items()})
        return
    from pipeline.report.terminal_stats import card_table, statistics_tables

    for name, statistics in found.items():
        for part in (*statistics_tables(name, statistics), card_table(name, cards[name])):
            console.print(part)
