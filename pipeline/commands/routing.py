"""`seodang routing`: which experts of a trained phase serve which language, domain or source of its own mix.

Writes `STORE/routing/PHASE-KIND.json`, which the report shows; the checkpoint that was analysed is named in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.commands.model import Trained, trained
from pipeline.commands.terminal import console, progress_bars, table
from pipeline.core.errors import InputError, unknown_name
from pipeline.core.files import write_json
from pipeline.core.plans import read_plan
from pipeline.core.record import read_record
from pipeline.core.runlog import ROUTING, ROUTING_VERSION

ROWS_AT_ONCE = 4
LAST, ALL = "last", "all"


def show_routing(config: Path, phase: str, kind: str, rows: int, without: str, overrides: Sequence[str]) -> None:
    """Print a line a sparse layer and write everything. Experts of the layers `without` are taken out one by one.

    `without` is a layer's number, `last` or `all`. Raises `InputError` for an unknown kind, a layer without experts, or
    a model that has none at all.
    """
    from trainer.data import BatchReader
    from trainer.evals.routing import KINDS, can_miss_one, layer_use, loss_without
    from trainer.phase import load_model

    if kind not in KINDS:
        raise unknown_name("kind of group", kind, KINDS, where="--by")
    found = trained(config, phase, overrides)
    device = found.opened.curriculum.training.device
    model, info = load_model(found.checkpoint, device)
    store = found.opened.graph.store
    plan = read_plan(store, store / _mix_folder(found))
    segment = plan.segments[-1]
    removed = layers_named(without, list(model.sparse_layers()))
    if not can_miss_one(model.config):
        removed = []
        console.print(
            f"no expert is taken out: each token needs all {model.config.num_experts}", style="yellow", highlight=False
        )
    reader = BatchReader(plan, device)
    end = segment.first_row + min(rows, segment.rows)
    starts = range(segment.first_row, end, ROWS_AT_ONCE)
    batches = [reader.batch(at, min(ROWS_AT_ONCE, end - at)) for at in starts]
    try:
        names, layers = layer_use(model, batches, kind)
    except ValueError as error:
        raise InputError(str(error), where="--by", fix=f"use another of {', '.join(KINDS)}") from None
    with progress_bars() as bars:
        bar = bars.add_task("taking out experts", total=len(removed) * model.config.num_experts)
        worth = {layer: loss_without(model, batches[:1], layer, lambda: bars.advance(bar)) for layer in removed}
    content = [
        {
            "layer": each.layer,
            "specialisation_bits": each.specialisation,
            "interval": [each.low, each.high],
            "share_by_group": dict(zip(names, each.share_GE.tolist(), strict=True)),
            "together": each.together_EE.tolist(),
            "loss_without": worth[each.layer].tolist() if each.layer in worth else None,
        }
        for each in layers
    ]
    path = store / ROUTING / f"{found.phase}-{kind}.json"
    facts: dict[str, Any] = {
        "version": ROUTING_VERSION,
        "phase": found.phase,
        "kind": kind,
        "checkpoint": info.identity,
        "step": info.step,
    }
    write_json(
        path,
        {
            **facts,
            "segment": segment.name,
            "rows": end - segment.first_row,
            "loss_rows": batches[0].rows,
            "layers": content,
        },
    )
    lines = [
        (each.layer, f"{each.specialisation:.3f} ({each.low:.3f} to {each.high:.3f})", _busiest(names, each.share_GE))
        for each in layers
    ]
    console.print(table(f"Experts by {kind}, {found.phase}", ("layer", "bits (95%)", "busiest expert"), lines))
    console.print(f"written: [bold]{path}[/bold]")


def _mix_folder(found: Trained) -> str:
    return read_record(found.opened.graph.node(f"train.{found.phase}").folder).facts["mix_folders"][-1]


def layers_named(without: str, sparse: list[int]) -> list[int]:
    """Those of the layers with experts. Raises `InputError` for another, and where there is none."""
    if not sparse:
        raise InputError(
            "no layer of the model has experts", where="model.dense_layers", fix="set it below model.num_layers"
        )
    if without == ALL:
        return sparse
    if without == LAST:
        return sparse[-1:]
    if without.isdecimal() and int(without) in sparse:
        return [int(without)]
    names = ", ".join(map(str, sparse))
    raise InputError(
        f"no layer `{without}` with experts", where="--without", fix=f"use {LAST}, {ALL} or one of {names}"
    )


def _busiest(names: Sequence[str], share_GE: Any) -> str:
    pairs = zip(names, share_GE, strict=True)
    return ", ".join(f"{name} {share.argmax()} ({share.max():.0%})" for name, share in pairs)
