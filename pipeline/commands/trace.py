"""`seodang trace`: which documents were in a batch, which batches saw a document, and whether the log agrees."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from rich.text import Text

from mixes.audit import Audit, audit
from mixes.loader import MixLoader
from mixes.trace import documents_at, positions_of
from pipeline.commands.mixes import PlannedPhase, planned_phase, planned_phases
from pipeline.commands.plan import print_json
from pipeline.commands.terminal import console, table
from pipeline.core.errors import InputError
from pipeline.core.runlog import TRAIN_LOG, read_lines
from pipeline.core.tokenizer import Tokenizer
from pipeline.layout import TOKENIZER
from pipeline.recipe import Opened, open_curriculum

COLOURS = ("cyan", "magenta", "yellow", "green", "blue", "red")  # documents of a row take turns
SHOWN_CHARACTERS = 400  # of a document, from either end


def show_trace(
    config: Path,
    phase: str,
    step: int,
    row: int | None,
    document: str,
    overrides: Sequence[str],
    *,
    text: bool,
    check: bool,
    as_json: bool,
) -> None:
    """Print a step's documents, a document's steps, or the audit of the run log."""
    if sum((step > 0, bool(document), check)) != 1:
        fix = "for example --step 1, --document 0123…, or --audit"
        raise InputError("give one of --step, --document and --audit", where="seodang trace", fix=fix)
    opened = open_curriculum(config, overrides)
    if check:
        _show_audit(opened, as_json=as_json)
    elif document:
        _show_document(opened, document, as_json=as_json)
    else:
        _show_step(opened, phase, step, row, text=text, as_json=as_json)


def _located(opened: Opened, phase: str, step: int) -> tuple[PlannedPhase, int]:
    """(the phase, its own number of the step): without a phase, steps count over all of them."""
    phases = [planned_phase(opened, phase)] if phase else planned_phases(opened)
    left = step
    for one in phases:
        steps = one.rows // one.rows_per_batch
        if left <= steps:
            return one, left
        left -= steps
    planned = sum(one.rows // one.rows_per_batch for one in phases)
    what = f"step {step:,} is beyond the {planned:,} that are planned" + (f" for `{phase}`" if phase else "")
    raise InputError(what, where=str(opened.graph.store), fix=f"give --step 1 to {planned}")


def _show_step(opened: Opened, phase: str, step: int, row: int | None, *, text: bool, as_json: bool) -> None:
    found, own_step = _located(opened, phase, step)
    position, rows = found.first_row + (own_step - 1) * found.rows_per_batch, found.rows_per_batch
    if row is not None:
        if row >= rows:
            raise InputError(f"step {step} has rows 0 to {rows - 1}", where="--row", fix=f"--row {rows - 1}")
        position, rows = position + row, 1
    documents = documents_at(found.plan, position, rows)
    documents = documents.with_columns(row=pl.col("position") - found.first_row - (own_step - 1) * found.rows_per_batch)
    if as_json:
        print_json({"phase": found.name, "step": own_step, "documents": documents.to_dicts()})
        return
    names = ("row", "offset", "length", "source", "component", "lang", "domain", "license", "maker", "id", "parents")
    lines = [
        ["–" if value is None else ", ".join(value) if isinstance(value, list) else str(value) for value in line]
        for line in documents.select(names).iter_rows()
    ]
    title = f"Step {own_step} of {found.name}: rows from position {position:,}, {len(lines)} documents"
    console.print(table(title, names, lines))
    if text:
        _print_text(opened, found, position, rows)


def _print_text(opened: Opened, found: PlannedPhase, position: int, rows: int) -> None:
    tokenizer = Tokenizer.load(opened.graph.node(TOKENIZER).folder)
    for number, parts in enumerate(decoded_rows(found, tokenizer, position, rows)):
        line = Text(f"\n── row {number} ", style="bold")
        for place, (source, written) in enumerate(parts):
            line.append(f"\n[{source}] ", style="bold")
            line.append(_shortened(written), style=COLOURS[place % len(COLOURS)])
        console.print(line)


def decoded_rows(
    found: PlannedPhase, tokenizer: Tokenizer, position: int, rows: int
) -> Iterator[list[tuple[str, str]]]:
    """(source, text) of each document or part of one, row by row."""
    batch = MixLoader(found.plan).batch(position, rows)
    pieces = batch.pieces
    for row in range(rows):
        parts = []
        for p in range(pieces.row_P.shape[0]):
            if pieces.row_P[p] == row:
                start = int(pieces.offset_P[p])
                ids = batch.token_ids_RT[row, start : start + int(pieces.length_P[p])]
                parts.append((batch.sources[pieces.source_P[p]], tokenizer.decode(ids.tolist())))
        yield parts


def _shortened(text: str) -> str:
    if len(text) <= 2 * SHOWN_CHARACTERS:
        return text
    return f"{text[:SHOWN_CHARACTERS]} … {len(text) - 2 * SHOWN_CHARACTERS:,} characters … {text[-SHOWN_CHARACTERS:]}"


def _show_document(opened: Opened, document: str, *, as_json: bool) -> None:
    phases = planned_phases(opened)
    if not phases:
        raise InputError("no mix is planned yet", where=str(opened.graph.store), fix=f"seodang run {opened.path}")
    positions = positions_of(phases[-1].plan, document)
    rows = [{**_step_of(phases, int(line["position"])), **line} for line in positions.iter_rows(named=True)]
    if as_json:
        print_json(rows)
        return
    names = ("phase", "step", "row", "position", "segment", "component", "document_offset", "length")
    title = f"Document {document}: {len(rows)} times in rows" if rows else f"Document {document}: in no row"
    console.print(table(title, names, [[row[name] for name in names] for row in rows]))


def _step_of(phases: Sequence[PlannedPhase], position: int) -> Mapping[str, Any]:
    for phase in phases:
        if phase.first_row <= position < phase.first_row + phase.rows:
            step, row = divmod(position - phase.first_row, phase.rows_per_batch)
            return {"phase": phase.name, "step": step + 1, "row": row}
    raise AssertionError(position)


def audit_phases(opened: Opened, phases: Sequence[PlannedPhase]) -> dict[str, Audit]:
    """Phase -> its log against its plan; phases without a log are left out."""
    found: dict[str, Audit] = {}
    for phase in phases:
        path = opened.graph.node(f"train.{phase.name}").folder / TRAIN_LOG
        if path.is_file():
            found[phase.name] = audit(phase.plan, read_lines(path))
    return found


def _show_audit(opened: Opened, *, as_json: bool) -> None:
    found = audit_phases(opened, planned_phases(opened))
    if not found:
        raise InputError("nothing is trained yet", where=str(opened.graph.store), fix=f"seodang train {opened.path}")
    if as_json:
        told = {
            name: {"steps": one.steps, "rows": one.rows, "tokens": one.tokens, "problems": list(one.problems)}
            for name, one in found.items()
        }
        print_json(told)
    else:
        rows = [
            (name, f"{one.steps:,}", f"{one.rows:,}", f"{one.tokens:,}", "equal" if one.clean else "differs")
            for name, one in found.items()
        ]
        columns = ("phase", "steps", "rows", "tokens", "consumed and planned")
        console.print(table("The run logs against the plans", columns, rows))
    problems = [problem for one in found.values() for problem in one.problems]
    if problems:
        raise InputError(
            "the run log is not what was planned: " + "; ".join(problems),
            where=str(opened.graph.store),
            fix="the log or the plan was changed after training: `seodang why` names changed steps",
        )
