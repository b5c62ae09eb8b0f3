"""Configuration of instruction sets: those our solvers answer (`instructions`), and files mapped into them (`ingest`).

The sets that ask an endpoint (`answers`, `grounded`) stand with the other endpoint sets in `synth/config.py`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from pipeline.core.config import Config
from pipeline.core.languages import LANGUAGES, Language

TaskDomain = Literal["mathematics", "code", "logic", "long-context", "instruction-following", "korean"]
TASK_DOMAINS: tuple[TaskDomain, ...] = (
    "mathematics", "code", "logic", "long-context", "instruction-following", "korean",
)  # fmt: skip
Form = Literal["reasoning", "plain"]


class FormShares(Config):
    """Samples with a filled thinking block and samples with an empty one, as weights."""

    # EXAONE 4.0 (arXiv 2507.11407) trains 1.5 reasoning tokens for one of the other form; these count samples.
    reasoning: float = Field(default=0.6, ge=0)
    plain: float = Field(default=0.4, ge=0)

    @model_validator(mode="after")
    def _one_is_wanted(self) -> FormShares:
        if self.reasoning + self.plain <= 0:
            message = "forms needs a share above 0 for `reasoning` or `plain`"
            raise ValueError(message)
        return self


class ExerciseConfig(Config):
    """What exercises are drawn from; shared by the sets that our solvers and that an endpoint answers."""

    domains: tuple[TaskDomain, ...] = Field(default=TASK_DOMAINS, min_length=1)
    languages: tuple[Language, ...] = Field(default=LANGUAGES, min_length=1)  # `korean` is in Korean whatever these are
    minimum_level: int = Field(default=1, ge=1, le=5)
    maximum_level: int = Field(default=5, ge=1, le=5)
    minimum_tokens: int = Field(default=512, ge=64)  # of long-context inputs, estimated
    maximum_tokens: int = Field(default=4096, ge=64, le=1_000_000)
    system_permille: int = Field(default=300, ge=0, le=1000)  # conversations that begin with a system prompt

    @model_validator(mode="after")
    def _ranges_are_ordered(self) -> ExerciseConfig:
        for name in ("level", "tokens"):
            low, high = getattr(self, f"minimum_{name}"), getattr(self, f"maximum_{name}")
            if low > high:
                message = f"minimum_{name} {low} is above maximum_{name} {high}"
                raise ValueError(message)
        return self


class InstructionsConfig(ExerciseConfig):
    """Instructions with answers from our own solvers, each verified (`synth/instructions/work.py`)."""

    kind: Literal["instructions"]
    documents: int = Field(ge=1)
    forms: FormShares = FormShares()
    seed: int = Field(default=0, ge=0)
    documents_per_shard: int = Field(default=2000, ge=1)
