"""Training a whole classifier: gather, train a model a language, calibrate, measure on held-out documents.

Contract: the folder gets `LANG.bin` for each language, `report.json`, and `classifier.json` last. An eighth of the
trained number is used to calibrate, another to report; no document stands on two sides.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import orjson

from pipeline.core.files import hash_file, write_bytes
from stages.classifier.calibrate import Calibration, buckets, isotonic, roc
from stages.classifier.gather import Example, gather
from stages.classifier.model import (
    CLASSIFIER_FILE,
    REPORT_FILE,
    ClassifierRecord,
    Knots,
    LanguageModel,
    raw_scores,
)
from stages.classifier.spec import POSITIVE, ClassifierSpec
from stages.classifier.train import train_file, write_lines

SHEET_EXAMPLES = 5  # a kind and language
SHEET_CHARACTERS = 300


def train_classifier(spec: ClassifierSpec, base: Path, folder: Path) -> dict[str, Any]:
    """Train into a folder; returns the report. Paths in `spec` start at `base`."""
    examples, left_out = gather(spec, base)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CLASSIFIER_FILE).unlink(missing_ok=True)  # until it is written again nothing fits
    languages: dict[str, LanguageModel] = {}
    reports: dict[str, Any] = {}
    for lang in spec.languages:
        own = [one for one in examples if one.lang == lang]
        languages[lang], reports[lang] = _language(spec, lang, own, folder)
    report = {"name": spec.name, "left_out": dict(sorted(left_out.items())), "languages": reports}
    write_bytes(folder / REPORT_FILE, orjson.dumps(report, option=orjson.OPT_INDENT_2))
    record = ClassifierRecord(spec=spec, languages=languages)
    write_bytes(folder / CLASSIFIER_FILE, record.model_dump_json(indent=2, by_alias=True).encode())
    return report


def _language(
    spec: ClassifierSpec, lang: str, examples: Sequence[Example], folder: Path
) -> tuple[LanguageModel, dict[str, Any]]:
    import fasttext

    path = folder / f"{lang}.bin"
    with TemporaryDirectory() as scratch:
        lines = Path(scratch) / "train.txt"
        write_lines(lines, ((one.label, one.text) for one in examples if one.part == "train"))
        attempts = train_file(lines, path, spec.train)
    model = fasttext.load_model(str(path))
    parts = {part: [one for one in examples if one.part == part] for part in ("calibrate", "report")}
    scores = {part: raw_scores(model, [one.text for one in own], tuple(spec.labels)) for part, own in parts.items()}
    calibrations: dict[str, Calibration] = {}
    for label in spec.labels:
        raw = scores["calibrate"][label]
        known = ~np.isnan(raw)
        calibrations[label] = isotonic(raw[known], _truth(parts["calibrate"], label)[known])
    chances = {label: calibrations[label](scores["report"][label]) for label in spec.labels}
    knots = {label: Knots(raw=tuple(one.raw), chance=tuple(one.chance)) for label, one in calibrations.items()}
    stored = LanguageModel(content=hash_file(path), attempts=attempts, calibrations=knots)
    return stored, {
        "attempts": attempts,
        "documents": _documents(examples),
        "labels": {label: _label(chances[label], _truth(parts["report"], label)) for label in spec.labels},
        "right": _share_right(parts["report"], chances),
        "buckets": _buckets(spec, parts["report"], chances),
        "sheet": _sheet(parts["report"], chances),
    }


def _truth(examples: Sequence[Example], label: str) -> np.ndarray:
    return np.array([one.label == label for one in examples], bool)


def _documents(examples: Sequence[Example]) -> dict[str, dict[str, int]]:
    counts = Counter((one.part, one.label) for one in examples)
    found: dict[str, dict[str, int]] = {}
    for (part, label), count in sorted(counts.items()):
        found.setdefault(part, {})[label] = count
    return found


def _label(chances: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """ROC and how far chances are from frequencies (Brier score) of one label against the rest."""
    known = ~np.isnan(chances)
    curve = roc(chances[known], truth[known])
    return {**asdict(curve), "brier": float(np.mean((chances[known] - truth[known]) ** 2))}


def _share_right(examples: Sequence[Example], chances: Mapping[str, np.ndarray]) -> float:
    labels = list(chances)
    stacked = np.nan_to_num(np.stack([chances[label] for label in labels], axis=1), nan=-1.0)
    best = stacked.argmax(axis=1)
    return float(np.mean([labels[at] == one.label for at, one in zip(best, examples, strict=True)]))


def _buckets(
    spec: ClassifierSpec, examples: Sequence[Example], chances: Mapping[str, np.ndarray]
) -> list[dict[str, float]]:
    """Of a quality classifier: held-out documents in each bucket, and the share that is positive."""
    if POSITIVE not in chances:
        return []
    numbers, truth = buckets(chances[POSITIVE], spec.buckets), _truth(examples, POSITIVE)
    rows: list[dict[str, float]] = []
    for number in range(spec.buckets):
        inside = numbers == number
        share = float(truth[inside].mean()) if inside.any() else 0.0
        rows.append({"bucket": number, "documents": int(inside.sum()), "positive": share})
    return rows


def _sheet(examples: Sequence[Example], chances: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """Examples to read: for each label the surest right ones, and the surest mistakes."""
    rows: list[dict[str, Any]] = []
    for label, scores in chances.items():
        order = np.argsort(-np.nan_to_num(scores, nan=-1.0), kind="stable").tolist()
        for kind, wanted in (("right", True), ("wrong", False)):
            own = [at for at in order if (examples[at].label == label) == wanted][:SHEET_EXAMPLES]
            rows.extend(
                {
                    "taken_for": label,
                    "is": examples[at].label,
                    "kind": kind,
                    "chance": float(scores[at]),
                    "text": " ".join(examples[at].text.split())[:SHEET_CHARACTERS],
                }
                for at in own
                if not np.isnan(scores[at]) and (wanted or scores[at] >= 0.5)
            )
    return rows
