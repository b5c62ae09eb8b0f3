"""Benchmarks: which evaluation sets were searched for, which of their items were quoted, and by how many documents.

Contract: figures are the facts `decontamination` of finished steps' records; the items that most documents quote are
from the steps' own item tables, a bounded number of them.
"""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.report.gather import Gathered, StepFacts
from pipeline.report.markup import Cell, Markup, folded, missing, section, table

FACT = "decontaminate"
TOP_ITEMS = 50


def contamination_section(gathered: Gathered) -> Markup:
    """Every step that looked for benchmark items."""
    introduction = (
        "Evaluation items that documents quote; such documents are dropped. `seodang peek CONFIG STEP "
        "--table decontamination` shows each of them with the place of its quotation."
    )
    done = [step for step in gathered.steps if step.record is not None and FACT in step.record.facts]
    if not done:
        return section(
            "benchmarks", "Benchmarks", introduction, missing("No finished step looked for benchmark items.")
        )
    return section("benchmarks", "Benchmarks", introduction, _by_benchmark(done), _items(done))


def _facts(step: StepFacts) -> Mapping[str, Mapping[str, int]]:
    assert step.record is not None
    return step.record.facts[FACT]


def _by_benchmark(steps: list[StepFacts]) -> Markup:
    rows: list[tuple[Cell, ...]] = [
        (step.name, name, found["items"], found["too_short"], found["items_quoted"], found["documents"])
        for step in steps
        for name, found in _facts(step).items()
    ]
    columns = ("step", "benchmark", "items", "too short to search", "items quoted", "documents dropped")
    return table("Benchmarks by step", columns, rows)


def _items(steps: list[StepFacts]) -> Markup:
    quoted = sorted(
        ((-int(row["documents"]), step.name, str(row["item"]), str(row["record"]), str(row["field"])) for step in steps
         for row in step.quoted_items),
    )[:TOP_ITEMS]  # fmt: skip
    if not quoted:
        return missing("No document quotes an item.")
    rows: list[tuple[Cell, ...]] = [(name, item, record, field, -count) for count, name, item, record, field in quoted]
    columns = ("step", "item", "record", "field", "documents")
    return folded(f"The {len(rows)} most quoted items", table("Items by documents that quote them", columns, rows))
