"""What the search loop says and plants, in each language: one YAML file a language in `synth/subagents/wording/`.

Contract: every file has every field; names of relations are the same in all. Places in braces are filled by
`str.format` with names and numbers of ours, never with text of pages that could hold braces.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from pydantic import Field

from pipeline.core.config import Config
from synth.language import read_package_yaml


class Relation(Config):
    """One kind of fact: how a page states it, how a step asks for it, what to search for beside the name."""

    sentence: str
    step: str
    query: str


class Thoughts(Config):
    """What the oracle thinks before its calls."""

    search: str
    gap_search: str
    open: str
    missed: str
    again: str
    found: str
    finish: str


class Wording(Config):
    """One file of `synth/subagents/wording/`."""

    syllables: tuple[str, ...] = Field(min_length=20)  # names are made of; in Korean without final consonants
    joint: str  # between the two words of a name
    relations: Mapping[str, Relation]
    chain: str
    gaps: str
    written: str
    gap_step: str
    first_step: str
    thoughts: Thoughts
    answer_line: str
    summary_label: str
    answer_label: str
    no_answer: str
    no_results: str
    no_page: str
    bad_call: str
    unread: str
    record: str


@cache
def wording(language: str) -> Wording:
    """The wording in one of `LANGUAGES`."""
    return Wording.model_validate(read_package_yaml("subagents/wording", f"{language}.yaml"))
