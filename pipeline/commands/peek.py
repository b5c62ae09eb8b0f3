"""`seodang peek`: a step's documents, kept or dropped, in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
from rich.panel import Panel
from rich.text import Text

from pipeline.commands.plan import print_json
from pipeline.commands.terminal import console
from pipeline.core.documents import document_files
from pipeline.core.errors import ConfigError, InputError, unknown_name
from pipeline.core.record import read_record
from pipeline.recipe import open_curriculum

SHOWN_CHARACTERS = 1500


def show_documents(
    config: Path, step: str, dropped: str, where: str, limit: int, overrides: Sequence[str], *, as_json: bool
) -> None:
    """Print up to `limit` documents of a finished step that fit `where`."""
    node = open_curriculum(config, overrides).graph.node(step)
    record = read_record(node.folder)
    rows = find(node.folder, dropped, where, limit)
    if not rows and dropped not in ("", "all") and dropped not in record.dropped:
        raise unknown_name("drop reason", dropped, [*record.dropped, "all"], where=step)
    if as_json:
        print_json(rows)
        return
    for row in rows:
        console.print(panel(row))
    shown = "dropped" if dropped else "kept"
    console.print(f"{len(rows)} of {step}'s {shown} documents")


def find(folder: Path, dropped: str, where: str, limit: int) -> list[dict[str, Any]]:
    """Rows of the kept or dropped tables. Raises `ConfigError` for a condition that does not fit the columns."""
    paths = sorted((folder / "dropped").glob("[0-9]*.parquet")) if dropped else document_files(folder)
    if not paths:
        raise InputError("this step holds no documents", where=str(folder), fix="peek at a clean, dedup or synth step")
    lazy = pl.scan_parquet(paths)
    if dropped and dropped != "all":
        lazy = lazy.filter(pl.col("reason") == dropped)
    try:
        if where:
            lazy = lazy.filter(pl.sql_expr(where))
        return lazy.head(limit).collect().to_dicts()
    except pl.exceptions.PolarsError as error:
        columns = ", ".join(pl.scan_parquet(paths).collect_schema().names())
        what = f"not a condition over the columns ({str(error).splitlines()[0]})"
        raise ConfigError(what, where="--where", fix=f"columns: {columns}") from None


def panel(row: dict[str, Any]) -> Panel:
    """One document: its columns on top, its text below."""
    facts = {
        key: value for key, value in row.items() if key not in ("text", "messages") and value not in (None, [], "")
    }
    head = Text("  ".join(f"{key}={value}" for key, value in facts.items()), style="dim")
    text = row.get("text")
    body = "(text not kept: only the first of each reason are)" if text is None else str(text)
    cut = body if len(body) <= SHOWN_CHARACTERS else f"{body[:SHOWN_CHARACTERS]} … ({len(body):,} characters)"
    return Panel(Text.assemble(head, "\n\n", cut), title=str(row["id"]), title_align="left")
