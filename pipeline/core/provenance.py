"""Source cards: where a corpus comes from and what may be done with it (law: no licence, no entry).

A card is a YAML file beside the configuration. A source whose card is missing or incomplete does not enter a run; one
whose card has no approved review of collection or training is read, counted and dropped as a whole, so that the report
shows it, and no mix or synthetic set may name it; a model whose mixes hold a source without an approved release review
is not exported.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from pipeline.core.config import Config, load_config

Review = Literal["approved", "pending", "refused"]


class SourceTerms(Config):
    """What cleaning needs of a card: the part of it that decides bytes, and so belongs to a step's identity."""

    license: str = Field(min_length=1)  # SPDX expression
    domain: str = "general"
    review_collection: Review = "approved"
    review_training: Review = "approved"


class SourceCard(SourceTerms):
    """The compliance card of one source. Reviews follow the three points of the K-EXAONE report's AI compliance
    review: collection, training, release."""

    origin: str = Field(min_length=1)  # who made it and where it was taken from
    basis: str = Field(min_length=1)  # legal basis: licence, contract, statute, own work …
    collected: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}$")
    opt_out: str = Field(min_length=1)  # how opt-outs (robots.txt, TDM reservation, requests) are honoured
    contact: str = Field(min_length=1)
    personal_data: Literal["none", "masked", "unmasked"] = "none"
    review_release: Review = "approved"
    note: str = ""

    def terms(self) -> SourceTerms:
        """The terms alone: a corrected note or a release review makes no step run again."""
        return SourceTerms.model_validate({name: getattr(self, name) for name in SourceTerms.model_fields})


def load_card(path: str | Path) -> SourceCard:
    """Raises `ConfigError` naming file, line and the missing field."""
    return load_config(path, SourceCard)
