"""What a person asks of a mix: components, their sources, weights, repeat caps and length limits.

Contract: `MixConfig` is the value of one entry of `mixes:`; `PlanConfig` is the identity of a `mix.PHASE` step (a mix,
a context, a budget, a seed). Nothing about paths or workers. Every row of a plan is whole and the rows are a multiple
of the batch, so that the trainer never meets a short batch.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from pipeline.core.config import Config
from pipeline.core.shards import DOCUMENT_TABLE_SCHEMA

WINDOW_PIECES = 100_000  # loses at most 0.13 % of a 256K row to padding on web lengths (ours, measured)
REPEATS_MOST = 1000  # of a document


class CurveConfig(Config):
    """How often a document is seen as a function of its quality percentile x within its source: nothing below
    `discard`, above it C (x - discard)^power e^(lambda (x - discard)). C follows from what the component is to give,
    lambda from `top_repeats`. Source: the upsampling curves of Olmo 3 (arXiv 2512.13961), which discard 40 % and stop
    at 7."""

    discard: float = Field(default=0.4, ge=0, lt=1)  # share of the tokens, worst first
    power: float = Field(default=1.0, ge=0)
    top_repeats: float = Field(default=7.0, gt=0)  # mean repeats of the best bucket, in this phase
    buckets: int = Field(default=20, ge=2, le=100)  # of equal tokens


class BucketsConfig(Config):
    """The same by hand: `factors` of as many buckets of equal tokens, worst first; 0 leaves a bucket out."""

    factors: tuple[float, ...] = Field(min_length=1, max_length=100)

    @property
    def buckets(self) -> int:
        return len(self.factors)

    @field_validator("factors")
    @classmethod
    def _something_is_left(cls, factors: tuple[float, ...]) -> tuple[float, ...]:
        if min(factors) < 0 or max(factors) == 0:
            raise ValueError("factors are at least 0, and one above; for example [0, 0, 1, 2, 4]")
        return factors


class ComponentConfig(Config):
    """One part of a mix: which documents, and how much of the tokens."""

    from_: tuple[str, ...] = Field(alias="from", min_length=1)  # names or patterns over sources and synthetic sets
    weight: float = Field(gt=0)  # share of the phase's tokens, relative to the other components
    max_repeats: float = Field(
        default=1.0, gt=0, le=REPEATS_MOST
    )  # of a document, over all phases; 1.5: half of them twice
    where: str = ""  # SQL condition over the document table's columns
    quality: CurveConfig | BucketsConfig | None = None  # how much more of the good than of the bad
    cluster_repeats: dict[int, float] = Field(
        default={}
    )  # from this size of a near-duplicate cluster on: times as much
    whole: bool = False  # never cut; documents longer than a row are left out and counted
    minimum_tokens: int = Field(default=0, ge=0)
    maximum_tokens: int | None = Field(default=None, gt=0)

    @field_validator("where")
    @classmethod
    def _condition_fits_the_table(cls, where: str) -> str:
        if not where:
            return where
        import polars as pl  # only a mix with a condition pays for the import

        empty = pl.DataFrame(pl.from_arrow(DOCUMENT_TABLE_SCHEMA.empty_table()))
        try:
            kind = empty.select(pl.sql_expr(where).alias("kept")).schema["kept"]
        except pl.exceptions.PolarsError as error:
            columns = ", ".join(DOCUMENT_TABLE_SCHEMA.names)
            message = f"not a condition over the document table ({str(error).splitlines()[0]}); columns: {columns}"
            raise ValueError(message) from None
        if kind != pl.Boolean:
            message = f"gives {kind}, not true or false; for example `lang = 'ko' AND quality > 0.5`"
            raise ValueError(message)
        return where

    @field_validator("cluster_repeats")
    @classmethod
    def _clusters_are_numbers(cls, repeats: dict[int, float]) -> dict[int, float]:
        if any(size < 2 or factor <= 0 for size, factor in repeats.items()):
            raise ValueError("sizes are at least 2 and factors above 0; for example {2: 1.5, 10: 3}")
        return repeats

    @model_validator(mode="after")
    def _lengths_leave_something(self) -> Self:
        if self.maximum_tokens is not None and self.maximum_tokens < self.minimum_tokens:
            message = f"maximum_tokens {self.maximum_tokens} is below minimum_tokens {self.minimum_tokens}"
            raise ValueError(message)
        return self


class MixConfig(Config):
    """Components by name. `shortage` says what happens when one holds less than its weight asks for: refuse the mix,
    or fill its place from the others in proportion to their weights. Floors and caps move tokens between the
    documents of a component, never between components."""

    components: dict[str, ComponentConfig] = Field(min_length=1)
    shortage: Literal["refuse", "fill"] = "refuse"
    native_floors: dict[str, float] = Field(default={})  # language: least share of tokens that people wrote in it
    synthetic_cap: float | None = Field(default=None, ge=0, le=1)  # greatest share of tokens that have a maker

    @field_validator("native_floors")
    @classmethod
    def _floors_leave_room(cls, floors: dict[str, float]) -> dict[str, float]:
        if any(share <= 0 for share in floors.values()) or sum(floors.values()) > 1:
            total = sum(floors.values())
            raise ValueError(f"shares must be above 0 and together at most 1, not {total:g}; for example {{ko: 0.1}}")
        return floors


class PlanConfig(Config):
    """Identity of a `mix.PHASE` step."""

    mix: MixConfig
    phase: str = Field(min_length=1)
    context_tokens: int = Field(gt=0)
    budget_tokens: int = Field(gt=0)  # rows times context, padding included
    rows_per_batch: int = Field(gt=0)
    seed: int = Field(ge=0)
    window_pieces: int = Field(default=WINDOW_PIECES, gt=0)  # packed together: the packing's reach

    @property
    def rows(self) -> int:
        """Whole rows in the budget, rounded down to whole batches."""
        rows = self.budget_tokens // self.context_tokens
        return rows - rows % self.rows_per_batch

    @model_validator(mode="after")
    def _one_batch_at_least(self) -> Self:
        if self.rows < self.rows_per_batch:
            least = self.context_tokens * self.rows_per_batch
            message = (
                f"budget_tokens {self.budget_tokens} is less than one batch of {self.rows_per_batch} rows of "
                f"{self.context_tokens} tokens; give at least {least}"
            )
            raise ValueError(message)
        return self
