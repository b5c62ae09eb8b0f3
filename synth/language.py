"""What synthesis knows of each language: number style, density, tell-tale phrases.

Contract: one YAML file a language in `synth/languages/`. Which language a text is in says `pipeline.core.languages`,
whose two functions are handed on here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from pydantic import Field

from pipeline.core.config import Config
from pipeline.core.languages import detect, foreign_share
from pipeline.core.verify.expressions import NumberStyle
from synth.config import tuples

__all__ = [
    "LanguageFacts", "density", "detect", "facts", "foreign_share", "hesitation_pattern", "leakage_pattern", "primary",
    "read_package_yaml",
]  # fmt: skip


class LanguageFacts(Config):
    """One file of `synth/languages/`."""

    style: NumberStyle
    characters_per_token: float = Field(gt=0)  # estimate over common vocabularies of 100 K and more; ours
    characters_relative_to_english: float = Field(gt=0)  # of translations; measured on our six-way parallel samples
    unrelated_share: float = Field(ge=0, lt=1)  # terms two unrelated texts share; highest of our samples, measured
    hesitation: tuple[str, ...]
    leakage: tuple[str, ...]
    number_words: Mapping[str, int | str]
    scales: Mapping[str, int]

    def leakage_pattern(self) -> re.Pattern[str]:
        return re.compile("|".join(self.leakage), re.I)

    def hesitation_pattern(self) -> re.Pattern[str]:
        """Matches a sentence that begins by hesitating."""
        return re.compile(rf"^\W*(?:{'|'.join(self.hesitation)})(?:[\s,.…、。!?！？]|$)", re.I)


def read_package_yaml(folder: str, name: str) -> Any:
    """A YAML file that is part of this package, as plain values with tuples."""
    from ruamel.yaml import YAML

    text = files("synth").joinpath(folder, name).read_text(encoding="utf-8")
    return tuples(YAML(typ="safe", pure=True).load(text))


@cache
def facts(language: str) -> LanguageFacts:
    """The facts of one of `LANGUAGES`."""
    return LanguageFacts.model_validate(read_package_yaml("languages", f"{language}.yaml"))


@cache
def leakage_pattern(language: str) -> re.Pattern[str]:
    return facts(language).leakage_pattern()


@cache
def hesitation_pattern(language: str) -> re.Pattern[str]:
    return facts(language).hesitation_pattern()


def primary(tag: str | None) -> str:
    """`en` of `en-GB`."""
    return (tag or "").split("-")[0].lower()


def density(text: str) -> float:
    """Characters a token, estimated: of the language, or English where the text is too short to tell."""
    return facts(detect(text) or "en").characters_per_token
