"""What the configurations of several kinds of set share.

Contract: part of a set's identity. Every kind of set that has `from:` is a `SourcedConfig`, so that reviews, selection
and the graph find its sources in one place. Apart from `synth/config.py`, so that rooms with configurations of their
own build on it without knowing the list of all sets.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from pipeline.core.config import Config
from pipeline.core.languages import LANGUAGES, Language

# Which samples of a finished set go: equal ones, ones whose written text is nearly the same, or none.
Deduplicate = Literal["none", "exact", "minhash"]


class SourcedConfig(Config):
    """Fields of a set that is made from cleaned documents."""

    from_: tuple[str, ...] = Field(alias="from", min_length=1)  # patterns of source names, as in `web-*`
    languages: tuple[Language, ...] = Field(default=LANGUAGES, min_length=1)
    domains: tuple[str, ...] = ()  # of these domains only; empty: of every domain
    documents: int = Field(default=1_000_000, ge=1)  # at most this many documents (or groups) are taken
    seed: int = Field(default=0, ge=0)  # which ones, when there are more
    documents_per_shard: int = Field(default=1000, ge=1)
    deduplicate: Deduplicate = "none"  # joined documents are as distinct as those they are made of

    @field_validator("from_", mode="before")
    @classmethod
    def _one_is_a_tuple(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value


def refuse_unused(config: Config, why: str, instead: str, *names: str) -> None:
    """Raises `ValueError` for options that are set where nothing reads them: they would change nothing but the set's
    identity, and make it again."""
    fields = type(config).model_fields
    unused = [name for name in names if getattr(config, name) != fields[name].default]
    if unused:
        message = f"{why}, so `{unused[0]}` changes nothing: remove it, or {instead}"
        raise ValueError(message)


def refuse_sampling(config: Config, *names: str) -> None:
    """Raises `ValueError` for sampling options that are set where no model writes."""
    refuse_unused(config, "no model writes here", "let the endpoint play a part", *names)


class JudgeConfig(Config):
    """A model that grades samples which passed every other check (`synth/judge.py`)."""

    permille: int = Field(default=0, ge=0, le=1000)  # how many of a thousand samples it sees
    minimum: int = Field(default=3, ge=1, le=5)  # the lowest of its grades that stays; ours

    @model_validator(mode="after")
    def _a_minimum_needs_samples_to_judge(self) -> JudgeConfig:
        if not self.permille:
            refuse_unused(self, "no sample is judged", "set `permille` to how many of a thousand are", "minimum")
        return self
