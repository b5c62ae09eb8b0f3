"""Verbs about mixes and the page about everything; `seodang mix …` for tables, exports and search."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.verbs.options import Curriculum, Json, Overrides

app = typer.Typer(rich_markup_mode=None)


@app.command()
def preview(
    config: Curriculum,
    phase: Annotated[str, typer.Argument(metavar="[PHASE]", help="The phase to preview; none = all.")] = "",
    lengths: Annotated[
        Path | None, typer.Option("--lengths", metavar="CSV", help="Histograms: source,tokens,documents.")
    ] = None,
    set_: Overrides = None,
    json: Json = False,
) -> None:
    """Show what mixes would become, from length histograms alone: rows, fill, epochs, cut documents.

    Example: seodang preview configs/quickstart.yaml extend-1 --set mixes.longer.components.long.weight=0.5
    """
    from pipeline.commands.preview import show_preview

    show_preview(config, phase, lengths, set_ or [], as_json=json)


@app.command()
def stats(
    config: Curriculum,
    mix: Annotated[str, typer.Argument(metavar="[PHASE]", help="The phase whose mix to show; none = all.")] = "",
    as_csv: Annotated[bool, typer.Option("--csv", help="Print tokens by every group as CSV on stdout.")] = False,
    set_: Overrides = None,
    json: Json = False,
) -> None:
    """Show what is in each phase's mix, planned and consumed, to the token.

    Example: seodang stats configs/quickstart.yaml extend-1
    """
    from pipeline.commands.stats import show_stats

    show_stats(config, mix, set_ or [], as_json=json, as_csv=as_csv)


@app.command()
def diff(
    config: Curriculum,
    one: Annotated[str, typer.Argument(metavar="PHASE", help="A phase with a planned mix.")],
    other: Annotated[str, typer.Argument(metavar="PHASE", help="The phase to compare it with.")],
    against: Annotated[
        Path | None, typer.Option("--against", metavar="CONFIG", help="The second phase's curriculum, if another.")
    ] = None,
    sample: Annotated[
        bool, typer.Option("--sample", help="Also look for near-duplicates and shared n-grams in a sample.")
    ] = False,
    set_: Overrides = None,
    json: Json = False,
) -> None:
    """Compare two phases' mixes: shares by every group, documents in both, near-duplicates.

    Example: seodang diff configs/quickstart.yaml pretrain-1 extend-1 --sample
    """
    from pipeline.commands.diff import show_diff

    show_diff(config, one, other, against, set_ or [], sample=sample, as_json=json)


@app.command()
def trace(
    config: Curriculum,
    step: Annotated[int | None, typer.Option("--step", min=1, help="The documents of this training step.")] = None,
    row: Annotated[int | None, typer.Option("--row", min=0, help="Only this row of the step.")] = None,
    phase: Annotated[str, typer.Option("--phase", help="Count steps in this phase; none = over all phases.")] = "",
    document: Annotated[str, typer.Option("--document", metavar="ID", help="Every step that saw this document.")] = "",
    text: Annotated[bool, typer.Option("--text", help="Also print the rows' text, documents coloured.")] = False,
    check: Annotated[bool, typer.Option("--audit", help="Compare the run logs with the plans, to the token.")] = False,
    set_: Overrides = None,
    json: Json = False,
) -> None:
    """Tell which documents were in a batch, which batches saw a document, and whether the run log agrees.

    Example: seodang trace configs/quickstart.yaml --phase extend-1 --step 3 --row 0 --text
    """
    from pipeline.commands.trace import show_trace

    show_trace(config, phase, step or 0, row, document, set_ or [], text=text, check=check, as_json=json)


@app.command()
def report(config: Curriculum, set_: Overrides = None) -> None:
    """Write one self-contained HTML page about everything that has been run so far.

    Example: seodang report configs/quickstart.yaml
    """
    from pipeline.commands.report import write_report

    write_report(config, set_ or [])


mix_app = typer.Typer(
    help="Ratio tables, rows for other trainers, and mixture search.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(mix_app, name="mix")
MixName = Annotated[str, typer.Argument(metavar="MIX", help="A name below `mixes:`.")]


@mix_app.command("ratios")
def mix_ratios(config: Curriculum, mix: MixName, set_: Overrides = None) -> None:
    """Print a mix's weights as CSV.

    Example: seodang mix ratios configs/quickstart.yaml longer > longer.csv
    """
    from pipeline.commands.mix import print_ratios

    print_ratios(config, mix, set_ or [])


@mix_app.command("import")
def mix_import(
    config: Curriculum,
    mix: MixName,
    table: Annotated[Path, typer.Argument(metavar="CSV", help="Columns component and weight.")],
) -> None:
    """Write a table's weights into the curriculum file; comments and order stay.

    Example: seodang mix import configs/quickstart.yaml longer longer.csv
    """
    from pipeline.commands.mix import import_ratios

    import_ratios(config, mix, table)


@mix_app.command("export")
def mix_export(
    config: Curriculum,
    phase: Annotated[str, typer.Argument(metavar="PHASE", help="A phase with a planned mix.")],
    kind: Annotated[str, typer.Option("--format", help="megatron, mds or parquet.")],
    out: Annotated[Path, typer.Option("--out", help="A new or empty folder.")],
    set_: Overrides = None,
    json: Json = False,
) -> None:
    """Write a phase's packed rows, in the order in which they are served, for another trainer.

    Example: seodang mix export configs/quickstart.yaml extend-1 --format megatron --out exported
    """
    from pipeline.commands.mix import export_rows

    export_rows(config, phase, kind, out, set_ or [], as_json=json)


@mix_app.command("proxies")
def mix_proxies(
    config: Curriculum,
    mix: MixName,
    out: Annotated[Path, typer.Option("--out", help="The CSV file to write.")],
    proxies: Annotated[int, typer.Option("--proxies", min=2, help="How many; RegMix trains 512.")] = 512,
    set_: Overrides = None,
) -> None:
    """Draw many small variations of a mix, to train a small model on each.

    Example: seodang mix proxies configs/quickstart.yaml longer --out proxies.csv
    """
    from pipeline.commands.mix import write_proxies

    write_proxies(config, mix, proxies, out, set_ or [])


@mix_app.command("propose")
def mix_propose(
    config: Curriculum,
    mix: MixName,
    results: Annotated[Path, typer.Argument(metavar="CSV", help="The table of proxies, with a column of losses.")],
    loss: Annotated[str, typer.Option("--loss", help="The column to make small.")] = "loss",
    out: Annotated[Path | None, typer.Option("--out", help="Write the proposed ratio table here.")] = None,
    set_: Overrides = None,
    json: Json = False,
) -> None:
    """Fit the proxies' losses and propose weights.

    Example: seodang mix propose configs/quickstart.yaml longer proxies.csv --out better.csv
    """
    from pipeline.commands.mix import propose_weights

    propose_weights(config, mix, results, loss, out, set_ or [], as_json=json)
