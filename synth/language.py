"""What synthesis knows of each language: number style, density, tell-tale phrases, and which language a text is in.

Contract: one YAML file a language in `synth/languages/`; `detect` answers with one of ours after code, mathematics and
links are taken out, or with an empty string when too little text is left. Cost of `detect`: about 0.1 ms a paragraph
(py3langid, restricted to our languages), microseconds for Korean and Japanese (decided by their scripts).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from pydantic import Field

from pipeline.core.config import Config
from pipeline.core.verify.expressions import NumberStyle
from synth.config import LANGUAGES, tuples

NOT_PROSE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]*\$|https?://\S+|[\d\W_]+", re.S)
HANGUL = re.compile(r"[가-힣ㄱ-ㅎㅏ-ㅣ]")
KANA = re.compile(r"[ぁ-ゖァ-ヺ]")
HAN = re.compile(r"[一-鿿々]")
LETTERS_NEEDED = {"hangul": 8, "latin": 30}  # below that a paragraph is not judged; ours
SCRIPT_SHARE = 0.3  # of letters in the script of ko or ja; terms and names in Latin letters are usual


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


def detect(text: str) -> str:
    """The language of one paragraph among ours, or an empty string when it is too short to tell."""
    prose = NOT_PROSE.sub(" ", text).strip()
    letters = len(prose) - prose.count(" ")
    hangul, kana, han = (len(pattern.findall(prose)) for pattern in (HANGUL, KANA, HAN))
    if letters >= LETTERS_NEEDED["hangul"]:
        if hangul >= SCRIPT_SHARE * letters:
            return "ko"
        if kana and kana + han >= SCRIPT_SHARE * letters:
            return "ja"
    if letters < LETTERS_NEEDED["latin"]:
        return ""
    return str(_identifier().classify(prose)[0])


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
    identifier.set_languages(list(LANGUAGES))
    return identifier


def density(text: str) -> float:
    """Characters a token, estimated: of the language, or English where the text is too short to tell."""
    return facts(detect(text) or "en").characters_per_token


def foreign_share(text: str, language: str) -> float:
    """Share of characters that stand in paragraphs of another language (paragraphs too short to tell are left out)."""
    foreign = judged = 0
    for paragraph in text.split("\n"):
        found = detect(paragraph)
        if found:
            judged += len(paragraph)
            foreign += len(paragraph) if found != language else 0
    return foreign / judged if judged else 0.0
