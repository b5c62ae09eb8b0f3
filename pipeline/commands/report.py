"""`seodang report`: one self-contained HTML page about everything run so far."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.commands.terminal import console
from pipeline.core.record import finished, read_record
from pipeline.recipe import Opened, open_curriculum
from pipeline.report.gather import PhaseView, gather
from pipeline.report.page import write_page


def write_report(config: Path, overrides: Sequence[str]) -> None:
    """Write `report.html` below the store and say where it is."""
    opened = open_curriculum(config, overrides)
    store = opened.graph.store
    path = store / "report.html"
    gathered = gather(store, opened.graph, phase_views(opened), opened.cards, opened.curriculum.origins)
    write_page(store, path, opened.curriculum.name, gathered)
    console.print(f"report: [bold]{path}[/bold]")


def phase_views(opened: Opened) -> list[PhaseView]:
    """Each phase with the folders of its plan's segments and of its training."""
    views = []
    for phase in opened.curriculum.phases:
        train = opened.graph.node(f"train.{phase.name}").folder
        planned = opened.graph.node(f"mix.{phase.name}").folder
        segments = read_record(train).facts["mix_folders"] if finished(train) else [planned.name]
        views.append(PhaseView(phase.name, phase.context_tokens, phase.budget_tokens, tuple(segments), train.name))
    return views
