"""One fastText model from labelled lines: trained until it is sound.

Contract: `train_file` writes a model file whose matrices and predictions hold no NaN, or raises; the same lines give
the same bytes on the same machine. The library reads memory that it has not set (measured: glibc's `MALLOC_PERTURB_`
changes the model, and in a process that had trained before up to half of the trainings gave NaN). Each attempt is
therefore a process of its own whose C library hands out zeroed memory, with one thread and a seed of its own; learning
rates above 0.1, which break it too, are refused. Method: Joulin et al. 2017, arXiv:1607.01759.
Cost: about 1 MB of lines a second and epoch, half a second to start; the file has `buckets` x `dimension` x 4 bytes.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
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
ZEROED_MEMORY = {"MALLOC_PERTURB_": "255"}  # glibc sets what it hands out to the complement: zeros
GAVE_NAN = 3  # exit status of an attempt
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
    import fasttext

    with TemporaryDirectory() as scratch:
        made = Path(scratch) / target.name
        for attempt in range(ATTEMPTS):
            if not _attempt(lines, made, config.replaced(seed=config.seed + attempt)):
                continue
            if is_sound(fasttext.load_model(str(made)), lines):
                with atomic_path(target) as partial:
                    shutil.copyfile(made, partial)
                return attempt + 1
    raise InputError(
        f"{ATTEMPTS} trainings gave NaN",
        where=str(lines),
        fix="give more or longer documents, or a smaller `learning_rate`",
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


def _attempt(lines: Path, target: Path, config: TrainConfig) -> bool:
    """Train in a process of its own; False when it gave NaN."""
    command = [sys.executable, "-m", "stages.classifier.train", str(lines), str(target), config.model_dump_json()]
    root = Path(__file__).parents[2]
    paths = os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, **ZEROED_MEMORY, "PYTHONPATH": paths}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode not in (0, GAVE_NAN):
        message = f"fastText's training ended with status {done.returncode}: {done.stderr.strip()[-2000:]}"
        raise RuntimeError(message)
    return done.returncode == 0


def main() -> int:
    """One attempt: the lines, the model to write, the options."""
    import fasttext

    lines, target, options = sys.argv[1:]
    config = TrainConfig.model_validate_json(options)
    try:
        model = fasttext.train_supervised(
            lines, lr=config.learning_rate, epoch=config.epochs, dim=config.dimension,
            wordNgrams=config.word_grams, minn=config.minimum_piece, maxn=config.maximum_piece,
            bucket=config.buckets, minCount=config.minimum_count, thread=1, seed=config.seed, verbose=0,
        )  # fmt: skip
    except RuntimeError as error:
        if "NaN" not in str(error):
            raise
        return GAVE_NAN
    model.save_model(target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
