"""`seodang mix …`: ratio tables in and out, rows for other trainers, hooks for mixture search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from mixes.materialise import materialise
from mixes.ratios import ratio_table, read_ratios, write_weights
from mixes.search import propose, proxy_overrides, proxy_table, proxy_weights, read_results
from pipeline.commands.mixes import mix_of, planned_phase
from pipeline.commands.plan import print_json
from pipeline.commands.terminal import console, progress, table
from pipeline.core.files import write_text
from pipeline.core.rng import derive_seed
from pipeline.recipe import open_curriculum


def print_ratios(config: Path, mix: str, overrides: Sequence[str]) -> None:
    """The mix's weights as CSV on stdout."""
    print(ratio_table(mix_of(open_curriculum(config, overrides), mix)), end="")


def import_ratios(config: Path, mix: str, table_file: Path) -> None:
    """Write a table's weights into the curriculum file, and show what changed."""
    before = mix_of(open_curriculum(config), mix)
    weights = read_ratios(table_file, before, f"mix `{mix}`")
    write_weights(config, mix, weights)
    after = mix_of(open_curriculum(config), mix)
    rows = [(name, f"{one.weight:g}", f"{after.components[name].weight:g}") for name, one in before.components.items()]
    console.print(table(f"Weights of {mix} in {config}", ("component", "before", "now"), rows))


def export_rows(config: Path, phase: str, kind: str, folder: Path, overrides: Sequence[str], *, as_json: bool) -> None:
    """Write a phase's rows, in the order in which they are served, for another trainer."""
    found = planned_phase(open_curriculum(config, overrides), phase)
    with progress() as shown:
        bar = shown.bars.add_task(f"rows of {phase}", total=found.rows)
        facts = materialise(
            found.plan, found.segments, kind, folder, lambda rows: shown.bars.update(bar, completed=rows)
        )
    if as_json:
        print_json(facts)
    else:
        console.print(f"{facts['rows']:,} rows, {facts['tokens']:,} tokens in [bold]{folder}[/bold]")


def write_proxies(config: Path, mix: str, proxies: int, out: Path, overrides: Sequence[str]) -> None:
    """Write a table of proxies' weights; one example of how to train each."""
    opened = open_curriculum(config, overrides)
    chosen = mix_of(opened, mix)
    weights = proxy_weights(chosen, proxies, derive_seed("proxies", opened.curriculum.seed, mix))
    write_text(out, proxy_table(chosen, weights))
    example = " ".join(f"--set {override}" for override in proxy_overrides(mix, chosen, weights[1].tolist()))
    console.print(
        f"{proxies} proxies in [bold]{out}[/bold]; train each as a curriculum of its own, proxy 1 for example:"
    )
    console.print(f"  seodang train {config} --set store=runs/proxy-1 {example}", soft_wrap=True)
    console.print("then add a column with its loss to the file and ask for `seodang mix propose`.")


def propose_weights(
    config: Path, mix: str, results: Path, loss: str, out: Path | None, overrides: Sequence[str], *, as_json: bool
) -> None:
    """Fit the proxies' losses and print the weights with the lowest prediction."""
    opened = open_curriculum(config, overrides)
    chosen = mix_of(opened, mix)
    found = propose(read_results(results, chosen, loss), chosen, derive_seed("candidates", opened.curriculum.seed, mix))
    if out is not None:
        lines = [f"{name},{weight!r}" for name, weight in found.weights.items()]
        write_text(out, "\n".join(["component,weight", *lines]) + "\n")
    if as_json:
        print_json(asdict(found))
        return
    total = sum(component.weight for component in chosen.components.values())
    rows = [
        (name, f"{component.weight / total:.4f}", f"{found.weights[name]:.4f}")
        for name, component in chosen.components.items()
    ]
    console.print(table(f"Weights of {mix}", ("component", "now", "proposed"), rows))
    console.print(
        f"predicted loss {found.predicted_loss:.4f}, best of {found.proxies} proxies {found.best_tried_loss:.4f}; "
        f"rank correlation on held-out proxies {found.rank_correlation:.2f}"
    )
    if out is not None:
        console.print(f"in [bold]{out}[/bold]: `seodang mix import {config} {mix} {out}` takes them over")
