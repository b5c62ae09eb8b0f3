"""What a person asks of a classifier: labels with their sources, languages, training, and how scores are bucketed.

Contract: `ClassifierSpec` is a YAML file for `seodang classifier train`. With the two labels `positive` and `negative`
it is a quality classifier: one score, the calibrated chance of `positive`, and a bucket. With any other labels it tells
domains apart: a score a label.
"""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from pipeline.core.config import Config
from stages.classifier.train import TrainConfig
from stages.config import ReadConfig

POSITIVE, NEGATIVE = "positive", "negative"


class LabelConfig(Config):
    """The documents of one label."""

    sources: tuple[ReadConfig, ...] = Field(min_length=1)
    maximum_documents: int | None = Field(default=None, gt=0)  # a language, the first by hash of their text


class ClassifierSpec(Config):
    """A classifier: one model for each language."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")  # of the signal columns
    labels: dict[str, LabelConfig] = Field(min_length=2)
    languages: tuple[str, ...] = Field(min_length=1)  # documents of others are left out
    train: TrainConfig = TrainConfig()
    buckets: int = Field(default=5, ge=2)  # of a quality score, equally wide in calibrated chance
    minimum_documents: int = Field(default=50, ge=10)  # of each label and language

    @model_validator(mode="after")
    def _labels_fit(self) -> Self:
        bad = [label for label in self.labels if not label.replace("_", "").replace("-", "").isalnum()]
        if bad:
            message = f"labels are letters, digits, `_` and `-`; not {', '.join(map(repr, bad))}"
            raise ValueError(message)
        if len({POSITIVE, NEGATIVE} & set(self.labels)) == 1:
            message = f"`{POSITIVE}` and `{NEGATIVE}` come together: a quality classifier has both"
            raise ValueError(message)
        return self
