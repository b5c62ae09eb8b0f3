"""Configuration of a set of long documents (`kind: long`). Thresholds are ours, measured as `information.py` tells."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from synth.sourced import SourcedConfig

Form = Literal["books", "manuals", "repositories", "threads"]
KEY_COLUMNS = ("id", "lang", "url", "title", "date")  # that parts may be grouped or ordered by, beside `extra.NAME`
MEBIBYTE = 1 << 20


class LongConfig(SourcedConfig):
    """Whole documents joined from the parts that belong together. `languages` are those of whole groups, by most of
    their characters; `domains` choose parts. Tokens are estimated from characters."""

    kind: Literal["long"]
    form: Form
    # `KEY_COLUMNS` or `extra.NAME`; empty: the form's own (`synth/long/naming.py`).
    group_keys: tuple[str, ...] = ()  # parts with the same values belong together
    order_keys: tuple[str, ...] = ()  # parts are ordered by them, numbers as numbers
    minimum_tokens: int = Field(default=8192, ge=0)
    maximum_tokens: int | None = Field(default=None, ge=1)  # longer ones are dropped or divided, never cut
    longer: Literal["drop", "folders"] = "drop"  # folders: each folder of a manual or repository becomes a document
    minimum_parts: int = Field(default=1, ge=1)
    incomplete: Literal["drop", "keep"] = "drop"  # a gap in the parts' numbers, or an answered message that is missing
    minimum_compression: float = Field(default=0.1, ge=0, le=1)  # compressed over plain bytes; real text: 0.12 and more
    maximum_compression: float = Field(default=0.5, ge=0, le=1.5)  # real text: up to 0.37; hexadecimal digits: 0.58
    maximum_compression_dense: float = Field(default=0.65, ge=0, le=1.5)  # ko, ja; real text: up to 0.65
    minimum_novelty: float = Field(default=0.3, ge=0, le=2)  # of the second half, given the first; real text: 0.56
    maximum_novelty: float = Field(default=1.005, ge=0, le=2)  # real text: up to 0.997; random numbers: 1.015 and more
    documents_per_shard: int = Field(default=256, ge=1)
    shard_bytes: int = Field(default=64 * MEBIBYTE, ge=1)  # of text; a longer document has a shard of its own

    @field_validator("group_keys", "order_keys")
    @classmethod
    def _keys_are_columns(cls, keys: tuple[str, ...]) -> tuple[str, ...]:
        for key in keys:
            if key not in KEY_COLUMNS and not (key.startswith("extra.") and key != "extra."):
                message = f"`{key}` is no column to group or order by: {', '.join(KEY_COLUMNS)}, or `extra.{key}`"
                raise ValueError(message)
        return keys

    @model_validator(mode="after")
    def _ranges_are_ordered(self) -> Self:
        if self.maximum_tokens is not None and self.maximum_tokens < self.minimum_tokens:
            message = f"maximum_tokens {self.maximum_tokens} is below minimum_tokens {self.minimum_tokens}"
            raise ValueError(message)
        if self.longer == "folders" and (self.maximum_tokens is None or self.form in ("books", "threads")):
            message = "`longer: folders` needs maximum_tokens, and is for manuals and repositories"
            raise ValueError(message)
        return self
