"""What a family is made of: drawing parameters, saying steps in a language, and the worked solution."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from random import Random
from typing import Any

from synth.language import read_package_yaml

Parameters = Mapping[str, Any]  # JSON values; `variant` picks a wording of the problem


@dataclass(frozen=True)
class Size:
    """How large a long-input problem is to be."""

    characters: int


class Phrases:
    """The sentences of one family in one language."""

    def __init__(self, language: str, common: Mapping[str, Any], own: Mapping[str, Any]) -> None:
        self.language = language
        self.common = common
        self.own = own

    def __call__(self, key: str, **places: object) -> str:
        return str(self.own[key]).format(**places)

    def problem(self, variant: int, **places: object) -> str:
        """One of the family's wordings of the problem."""
        wordings: Sequence[str] = self.own["problem"]
        return wordings[variant % len(wordings)].format(**places)

    def things(self, key: str) -> Sequence[str]:
        """A list of names or things, of this family or common to all."""
        return self.own[key] if key in self.own else self.common[key]

    @property
    def answer_label(self) -> str:
        return str(self.common["answer"])


@dataclass(frozen=True)
class Worked:
    """A problem with its solution."""

    problem: str
    steps: Sequence[str]
    answer: str
    equations: int  # how many equations between numbers the steps state

    def text(self, answer_label: str) -> str:
        return f"{self.problem}\n\n" + "\n".join(self.steps) + f"\n\n{answer_label} {self.answer}"


@dataclass(frozen=True)
class Family:
    """One kind of problem."""

    name: str
    domain: str  # mathematics, science or code
    draw: Callable[[Random, int, Size], Parameters]  # level 1-5
    work: Callable[[Parameters, Phrases], Worked]
    version: int = 1

    @property
    def maker(self) -> str:
        return f"seodang.reasoning.{self.name}@{self.version}"


@cache
def phrases(language: str, family: str) -> Phrases:
    """The sentences of one family in one language, from `synth/templates/LANGUAGE.yaml`."""
    templates = _templates(language)
    return Phrases(language, templates["common"], templates[family])


@cache
def _templates(language: str) -> Mapping[str, Any]:
    return read_package_yaml("templates", f"{language}.yaml")


def signed(value: int | Fraction) -> str:
    """A number inside an expression: negative ones and fractions in brackets."""
    text = str(value)
    return f"({text})" if value < 0 or "/" in text else text


def plus(value: int) -> str:
    """A number after another term: `+ 5` or `- 5`."""
    return f"+ {value}" if value >= 0 else f"- {-value}"
