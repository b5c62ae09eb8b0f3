"""The `classifier` block: a trained classifier's scores as signals, its domains as the domain column.

Contract: signals `NAME@1` and `NAME_bucket@1` (quality), or `NAME_LABEL@1` (domains): null without a model for the
document's language. `fill_domain` says when a domain classifier's likeliest label, if its chance reaches
`minimum_domain`, becomes the document's domain (`missing`: where it has none, or `general`, which is what a source card
says that does not know). `minimum` drops by language what scores lower: `classifier.NAME`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from pipeline.core.config import Config
from pipeline.core.errors import ConfigError
from pipeline.core.provenance import SourceTerms
from stages.block import Dropped, Outcome, outcome, with_columns
from stages.classifier.model import COLUMN_VERSION, Classifier
from stages.classifier.spec import POSITIVE
from stages.classifier.train import LINE_CHARACTERS
from stages.long_texts import beginnings

UNKNOWN_DOMAIN = SourceTerms.model_fields["domain"].default


class ClassifierConfig(Config):
    """Options of the `classifier` block."""

    model: tuple[str, ...] = ()  # the classifier's files: `FOLDER/*.bin` and `FOLDER/classifier.json`
    minimum: dict[str, float] = Field(default_factory=dict)  # by language, or `default`; of a quality score
    fill_domain: Literal["never", "missing", "always"] = "never"
    minimum_domain: float = Field(default=0.5, ge=0.0, le=1.0)  # ours


class ClassifierBlock:
    """The block."""

    def __init__(self, config: ClassifierConfig, classifier: Classifier) -> None:
        quality = POSITIVE in classifier.spec.labels
        if config.minimum and not quality:
            raise ConfigError(
                f"`{classifier.spec.name}` tells domains apart and has no quality score",
                where="classifier.minimum",
                fix="use `fill_domain`, and select by domain in the mix",
            )
        if config.fill_domain != "never" and quality:
            raise ConfigError(
                f"`{classifier.spec.name}` is a quality classifier and knows no domains",
                where="classifier.fill_domain",
                fix="use `minimum`, or select by quality in the mix",
            )
        self._config = config
        self._classifier = classifier

    def apply(self, documents: pa.Table) -> Outcome:
        langs: list[str | None] = documents["lang"].to_pylist()
        found = self._classifier.signals(beginnings(documents["text"], LINE_CHARACTERS), langs)
        columns: dict[str, pa.Array | pa.ChunkedArray] = {"id": documents["id"]}
        for name, values in found.items():
            columns[f"{name}@{COLUMN_VERSION}"] = pa.array(values, pa.float64(), from_pandas=True)
        dropped = self._dropped(found, langs)
        return outcome(self._with_domains(documents, found), dropped, signals=pa.table(columns))

    def _dropped(self, found: Mapping[str, np.ndarray], langs: list[str | None]) -> list[Dropped]:
        if not self._config.minimum:
            return []
        name = self._classifier.spec.name
        dropped: list[Dropped] = []
        for row, (lang, score) in enumerate(zip(langs, found[name].tolist(), strict=True)):
            least = self._config.minimum.get(lang or "", self._config.minimum.get("default"))
            if least is not None and score < least:  # NaN is never less
                dropped.append(Dropped(row, f"classifier.{name}", f"{score:.3f}, threshold {least:g}"))
        return dropped

    def _with_domains(self, documents: pa.Table, found: Mapping[str, np.ndarray]) -> pa.Table:
        if self._config.fill_domain == "never":
            return documents
        labels = list(self._classifier.spec.labels)
        chances = np.nan_to_num(np.stack([found[name] for name in self._classifier.columns()], axis=1), nan=-1.0)
        best, surest = chances.argmax(axis=1), chances.max(axis=1)
        domains: list[str | None] = documents["domain"].to_pylist()
        for row, domain in enumerate(domains):
            known = self._config.fill_domain == "missing" and domain not in (None, UNKNOWN_DOMAIN)
            if surest[row] >= self._config.minimum_domain and not known:
                domains[row] = labels[int(best[row])]
        return with_columns(documents, {"domain": domains})


def make(config: ClassifierConfig, paths: Mapping[str, tuple[str, ...]]) -> ClassifierBlock:
    """Catalog entry; `paths["model"]` are the classifier's files."""
    files = paths.get("model", ())
    if not files:
        raise ConfigError(
            "the block needs a trained classifier",
            where="classifier.model",
            fix="[FOLDER/*.bin, FOLDER/classifier.json], from `seodang classifier train`",
        )
    return ClassifierBlock(config, Classifier.load_files([Path(file) for file in files]))
