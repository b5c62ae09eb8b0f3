"""A trained classifier's folder: `LANG.bin`, `classifier.json`, `report.json`; loading it and scoring with it.

Contract: `classifier.json` is written last and has the content hash of every model. A model that was trained again, or
copied over, at the same path does not fit it and is refused: its calibration is another's. Scores are calibrated
chances; a document in a language without a model, or without words, has none (NaN).
Cost: about 5 MB/s a core; 13 MB of memory a model at the default size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core.config import Config, load_config
from pipeline.core.errors import InputError
from pipeline.core.files import hash_file
from stages.classifier.calibrate import Calibration, buckets
from stages.classifier.spec import POSITIVE, ClassifierSpec
from stages.classifier.train import LABEL, line

CLASSIFIER_FILE = "classifier.json"
REPORT_FILE = "report.json"
COLUMN_VERSION = 1


class Knots(Config):
    """A calibration as stored."""

    raw: tuple[float, ...]
    chance: tuple[float, ...]


class LanguageModel(Config):
    """One language's model as stored."""

    content: str  # hash of the file
    attempts: int  # trainings until one had no NaN
    calibrations: dict[str, Knots]  # by label


class ClassifierRecord(Config):
    """`classifier.json`."""

    spec: ClassifierSpec
    languages: dict[str, LanguageModel]


class Classifier:
    """A loaded classifier."""

    def __init__(self, record: ClassifierRecord, models: Mapping[str, Any]) -> None:
        self.spec = record.spec
        self._record = record
        self._models = models

    @classmethod
    def load(cls, folder: Path) -> Classifier:
        """Raises `InputError` for a folder that is no classifier, or whose models were replaced."""
        return cls.load_files([*sorted(folder.glob("*.bin")), folder / CLASSIFIER_FILE])

    @classmethod
    def load_files(cls, files: Sequence[Path]) -> Classifier:
        """The same from the folder's files."""
        import fasttext

        record = read_record([file for file in files if file.name == CLASSIFIER_FILE])
        by_name = {file.name: file for file in files}
        models: dict[str, Any] = {}
        for lang, model in record.languages.items():
            path = by_name.get(f"{lang}.bin")
            if path is None or not path.is_file():
                raise InputError("the classifier's model is missing", where=f"{lang}.bin", fix="train it again")
            if hash_file(path) != model.content:
                raise InputError(
                    "the model is not the one that was calibrated: it was trained again or replaced",
                    where=str(path),
                    fix="run `seodang classifier train` again, which also calibrates",
                )
            models[lang] = fasttext.load_model(str(path))
        return cls(record, models)

    def columns(self) -> list[str]:
        """Names of the signals, without their version."""
        name = self.spec.name
        if POSITIVE in self.spec.labels:
            return [name, f"{name}_bucket"]
        return [f"{name}_{label}" for label in self.spec.labels]

    def signals(self, texts: Sequence[str], langs: Sequence[str | None]) -> dict[str, np.ndarray]:
        """[texts] float64 of every column."""
        chances = self.chances(texts, langs)
        if POSITIVE in self.spec.labels:
            found = [chances[POSITIVE], buckets(chances[POSITIVE], self.spec.buckets)]
        else:
            found = [chances[label] for label in self.spec.labels]
        return dict(zip(self.columns(), found, strict=True))

    def chances(self, texts: Sequence[str], langs: Sequence[str | None]) -> dict[str, np.ndarray]:
        """[texts] calibrated chances of every label."""
        found = {label: np.full(len(texts), np.nan) for label in self.spec.labels}
        for lang, model in self._record.languages.items():
            rows = [row for row, own in enumerate(langs) if own == lang]
            if not rows:
                continue
            raw = raw_scores(self._models[lang], [texts[row] for row in rows], tuple(self.spec.labels))
            for label, scores in raw.items():
                knots = model.calibrations[label]
                found[label][rows] = Calibration(knots.raw, knots.chance)(scores)
        return found


def raw_scores(model: Any, texts: Sequence[str], labels: Sequence[str]) -> dict[str, np.ndarray]:
    """[texts] probabilities that a fastText model gives each label; NaN for a text without words."""
    scores = {label: np.full(len(texts), np.nan) for label in labels}
    lines = [line(text) for text in texts]
    filled = [row for row, one in enumerate(lines) if one]
    if not filled:
        return scores
    found, chances = model.predict([lines[row] for row in filled], k=-1)
    for row, names, values in zip(filled, found, chances, strict=True):
        for name, value in zip(names, values, strict=True):
            scores[name.removeprefix(LABEL)][row] = min(1.0, float(value))
    return scores


def read_record(files: Sequence[Path]) -> ClassifierRecord:
    """The record among a classifier's files."""
    if not files or not files[0].is_file():
        raise InputError(
            f"no {CLASSIFIER_FILE}",
            where=str(files[0]) if files else "model",
            fix="give the folder that `seodang classifier train` wrote",
        )
    return load_config(files[0], ClassifierRecord)  # JSON is YAML
