"""`seodang eval`, `generate` and `export`: what to do with a trained phase's last checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.commands.plan import print_json
from pipeline.commands.terminal import console, table
from pipeline.core.errors import InputError, unknown_name
from pipeline.core.files import write_json
from pipeline.core.plans import read_plan
from pipeline.core.record import finished, read_record
from pipeline.core.tokenizer import Tokenizer
from pipeline.curriculum import Phase, Surroundings
from pipeline.recipe import Opened, open_curriculum
from pipeline.reviews import check_release

LOGIT_TOLERANCE = 1e-4  # float32, largest difference of any logit; models of a few layers stay below 1e-5


@dataclass(frozen=True)
class Trained:
    """A finished phase: its checkpoint and tokenizer."""

    opened: Opened
    phase: str
    checkpoint: Path
    tokenizer: Tokenizer
    tokenizer_path: Path


def trained(config: Path, phase: str, overrides: Sequence[str]) -> Trained:
    """The named phase, or the last finished one. Raises `InputError` when it is not trained."""
    opened = open_curriculum(config, overrides)
    names = [each.name for each in opened.curriculum.phases]
    if phase and phase not in names:
        raise unknown_name("phase", phase, names)
    done = [name for name in names if finished(opened.graph.node(f"train.{name}").folder)]
    wanted = phase or (done[-1] if done else names[-1])
    if wanted not in done:
        where = str(opened.graph.store)
        raise InputError(f"phase `{wanted}` is not trained", where=where, fix=f"seodang train {config}")
    folder = opened.graph.node(f"train.{wanted}").folder
    path = opened.graph.node("tokenizer").folder / "tokenizer.json"
    checkpoint = folder / str(read_record(folder).facts["checkpoint"])
    if not checkpoint.is_dir():
        raise InputError(
            f"the last checkpoint of phase `{wanted}` is gone",
            where=str(checkpoint),
            fix=f"put it back, or remove {folder} and train the phase again: seodang train {config}",
        )
    return Trained(opened, wanted, checkpoint, Tokenizer.load(path), path)


def trained_on(opened: Opened, phase: str) -> tuple[str, ...]:
    """The sources whose tokens the model of a finished phase has seen, through synthetic sets too."""
    record = read_record(opened.graph.node(f"train.{phase}").folder)
    plan = read_plan(opened.graph.store, opened.graph.store / record.facts["mix_folders"][-1])
    shares = (share for segment in plan.segments for share in segment.shares if share.tokens_planned)
    return opened.curriculum.origins(share.source for share in shares)


def evaluate_phase(config: Path, phase: str, overrides: Sequence[str], *, as_json: bool) -> None:
    """Needle grid and short-context loss of a phase, whether or not it has a gate; writes `eval.json`."""
    from trainer.config import GateConfig
    from trainer.evals.niah import build_haystacks, grid_depths, grid_lengths, score_haystacks
    from trainer.evals.short_context import short_context_loss
    from trainer.parallel.ranks import start_ranks
    from trainer.phase import load_model

    found = trained(config, phase, overrides)
    graph = found.opened.graph
    training = found.opened.curriculum.training
    # A row is one process's here: nothing is kept for a backward pass.
    ranks = start_ranks(training.parallel.replaced(data=training.parallel.processes, context=1), training.device)
    run = Phase(graph.task(graph.node(f"train.{found.phase}")), Surroundings())
    gate = run.config.phase.gate or GateConfig()
    model, _ = load_model(found.checkpoint, training.device, ranks)
    held_out = run.held_out()
    lengths, depths = grid_lengths(run.config.phase.context_tokens, gate.lengths), grid_depths(gate.depths)
    haystacks = build_haystacks(
        found.tokenizer.encode,
        held_out.texts,
        lengths=lengths,
        depths=depths,
        needles_per_cell=gate.needles_per_cell,
        seed=run.config.seed,
    )
    grid = score_haystacks(model, haystacks, lengths, depths, ranks)
    loss = short_context_loss(model, held_out.short_rows, ranks)
    if not ranks.is_first:
        return
    result = {
        "phase": found.phase,
        "checkpoint": found.checkpoint.name,
        "niah": asdict(grid),
        "niah_mean": grid.mean,
        "short_context_loss": loss,
    }
    path = graph.store / "eval" / f"{found.phase}.json"
    write_json(path, result)
    if as_json:
        print_json(result)
        return
    cells = zip(grid.lengths, grid.exact, strict=True)
    rows = [(f"{length:,}", *(f"{share:.0%}" for share in row)) for length, row in cells]
    columns = ("context tokens", *(f"depth {depth:.0%}" for depth in grid.depths))
    console.print(table(f"Needles found by {found.phase} (mean {grid.mean:.1%})", columns, rows))
    console.print(f"short-context loss: {loss:.4f} nats a token\nwritten: [bold]{path}[/bold]")


def continue_text(
    config: Path, prompt: str, phase: str, sampling: Mapping[str, Any], drafts: int, overrides: Sequence[str]
) -> None:
    """Print the prompt's continuation on stdout; with drafts, on stderr how many of them held."""
    from trainer.drafting import generate_drafting
    from trainer.generate import generate
    from trainer.phase import load_model
    from trainer.sampling import SamplingConfig

    found = trained(config, phase, overrides)
    model, _ = load_model(found.checkpoint, found.opened.curriculum.training.device)
    how = SamplingConfig(**sampling, stop_token_ids=(found.tokenizer.eos_id,))
    prompts = [found.tokenizer.encode(prompt)]
    (made,) = generate_drafting(model, prompts, how, drafts) if drafts else generate(model, prompts, how)
    print(found.tokenizer.decode([token for token in made.token_ids if token != found.tokenizer.eos_id]))
    if drafts:
        console.print(
            f"{len(made.token_ids)} tokens in {made.passes} passes; {made.accepted} of {made.drafted} drafts held"
        )


def export_phase(config: Path, phase: str, overrides: Sequence[str]) -> None:
    """Export, load with transformers, and compare the logits of both on the same tokens."""
    from trainer.export import export_to_transformers
    from trainer.export_check import largest_logit_difference
    from trainer.phase import load_model

    found = trained(config, phase, overrides)
    opened = found.opened
    # Before anything is written: a refused model leaves no export behind.
    check_release(found.phase, trained_on(opened, found.phase), opened.cards, opened.curriculum.card_files)
    folder = opened.graph.store / "export" / found.phase
    model, info = load_model(found.checkpoint)
    export_to_transformers(model, model.config, found.tokenizer_path, folder)
    difference = largest_logit_difference(model, folder)
    facts = {
        "phase": found.phase,
        "checkpoint": info.identity,
        "largest_logit_difference": difference,
        "tolerance": LOGIT_TOLERANCE,
    }
    write_json(folder / "export-check.json", facts)
    assert difference <= LOGIT_TOLERANCE, f"transformers computes other logits: {difference} > {LOGIT_TOLERANCE}"
    console.print(f"transformers agrees to {difference:.1e} in every logit\nexported: [bold]{folder}[/bold]")
