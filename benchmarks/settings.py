"""What a run of the benchmarks was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

SizeName = Literal["full", "quick"]


@dataclass(frozen=True)
class Settings:
    """Given to every benchmark."""

    size: SizeName = "full"  # `quick` shows that a benchmark works; its figures mean nothing
    checkpoint: Path | None = None  # of a trained model, where a benchmark can use one
