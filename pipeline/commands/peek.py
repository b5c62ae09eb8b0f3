"""`seodang peek`: what lies in a step's folder, row by row, in the terminal.

Contract: any table of a step that has rows (documents, dropped ones, held-out ones, signals, evidence, statistics of
benchmark items), and the token shards of an encode step, decoded. Rows come in the order in which they are stored;
`--where` filters over the columns, `--skip` and `--limit` page. Cost: only the rows shown are read whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from rich.markup import escape
from rich.panel import Panel
from rich.text import Text

from pipeline.commands.plan import print_json
from pipeline.commands.terminal import console
from pipeline.core.errors import ConfigError, InputError, unknown_name
from pipeline.core.files import PARTIAL
from pipeline.core.record import read_record
from pipeline.core.shards import TokenShard, shard_stems
from pipeline.core.tokenizer import Tokenizer
from pipeline.recipe import open_curriculum

SHOWN_CHARACTERS = 1500
SHOWN_VALUE_CHARACTERS = 400  # of a column above the text
DOCUMENTS, DROPPED, TOKENS = "documents", "dropped", "tokens"
ANY = "all"
FILE, ROW = "shard", "row"  # where a row stands: columns that every table gets
TEXT_COLUMNS = ("text", "excerpt", "messages")


@dataclass(frozen=True)
class Page:
    """Which rows are asked for."""

    table: str
    reason: str = ""  # of dropped documents; empty or `all`: any
    where: str = ""  # SQL condition
    skip: int = 0
    limit: int = 5


def show_documents(config: Path, step: str, page: Page, overrides: Sequence[str], *, as_json: bool) -> None:
    """Print rows of a finished step that fit the page."""
    graph = open_curriculum(config, overrides).graph
    node = graph.node(step)
    record = read_record(node.folder)
    found = tables_of(node.folder)
    page = chosen_table(page, found, step)
    if page.table == DROPPED and page.reason not in ("", ANY, *record.dropped):
        raise unknown_name("drop reason", page.reason, [*record.dropped, ANY], where=step)
    rows, total = find(found[page.table], page)
    if page.table == TOKENS:
        tokenizer = graph.node(node.step.inputs["tokenizer"]).folder
        rows = [decoded(row, node.folder, Tokenizer.load(tokenizer)) for row in rows]
    if as_json:
        print_json(rows)
        return
    for row in rows:
        console.print(panel(row))
    last = page.skip + len(rows)
    more = f"; the next: --skip {last}" if last < total else ""
    console.print(f"{page.skip + 1 if rows else 0}–{last} of {total} rows of {step}'s {page.table}{more}")


def tables_of(folder: Path) -> dict[str, list[Path]]:
    """Every table of a step's folder with its files, in order; token shards by their document tables."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("*/*.parquet")):
        if not path.name.startswith(PARTIAL):
            found.setdefault(path.parent.name, []).append(path)
    return found


def chosen_table(page: Page, found: dict[str, list[Path]], step: str) -> Page:
    """The page with its table settled. Raises `InputError` and `ConfigError` where there is none of it."""
    if not found:
        fix = "peek at a clean, dedup, synth or encode step"
        raise InputError("this step holds no tables", where=step, fix=fix)
    if page.reason and page.table not in ("", DROPPED):
        raise ConfigError("--dropped and --table name two tables", fix="give one of them")
    first = DOCUMENTS if DOCUMENTS in found else next(iter(found))
    table = DROPPED if page.reason else page.table or first
    if table not in found:
        raise unknown_name("table", table, found, where=step)
    return Page(table, page.reason, page.where, page.skip, page.limit)


def find(paths: Sequence[Path], page: Page) -> tuple[list[dict[str, Any]], int]:
    """(rows of the page, how many fit in all). Raises `ConfigError` for a condition that does not fit the columns."""
    parts = (pl.scan_parquet(path).with_row_index(ROW).with_columns(pl.lit(path.name).alias(FILE)) for path in paths)
    lazy = pl.concat(parts, how="diagonal")
    if page.table == DROPPED and page.reason not in ("", ANY):
        lazy = lazy.filter(pl.col("reason") == page.reason)
    try:
        if page.where:
            lazy = lazy.filter(pl.sql_expr(page.where))
        total = int(lazy.select(pl.len()).collect().item())
        return lazy.slice(page.skip, page.limit).collect().to_dicts(), total
    except pl.exceptions.PolarsError as error:
        columns = ", ".join(lazy_columns(paths))
        what = f"not a condition over the columns ({str(error).splitlines()[0]})"
        raise ConfigError(what, where="--where", fix=f"columns: {columns}") from None


def lazy_columns(paths: Sequence[Path]) -> list[str]:
    """The columns a condition may use."""
    return [
        *dict.fromkeys(name for path in paths for name in pl.scan_parquet(path).collect_schema().names()),
        FILE,
        ROW,
    ]


def decoded(row: dict[str, Any], folder: Path, tokenizer: Tokenizer) -> dict[str, Any]:
    """A row of a token shard's document table with its text, and how many of its tokens count in the loss."""
    stem = next(stem for stem in shard_stems(folder) if row[FILE].startswith(f"{stem.name}."))
    shard = TokenShard.open(stem)
    tokens = slice(row["start"], row["start"] + row["length"])
    counted = row["length"] if shard.loss is None else int(shard.loss[tokens].sum())
    return {**row, "tokens_in_loss": counted, "text": tokenizer.decode(shard.token_ids[tokens].tolist())}


def panel(row: dict[str, Any]) -> Panel:
    """One row: its columns on top, its text below."""
    facts = {key: value for key, value in row.items() if key not in TEXT_COLUMNS and value not in (None, [], "")}
    head = Text(
        "  ".join(f"{key}={_cut(str(value), SHOWN_VALUE_CHARACTERS)}" for key, value in facts.items()), style="dim"
    )
    cut = _cut(body_of(row), SHOWN_CHARACTERS)
    title = escape(str(row.get("id") or row.get("item") or row[ROW]))
    return Panel(Text.assemble(head, "\n\n", cut) if cut else head, title=title, title_align="left")


def _cut(text: str, characters: int) -> str:
    return text if len(text) <= characters else f"{text[:characters]} … ({len(text):,} characters)"


def body_of(row: dict[str, Any]) -> str:
    """What there is to read in a row: its text, its conversation, or the excerpt it has."""
    if row.get("messages"):
        return "\n".join(map(_said, row["messages"]))
    if "text" in row:
        return str(row["text"]) if row["text"] is not None else "(text not kept: only the first of each reason are)"
    return str(row.get("excerpt") or "")


def _said(message: dict[str, Any]) -> str:
    """A message with its thought and its calls of tools, a line each."""
    called = [f"{call['name']} {call['arguments']}" for call in message.get("tool_calls") or ()]
    said = (message.get("reasoning") or "") + (message["content"] or "")
    return f"[{message['role']}] " + "\n".join([*([said] if said else []), *called])
