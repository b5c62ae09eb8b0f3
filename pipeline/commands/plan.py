"""`seodang plan` and `why`: the graph, the phases and the model, without running anything."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from pipeline.commands.terminal import amount, console, table
from pipeline.graph import Graph, Node
from pipeline.recipe import Opened, open_curriculum
from trainer.config import count_parameters


def show_plan(config: Path, overrides: Sequence[str], *, as_json: bool) -> None:
    opened = open_curriculum(config, overrides)
    if as_json:
        print_json({"steps": steps(opened.graph), "phases": phases(opened), "model": model(opened)})
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
    config = opened.curriculum.model.resolve()
    tokenizer = opened.curriculum.tokenizer
    if tokenizer.trained is not None:
        vocabulary = tokenizer.trained.vocabulary
    else:
        from pipeline.core.tokenizer import Tokenizer

        vocabulary = Tokenizer.load(Path(str(tokenizer.path))).vocabulary_size
    counts = count_parameters(config, vocabulary)
    # torch is loaded here only; on the meta device no weight takes memory, at any size.
    from trainer.model.model import build_model
    from trainer.optim import build_optimizer

    optimizer = build_optimizer(build_model(config, vocabulary, 0, "meta"), opened.curriculum.optimizer)
    return {
        "preset": opened.curriculum.model.preset,
        "vocabulary": vocabulary,
        "parameters": amount(counts.main),
        "MTP parameters": amount(counts.mtp),
        "active per token": amount(counts.active_per_token),
        "layers": "".join("L" if kind == "sliding_attention" else "G" for kind in config.layer_types),
        "groups": [group._asdict() for group in optimizer.describe_groups()],
    }


def print_json(value: Any) -> None:
    """Data on stdout."""
    print(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())
