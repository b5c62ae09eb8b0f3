"""Classifiers: how well the models behind scores and domains do on documents held out of their training.

Contract: figures are the facts `classifier` and `toxicity` of finished steps' records, as `seodang classifier train`
measured them: ROC curves, Brier score, buckets, and example sheets to read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.report.charts import add_line, chart, line_chart
from pipeline.report.gather import Gathered
from pipeline.report.markup import Cell, Markup, Share, folded, missing, section, table

FACTS = ("classifier", "toxicity")
CURVE_PIXELS = 360


def classifiers_section(gathered: Gathered) -> Markup:
    """Every classifier that a finished step scored documents with."""
    introduction = (
        "Models of `seodang classifier train`, measured on documents that neither trained nor calibrated them. "
        "A score is a calibrated chance: of the documents in a bucket about so many should be positive."
    )
    found = classifiers(gathered)
    if not found:
        return section("classifiers", "Classifiers", introduction, missing("No finished step scores documents."))
    parts = [part for name, one in found.items() for part in _classifier(name, one)]
    return section("classifiers", "Classifiers", introduction, *parts)


def classifiers(gathered: Gathered) -> dict[str, Mapping[str, Any]]:
    """Name -> report, of all steps; the same classifier stands in the records of all sources' steps."""
    facts = [step.record.facts for step in gathered.steps if step.record is not None]
    return dict(sorted((name, one) for fact in facts for key in FACTS for name, one in fact.get(key, {}).items()))


def _classifier(name: str, report: Mapping[str, Any]) -> list[Markup]:
    languages: Mapping[str, Any] = report["languages"]
    return [
        _areas(name, languages),
        _curves(name, languages),
        *_buckets(name, languages),
        _sheets(name, languages),
    ]


def _areas(name: str, languages: Mapping[str, Any]) -> Markup:
    rows: list[tuple[Cell, ...]] = [
        (lang, label, one["documents"].get("report", {}).get(label, 0), f"{own['area']:.3f}", f"{own['brier']:.3f}",
         f"{one['right']:.3f}")
        for lang, one in sorted(languages.items())
        for label, own in one["labels"].items()
    ]  # fmt: skip
    columns = ("language", "label", "held-out documents", "ROC area", "Brier score", "likeliest label right")
    return table(f"Classifier {name}", columns, rows)


def _curves(name: str, languages: Mapping[str, Any]) -> Markup:
    figure = line_chart("false positive rate", "true positive rate")
    lines = [(lang, label, own) for lang, one in sorted(languages.items()) for label, own in one["labels"].items()]
    if all(set(one["labels"]) == {"positive", "negative"} for one in languages.values()):
        lines = [line for line in lines if line[1] == "positive"]  # the other is its mirror
    for place, (lang, label, own) in enumerate(lines):
        add_line(figure, f"{lang} {label}", own["false_positive_rate"], own["true_positive_rate"], place)
    caption = "A curve along the upper left parts every positive from every negative; the diagonal is chance."
    return chart(f"roc-{name}", f"ROC of {name}", figure, caption, CURVE_PIXELS)


def _buckets(name: str, languages: Mapping[str, Any]) -> list[Markup]:
    rows: list[tuple[Cell, ...]] = [
        (lang, bucket["bucket"], bucket["documents"], Share(bucket["positive"], 1))
        for lang, one in sorted(languages.items())
        for bucket in one["buckets"]
    ]
    columns = ("language", "bucket", "held-out documents", "positive")
    return [table(f"Buckets of {name}", columns, rows)] if rows else []


def _sheets(name: str, languages: Mapping[str, Any]) -> Markup:
    rows: list[tuple[Cell, ...]] = [
        (lang, row["kind"], row["taken_for"], row["is"], f"{row['chance']:.2f}", row["text"])
        for lang, one in sorted(languages.items())
        for row in _ordered(one["sheet"])
    ]
    columns = ("language", "", "taken for", "is", "chance", "text")
    return folded(f"Examples to read: {len(rows)}", table(f"Example sheets of {name}", columns, rows))


def _ordered(sheet: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Mistakes first: they say most about a model."""
    return sorted(sheet, key=lambda row: row["kind"] != "wrong")
