"""`seodang routing`: which experts of a trained phase serve which language, domain or source of its own mix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.commands.model import trained
from pipeline.commands.terminal import console, table
from pipeline.core.files import write_json
from pipeline.core.plans import read_plan
from pipeline.core.record import read_record


def show_routing(config: Path, phase: str, kind: str, rows: int, overrides: Sequence[str]) -> None:
    """A line a sparse layer; everything, and what each expert of the last layer is worth, in `routing/PHASE.json`."""
    from trainer.data import BatchReader
    from trainer.evals.routing import layer_use, loss_without
    from trainer.phase import load_model

    found = trained(config, phase, overrides)
    graph = found.opened.graph
    record = read_record(graph.node(f"train.{found.phase}").folder)
    plan = read_plan(graph.store, graph.store / record.facts["mix_folders"][-1])
    segment = plan.segments[-1]
    model, _ = load_model(found.checkpoint)
    reader = BatchReader(plan, "cpu")
    end = segment.first_row + min(rows, segment.rows)
    batches = [reader.batch(at, min(4, end - at)) for at in range(segment.first_row, end, 4)]
    names, layers = layer_use(model, batches, kind)
    worth = loss_without(model, batches[:1], layers[-1].layer)
    path = graph.store / "routing" / f"{found.phase}-{kind}.json"
    path.parent.mkdir(exist_ok=True)
    content = [
        {
            "layer": each.layer,
            "specialisation_bits": each.specialisation,
            "interval": [each.low, each.high],
            "share_by_group": dict(zip(names, each.share_GE.tolist(), strict=True)),
            "together": each.together_EE.tolist(),
        }
        for each in layers
    ]
    write_json(path, {"phase": found.phase, "kind": kind, "layers": content, "loss_without": worth.tolist()})
    lines = []
    for each in layers:
        busiest = [
            f"{name} {share.argmax()} ({share.max():.0%})" for name, share in zip(names, each.share_GE, strict=True)
        ]
        bits = f"{each.specialisation:.3f} ({each.low:.3f} to {each.high:.3f})"
        lines.append((each.layer, bits, ", ".join(busiest)))
    console.print(table(f"Experts by {kind}, {found.phase}", ("layer", "bits (95%)", "busiest expert"), lines))
    console.print(f"written: [bold]{path}[/bold]")
