"""One fastText model from labelled lines: trained until it is sound.

Contract: `train_file` writes a model file whose matrices and predictions hold no NaN, or raises. Training of this
library gives NaN now and then: at learning rates above 0.1, and nearly always when its matrices are tiny (few words, no
n-gram buckets); with sub-word pieces of 2-4 letters in 200,000 buckets it was never seen (measured). Every attempt has
a seed of its own, one thread, so that the same lines give the same model. Method: Joulin et al. 2017, arXiv:1607.01759.
Cost: about 1 MB of lines a second and epoch; the file has `buckets` x `dimension` x 4 bytes.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from pipeline.core.config import Config
from pipeline.core.errors import InputError
from pipeline.core.files import atomic_path

LABEL = "__label__"
ATTEMPTS = 8
LINE_CHARACTERS = 4000  # of a document that a classifier sees; ours
CHECKED_LINES = 50
# Scripts written without spaces: each character is a word, and word pairs are what fastText makes of them.
_UNSPACED = re.compile(r"([\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff])")


class TrainConfig(Config):
    """Options of training."""

    learning_rate: float = Field(default=0.1, gt=0.0, le=0.1)  # above 0.1 training breaks (measured)
    epochs: int = Field(default=5, ge=1)
    dimension: int = Field(default=16, ge=1)
    word_grams: int = Field(default=2, ge=1)
    minimum_piece: int = Field(default=2, ge=0)  # letters
    maximum_piece: int = Field(default=4, ge=0)
    buckets: int = Field(default=200_000, ge=1)
    minimum_count: int = Field(default=1, ge=1)  # of a word
    seed: int = Field(default=0, ge=0)


def line(text: str) -> str:
    """A document as a classifier sees it: one line, lower case, NFC, unspaced scripts character by character."""
    folded = unicodedata.normalize("NFC", text[:LINE_CHARACTERS]).lower()
    spaced = _UNSPACED.sub(r" \1 ", folded.replace(LABEL, " "))
    return " ".join(spaced.split())


def write_lines(path: Path, labelled: Iterable[tuple[str, str]]) -> int:
    """Write (label, text) pairs as a training file; returns how many."""
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for label, text in labelled:
            file.write(f"{LABEL}{label} {line(text)}\n")
            count += 1
    return count


def train_file(lines: Path, target: Path, config: TrainConfig) -> int:
    """Train on a file of labelled lines and write the model; returns how many attempts it took.

    Raises:
        InputError: Every attempt gave NaN.
    """
    for attempt in range(ATTEMPTS):
        model = _attempt(lines, config, config.seed + attempt)
        if model is not None and is_sound(model, lines):
            with atomic_path(target) as partial:
                model.save_model(str(partial))
            return attempt + 1
    raise InputError(
        f"{ATTEMPTS} trainings gave NaN",
        where=str(lines),
        fix="give more or longer documents, or smaller `learning_rate`; `buckets` of 200000 and pieces of 2-4 help",
    )


def is_sound(model: Any, lines: Path) -> bool:
    """Whether matrices and the predictions of the first lines are finite."""
    for matrix in (model.get_input_matrix(), model.get_output_matrix()):
        if not np.isfinite(matrix).all():
            return False
    with lines.open(encoding="utf-8") as file:
        texts = [text.partition(" ")[2].rstrip("\n") for text, _ in zip(file, range(CHECKED_LINES), strict=False)]
    _, scores = model.predict(texts, k=-1)
    return all(np.isfinite(score).all() for score in scores)


def _attempt(lines: Path, config: TrainConfig, seed: int) -> Any:
    import fasttext

    try:
        return fasttext.train_supervised(
            str(lines), lr=config.learning_rate, epoch=config.epochs, dim=config.dimension,
            wordNgrams=config.word_grams, minn=config.minimum_piece, maxn=config.maximum_piece,
            bucket=config.buckets, minCount=config.minimum_count, thread=1, seed=seed, verbose=0,
        )  # fmt: skip
    except RuntimeError as error:
        if "NaN" not in str(error):
            raise
        return None
