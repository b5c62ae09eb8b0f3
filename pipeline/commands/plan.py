"""`seodang plan` and `why`: the graph, the phases, the model and what training it takes, without running anything."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from pipeline.commands.terminal import amount, console, table
from pipeline.core.fingerprint import SHORT
from pipeline.curriculum import WEIGHTS_ROLE
from pipeline.graph import Graph, Node
from pipeline.recipe import Opened, open_curriculum
from trainer.config import DEFAULT_PRESET, count_parameters

if TYPE_CHECKING:
    from trainer.launch import Launch


def show_plan(config: Path, overrides: Sequence[str], *, as_json: bool) -> None:
    opened = open_curriculum(config, overrides)
    check_weights(opened)
    if as_json:
        launched = [launch.facts() for launch in launches(opened)]
        print_json({"steps": steps(opened.graph), "phases": phases(opened), "model": model(opened), "launch": launched})
        return
    rows = [(s["name"], s["fingerprint"][:8], s["state"], ", ".join(s["inputs"])) for s in steps(opened.graph)]
    console.print(table("Steps", ("step", "identity", "state", "inputs"), rows))
    names = ("name", "mix", "context_tokens", "rows", "steps", "tokens", "peak_learning_rate", "gate")
    console.print(table("\nPhases", names, [[p[name] for name in names] for p in phases(opened)]))
    facts = model(opened)
    console.print(table("\nModel", ("what", "value"), [(k, v) for k, v in facts.items() if k != "groups"]))
    names = ("group", "weights", "matrices", "parameters", "weight_decay", "rate_ratio")
    groups = [[f"{group[n]:,}" if isinstance(group[n], int) else group[n] for n in names] for group in facts["groups"]]
    console.print(table("\nParameter groups", [name.replace("_", " ") for name in names], groups))
    show_launches(launches(opened))


def check_weights(opened: Opened) -> None:
    """Raises `InputError` when a first phase that is still to be trained cannot start from the folder it is given."""
    first = opened.graph.node(opened.train_steps[0])
    if first.finished or WEIGHTS_ROLE not in first.step.paths:
        return
    from trainer.imports import check_tensors
    from trainer.transformers_folder import read_folder

    check_tensors(read_folder(Path(first.step.paths[WEIGHTS_ROLE][0])), opened.model, vocabulary(opened))


def launches(opened: Opened) -> list[Launch]:
    """What each phase takes and lasts, as it would be started here."""
    from trainer.launch import plan_launch

    curriculum = opened.curriculum
    rows = curriculum.training.rows_per_microbatch or curriculum.execution.rows_per_microbatch
    execution = curriculum.training.replaced(rows_per_microbatch=rows)
    config, size = opened.model, vocabulary(opened)
    return [plan_launch(config, size, phase, execution) for phase in curriculum.phases]


def show_launches(found: Sequence[Launch]) -> None:
    """Memory of a process, computation and time of each phase, and what is in the way."""
    rows = []
    for launch in found:
        estimate, grid = launch.estimate, launch.estimate.parallel
        flops = estimate.step_flops + estimate.made_again_flops
        limit = f"{gib(launch.limit)}" if launch.limit else "?"
        known = estimate.tokens_per_second > 0
        rows.append(
            (
                estimate.phase,
                f"{grid.data} × {grid.expert} × {grid.context}",
                f"{gib(launch.needed)} of {limit}{'' if launch.fits else ' !'}",
                f"{flops:.3g}",
                amount(estimate.tokens_per_second) if known else "?",
                f"{estimate.days:.3g}" if known else "?",
            )
        )
    columns = ("phase", "data × expert × context", "GiB a process", "FLOP a step", "tokens/s", "days")
    console.print(table("\nLaunch (estimates)", columns, rows))
    parts = [
        (n, *(gib(launch.estimate.memory.items()[n]) for launch in found)) for n in found[0].estimate.memory.items()
    ]
    names = ("GiB a process", *(launch.estimate.phase for launch in found))
    console.print(table("\nMemory", names, [(name.replace("_", " "), *values) for name, *values in parts]))
    for launch in found:
        for remark in (*launch.remarks, *([f"does not fit: {launch.advice}"] if not launch.fits else [])):
            console.print(f"  {launch.estimate.phase}: {remark}")


def gib(size: int) -> str:
    return f"{size / 2**30:.3g}"


def show_why(config: Path, step: str, overrides: Sequence[str]) -> None:
    for line in open_curriculum(config, overrides).graph.why(step):
        print(line)


def steps(graph: Graph) -> list[dict[str, Any]]:
    """Each step with its identity and state."""
    return [
        {
            "name": name,
            "kind": node.step.kind,
            "fingerprint": node.fingerprint,
            "state": state(node),
            "folder": str(node.folder),
            "inputs": sorted(set(node.step.inputs.values())),
        }
        for name, node in graph.nodes.items()
    ]


def state(node: Node) -> str:
    if node.finished:
        return "finished"
    return "partly done" if node.folder.is_dir() else "missing"


def phases(opened: Opened) -> list[dict[str, Any]]:
    """Rows, steps and tokens of each phase."""
    found = []
    for phase in opened.curriculum.phases:
        rows = phase.budget_tokens // phase.context_tokens
        rows -= rows % phase.rows_per_batch
        gate = phase.gate
        found.append(
            {
                "name": phase.name,
                "mix": phase.mix,
                "context_tokens": phase.context_tokens,
                "rows": rows,
                "steps": rows // phase.rows_per_batch,
                "tokens": rows * phase.context_tokens,
                "peak_learning_rate": phase.learning_rate.peak,
                "gate": "–" if gate is None else f"needles ≥ {gate.niah:.0%}, {gate.rounds} more rounds",
            }
        )
    return found


def model(opened: Opened) -> dict[str, Any]:
    """Parameter counts and groups at the vocabulary the tokenizer will have."""
    config = opened.model
    size = vocabulary(opened)
    counts = count_parameters(config, size)
    # torch is loaded here only; on the meta device no weight takes memory, at any size.
    from trainer.model.model import build_model
    from trainer.optim import build_optimizer

    optimizer = build_optimizer(build_model(config, size, 0, "meta"), opened.curriculum.optimizer)
    return {
        **origin(opened),
        "vocabulary": size,
        "parameters": amount(counts.main),
        "MTP parameters": amount(counts.mtp),
        "active per token": amount(counts.active_per_token),
        "layers": "".join("L" if kind == "sliding_attention" else "G" for kind in config.layer_types),
        "groups": [group._asdict() for group in optimizer.describe_groups()],
    }


def origin(opened: Opened) -> dict[str, str]:
    """The preset, or the folder of the first weights with their content's identity."""
    step = opened.graph.node(opened.train_steps[0]).step
    if WEIGHTS_ROLE not in step.paths:
        return {"preset": opened.curriculum.model.preset or DEFAULT_PRESET}
    return {"weights from": f"{step.paths[WEIGHTS_ROLE][0]} ({step.content[WEIGHTS_ROLE][:SHORT]})"}


def vocabulary(opened: Opened) -> int:
    """Of the tokenizer that there is or will be."""
    tokenizer = opened.curriculum.tokenizer
    if tokenizer.trained is not None:
        return tokenizer.trained.vocabulary
    from pipeline.core.tokenizer import Tokenizer

    return Tokenizer.load(Path(str(tokenizer.path))).vocabulary_size


def print_json(value: Any) -> None:
    """Data on stdout."""
    print(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())
