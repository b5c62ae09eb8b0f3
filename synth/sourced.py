"""Languages of the synthetic sets, and the fields of a set that is made from cleaned documents.

Contract: every kind of set that has `from:` is a `SourcedConfig`, so that reviews, selection and the graph find its
sources in one place.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from pipeline.core.config import Config

# Which samples of a finished set go: equal ones, ones whose written text is nearly the same, or none.
Deduplicate = Literal["none", "exact", "minhash"]
Language = Literal["ko", "en", "es", "de", "ja", "vi"]
LANGUAGES: tuple[Language, ...] = ("ko", "en", "es", "de", "ja", "vi")


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
