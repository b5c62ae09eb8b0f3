"""Verbs of the trainer: train the phases, measure, try and export what was trained."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.verbs.options import Curriculum, Executor, Json, Overrides, TrainedPhase, Workers

app = typer.Typer(rich_markup_mode=None)


@app.command()
def train(config: Curriculum, executor: Executor = "", workers: Workers = 0, set_: Overrides = None) -> None:
    """Make whatever is missing, then run the phases and their gates.

    Example: seodang train configs/quickstart.yaml --set 'phases.0.budget_tokens=100000'
    """
    from pipeline.commands.train import train_curriculum

    train_curriculum(config, executor, workers, set_ or [])


@app.command()
def branch(
    config: Curriculum,
    phase: Annotated[str, typer.Argument(help="The phase to branch from.")],
    step: Annotated[int, typer.Option("--step", min=1, help="Of the checkpoint to start from.")],
    tokens: Annotated[int, typer.Option("--tokens", min=1, help="Length of the decay.")],
    set_: Overrides = None,
) -> None:
    """Decay the learning rate from any checkpoint of a phase's stable part, beside the phase; also under torchrun.

    Example: seodang branch configs/quickstart.yaml base --step 40 --tokens 60000
    """
    from pipeline.commands.branch import branch_phase

    branch_phase(config, phase, step, tokens, set_ or [])


@app.command(name="train-segment")
def train_segment(
    config: Curriculum,
    phase: Annotated[str, typer.Argument(help="The phase whose planned rows to train on.")],
    set_: Overrides = None,
) -> None:
    """Train a phase's planned rows in several processes; `seodang train` then gates it and goes on.

    Example: torchrun --nproc-per-node 4 -m pipeline.cli train-segment CONFIG base --set training.parallel.data=4
    """
    from pipeline.commands.branch import train_first_segment

    train_first_segment(config, phase, set_ or [])


@app.command()
def routing(
    config: Curriculum,
    phase: TrainedPhase = "",
    by: Annotated[str, typer.Option("--by", help="languages, domains or sources.")] = "languages",
    rows: Annotated[int, typer.Option("--rows", min=1, help="How many rows of the phase's mix to read.")] = 32,
    without: Annotated[
        str, typer.Option("--without", help="Layer whose experts are taken out one by one: last, all or its number.")
    ] = "last",
    set_: Overrides = None,
) -> None:
    """Which experts serve which language, domain or source, with confidence.

    Example: seodang routing configs/quickstart.yaml pretrain-3 --by domains
    """
    from pipeline.commands.routing import show_routing

    show_routing(config, phase, by, rows, without, set_ or [])


@app.command(name="eval")
def evaluate(
    config: Curriculum,
    phase: TrainedPhase = "",
    set_: Overrides = None,
    json: Json = False,
) -> None:
    """Run the needle grid and the short-context check on a phase's last checkpoint, in one process or under torchrun.

    Example: seodang eval configs/quickstart.yaml extend-2 --json
    """
    from pipeline.commands.model import evaluate_phase

    evaluate_phase(config, phase, set_ or [], as_json=json)


@app.command()
def generate(
    config: Curriculum,
    prompt: Annotated[str, typer.Argument(help="Text to continue.")],
    phase: Annotated[
        str, typer.Option("--phase", help="The phase whose last checkpoint to use; none = the last.")
    ] = "",
    tokens: Annotated[int, typer.Option("--tokens", min=1, help="How many tokens to add at most.")] = 64,
    temperature: Annotated[float, typer.Option("--temperature", min=0.0, help="0 = greedy.")] = 0.0,
    top_p: Annotated[
        float,
        typer.Option("--top-p", min=0.01, max=1.0, help="Share of probability to draw from, likeliest first."),
    ] = 1.0,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the sampling.")] = 0,
    drafts: Annotated[
        int, typer.Option("--drafts", min=0, help="Tokens a pass that the model's MTP module proposes; 0 = none.")
    ] = 0,
    set_: Overrides = None,
) -> None:
    """Continue a text with a trained checkpoint.

    Example: seodang generate configs/quickstart.yaml "def main(" --tokens 40 --drafts 2
    """
    from pipeline.commands.model import continue_text

    sampling = {"max_new_tokens": tokens, "temperature": temperature, "top_p": top_p, "seed": seed}
    continue_text(config, prompt, phase, sampling, drafts, set_ or [])


@app.command()
def export(
    config: Curriculum,
    phase: TrainedPhase = "",
    set_: Overrides = None,
) -> None:
    """Write a checkpoint in the transformers `exaone_moe` format, load it there and compare logits.

    Example: seodang export configs/quickstart.yaml
    """
    from pipeline.commands.model import export_phase

    export_phase(config, phase, set_ or [])
