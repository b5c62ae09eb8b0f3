"""`python -m benchmarks NAME… [--json] [--list] [--quick]`: ours beside named peers, in one run on one input.

Contract: one JSON object a comparison on stdout with `--json`, rows of Markdown with `--markdown`; the table, missing
peers and errors on stderr. Exit 0 when at least one comparison was made, 2 for the user's mistakes and when every
peer is missing.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.catalogue import BENCHMARKS, entry, load
from benchmarks.environment import environment, limit_threads
from benchmarks.result import Comparison, Missing
from benchmarks.settings import Settings
from benchmarks.tables import markdown, markdown_heading, print_list, print_table
from pipeline.core.errors import UserError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def benchmarks(
    names: Annotated[list[str] | None, typer.Argument(help="benchmarks to run; `all` for every one")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object a comparison on stdout")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="rows of a Markdown table on stdout")] = False,
    listing: Annotated[bool, typer.Option("--list", help="what there is")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="small inputs: shows that it works, not how fast")] = False,
    checkpoint: Annotated[Path | None, typer.Option(help="a trained checkpoint, for `drafting`")] = None,
    threads: Annotated[int, typer.Option(min=1, help="threads each library may use")] = 1,
) -> None:
    """Measure ours and named peers in turn."""
    console = Console(stderr=True)
    if listing or not names:
        print_list(console)
        return
    limit_threads(threads)
    settings = Settings("quick" if quick else "full", checkpoint)
    found: list[Comparison] = []
    chosen = list(BENCHMARKS) if names == ["all"] else names
    for name in chosen:
        entry(name)  # a misspelt name is told before anything is measured
    if as_markdown:
        print(markdown_heading())
    for name in chosen:
        for one in load(name)(settings):
            if isinstance(one, Missing):
                console.print(f"{name}: {one.peer_name} {one.install}", markup=False, style="yellow")
                continue
            found.append(one)
            if as_json:
                print(json.dumps(one.as_json(environment(threads)), ensure_ascii=False), flush=True)
            if as_markdown:
                print(markdown(one), flush=True)
    print_table(found, console)
    if not found:
        raise typer.Exit(2)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; a user's mistake is one line on stderr."""
    try:
        app(list(arguments) if arguments is not None else None)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
