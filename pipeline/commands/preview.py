"""`seodang preview`: what each phase's mix would become, from length histograms alone, before anything is planned."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from mixes.preview import Lengths, Preview, lengths_of, preview
from mixes.spec import PlanConfig
from pipeline.commands.mixes import check_phase, encoded_catalogue, phase_names, plan_config
from pipeline.commands.plan import print_json
from pipeline.commands.terminal import console, table
from pipeline.core.errors import InputError, unknown_name
from pipeline.recipe import Opened, open_curriculum

COLUMNS = ("source", "tokens", "documents")


def show_preview(config: Path, phase: str, lengths: Path | None, overrides: Sequence[str], *, as_json: bool) -> None:
    """Print one phase's preview, or all phases'; every phase before it counts as taken."""
    opened = open_curriculum(config, overrides)
    if phase:
        check_phase(opened, phase)
    names = phase_names(opened)
    histograms = _from_csv(lengths) if lengths else _from_tables(opened)
    taken: dict[str, float] = {}
    found: list[Preview] = []
    for name in names[: names.index(phase) + 1] if phase else names:
        plan = plan_config(opened, name)
        one = preview(histograms(plan), plan, taken)
        for source in one.sources:
            taken[source.source] = taken.get(source.source, 0.0) + source.repeats
        if not phase or name == phase:
            found.append(one)
    if as_json:
        print_json([asdict(one) for one in found])
        return
    console.print(_phases(found))
    for one in found:
        console.print(_sources(one))


def _from_tables(opened: Opened) -> Callable[[PlanConfig], list[Lengths]]:
    catalogue = encoded_catalogue(opened)
    return lambda plan: lengths_of(catalogue, plan)


def _from_csv(path: Path) -> Callable[[PlanConfig], list[Lengths]]:
    """Histograms of a file with the columns source, tokens, documents; conditions over other columns do not apply."""
    try:
        reader = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig")))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read: {error}", where=str(path)) from None
    if not set(COLUMNS) <= set(reader.fieldnames or ()):
        raise InputError(f"columns must be {', '.join(COLUMNS)}", where=f"{path}:1", fix="web,512,1000000")
    counts: dict[str, dict[int, int]] = {}
    for row in reader:
        try:
            tokens, documents = int(row["tokens"]), int(row["documents"])
        except (TypeError, ValueError):
            tokens = documents = -1
        if tokens < 1 or documents < 0:
            raise InputError(
                "tokens and documents are whole numbers", where=f"{path}:{reader.line_num}", fix="512,1000"
            )
        of_source = counts.setdefault(row["source"], {})
        of_source[tokens] = of_source.get(tokens, 0) + documents
    return lambda plan: _by_component(counts, plan)


def _by_component(counts: dict[str, dict[int, int]], plan: PlanConfig) -> list[Lengths]:
    found = []
    for name, component in plan.mix.components.items():
        for pattern in component.from_:
            if not any(fnmatchcase(source, pattern) for source in counts):
                raise unknown_name("source in the file of lengths", pattern, counts, where=f"component `{name}`, from")
        for source in sorted(counts):
            if any(fnmatchcase(source, pattern) for pattern in component.from_):
                tokens = np.array(sorted(counts[source]), np.int64)
                documents = np.array([counts[source][length] for length in tokens.tolist()], np.int64)
                found.append(Lengths(name, source, tokens, documents))
    return found


def _phases(found: Sequence[Preview]) -> object:
    columns = (
        "phase", "context", "rows", "steps", "tokens", "fill", "padding", "documents/row", "unique tokens",
        "cut", "of promised whole", "left out",
    )  # fmt: skip
    rows = [
        (
            one.phase, f"{one.context_tokens:,}", f"{one.rows:,}", f"{one.steps:,}", f"{one.tokens:,}",
            f"{100 * one.fill:.3f}%", f"{one.padding_tokens:,}", f"{one.documents_per_row:,.1f}",
            f"{one.unique_tokens:,}", f"{one.cut_documents:,}", f"{one.whole_documents_cut:,}",
            f"{one.excluded_documents:,}",
        )
        for one in found
    ]  # fmt: skip
    return table("Preview: packed from length histograms", columns, rows)


def _sources(one: Preview) -> object:
    columns = (
        "component",
        "source",
        "tokens",
        "share",
        "available",
        "epochs",
        "epochs so far",
        "unique",
        "documents",
        "cut",
    )
    total = sum(source.tokens for source in one.sources) or 1
    rows = [
        (
            s.component, s.source, f"{s.tokens:,}", f"{100 * s.tokens / total:.2f}%", f"{s.available_tokens:,}",
            f"{s.repeats:.3f}×", f"{s.repeats_so_far:.3f}×", f"{s.unique_tokens:,}", f"{s.documents:,}",
            f"{s.cut_documents:,}",
        )
        for s in one.sources
    ]  # fmt: skip
    return table(f"\nPhase {one.phase}", columns, rows)
