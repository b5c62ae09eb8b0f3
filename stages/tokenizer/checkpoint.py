"""How far a training is, kept in one small file: a killed training goes on where it was and gives the same bytes.

Contract: the file is replaced as a whole, at most every `KEPT_SECONDS`, and belongs to one training: same counts, same
plan, same start. It holds the merges made so far, which are replayed (without choosing, about twice as fast as they
were made), what quotas have been used up, which pairs were refused, and at which attempt stage 2 is. Cost: 12 bytes a
merge, 8 a refused pair.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pipeline.core.files import atomic_path
from stages.tokenizer.merging import Progress

KEPT_SECONDS = 10.0
WORDS, SUPERWORDS = "words", "superwords"
PARTS = ("merges", "by_class", "by_column", "vetoed")


@dataclass(frozen=True)
class Attempt:
    """What stage 2 is trying: phrases cut at this count, quotas by class."""

    minimum_count: int
    quotas: tuple[int, ...]


@dataclass
class Checkpoint:
    """The file and what it says; without a file nothing is kept."""

    file: Path | None = None
    kept: float = field(default_factory=time.monotonic)
    stages: dict[str, Progress] = field(default_factory=dict[str, Progress])
    attempt: Attempt | None = None

    @classmethod
    def opened(cls, file: Path) -> Checkpoint:
        """What `file` says, or nothing yet."""
        checkpoint = cls(file)
        if file.is_file():
            with np.load(file) as saved:
                arrays: Mapping[str, np.ndarray] = {name: saved[name] for name in saved.files}
            for stage in (WORDS, SUPERWORDS):
                if f"{stage}.merges" in arrays:
                    checkpoint.stages[stage] = Progress(*(arrays[f"{stage}.{part}"] for part in PARTS))
            if "attempt" in arrays:
                count, *quotas = arrays["attempt"].tolist()
                checkpoint.attempt = Attempt(count, tuple(quotas))
        return checkpoint

    def tell(self, stage: str, progress: Callable[[], Progress]) -> None:
        """Keep how far `stage` is, when it is time; a stage that replays what is kept keeps nothing."""
        if self.file is None or time.monotonic() - self.kept < KEPT_SECONDS:
            return
        now, before = progress(), self.stages.get(stage)
        if before is None or len(now.merges) > len(before.merges):
            self.stages[stage] = now
            self._write()
            self.kept = time.monotonic()

    def begin(self, attempt: Attempt) -> Progress | None:
        """How far stage 2 is with this attempt; what another one reached is dropped."""
        if attempt != self.attempt:
            self.attempt = attempt
            self.stages.pop(SUPERWORDS, None)
        return self.stages.get(SUPERWORDS)

    def finish_words(self, progress: Progress) -> None:
        """Stage 1 is done: from now on its merges are kept whole."""
        self.stages[WORDS] = progress

    def remove(self) -> None:
        """The training is finished and its outputs are written."""
        if self.file is not None:
            self.file.unlink(missing_ok=True)

    def _write(self) -> None:
        assert self.file is not None
        arrays = {
            f"{stage}.{part}": getattr(progress, part) for stage, progress in self.stages.items() for part in PARTS
        }
        if self.attempt is not None:
            arrays["attempt"] = np.array([self.attempt.minimum_count, *self.attempt.quotas], np.int64)
        with atomic_path(self.file) as partial, partial.open("wb") as handle:
            np.savez(handle, **arrays)
