"""What the configurations of all synthetic sets share: the languages they are made in, and the judge."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline.core.config import Config

Language = Literal["ko", "en", "es", "de", "ja", "vi"]
LANGUAGES: tuple[Language, ...] = ("ko", "en", "es", "de", "ja", "vi")


class JudgeConfig(Config):
    """A model that grades samples which passed every other check (`synth/judge.py`)."""

    permille: int = Field(default=0, ge=0, le=1000)  # how many of a thousand samples it sees
    minimum: int = Field(default=3, ge=1, le=5)  # the lowest of its grades that stays; ours
