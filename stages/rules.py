"""Rules: thresholds per language over the signal columns; the first failing rule drops the document.

Contract: judging reads the columns of `stages.signals` only, never text, so that re-tuning a threshold costs nothing.
Thresholds: the preset's default < its languages' < the configuration's `default` < the configuration's language. Null
switches a rule off; a null signal never fails. Presets are YAML files in `rules_presets/`, each value with its source.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
from pydantic import Field

from pipeline.core.config import Config, load_config
from pipeline.core.errors import unknown_name
from stages.block import Dropped, Outcome, outcome
from stages.signals import column, signals_table
from stages.words import Segmenter

PRESETS = Path(__file__).with_name("rules_presets")
ENGLISH = "en"
DEFAULT = "default"


class Rule(Config):
    """Drop when `signal` is below or above a threshold."""

    name: str
    signal: str
    below: float | None = None
    above: float | None = None
    source: str


class Preset(Config):
    """A preset file."""

    name: str
    rules: tuple[Rule, ...]
    stop_words: dict[str, tuple[str, ...]]
    languages: dict[str, dict[str, float | None]]
    other_than_english: dict[str, float | None]


class RulesConfig(Config):
    """Options of the `rules` block."""

    preset: str = "fineweb2"
    # Domains judged by another preset: rules for the open web are not for code and its curated manuals.
    by_domain: dict[str, str] = Field(default_factory=lambda: {"code": "code", "documentation": "code"})
    thresholds: dict[str, dict[str, float | None]] = Field(
        default_factory=dict
    )  # language or `default` -> rule -> value
    segmenter: Segmenter = "seodang"


@dataclass(frozen=True)
class Verdict:
    """The first failing rule of a document: its name, the signal's value and the threshold."""

    rule: str
    value: float
    threshold: float


@lru_cache(maxsize=16)
def load_preset(name: str) -> Preset:
    """Raises `ConfigError` for a name that no file has."""
    known = sorted(path.stem for path in PRESETS.glob("*.yaml"))
    if name not in known:
        raise unknown_name("rules preset", name, known)
    return load_config(PRESETS / f"{name}.yaml", Preset)


def thresholds(preset: Preset, config: RulesConfig, lang: str | None) -> dict[str, float | None]:
    """The threshold of every rule of a preset for one language."""
    values = {rule.name: rule.below if rule.below is not None else rule.above for rule in preset.rules}
    if lang != ENGLISH:
        values |= preset.other_than_english
    values |= preset.languages.get(lang or "", {})
    for key in (DEFAULT, lang or ""):
        values |= {name: value for name, value in config.thresholds.get(key, {}).items() if name in values}
    return values


def judge(
    signals: pa.Table, langs: Sequence[str | None], domains: Sequence[str | None], config: RulesConfig
) -> list[Verdict | None]:
    """The verdict on every row of a signal table; None keeps.

    Raises:
        ConfigError: The configuration names a preset or a rule that does not exist.
    """
    _check(config)
    verdicts: list[Verdict | None] = [None] * signals.num_rows
    groups: dict[tuple[str, str | None], list[int]] = {}
    for row, (lang, domain) in enumerate(zip(langs, domains, strict=True)):
        groups.setdefault((config.by_domain.get(domain or "", config.preset), lang), []).append(row)
    columns = {name: signals[name].to_numpy() for name in signals.column_names if name != "id"}
    for (name, lang), members in groups.items():
        preset = load_preset(name)
        limits = thresholds(preset, config, lang)
        rows = np.array(members, np.int64)
        open_rows = np.ones(rows.size, bool)
        for rule in preset.rules:
            limit = limits[rule.name]
            if limit is None:
                continue
            values = columns[column(rule.signal)][rows]  # a null is NaN: no comparison holds
            failing = open_rows & (values < limit if rule.below is not None else values > limit)
            for at in np.flatnonzero(failing):
                verdicts[int(rows[at])] = Verdict(rule.name, float(values[at]), limit)
            open_rows &= ~failing
    return verdicts


def _check(config: RulesConfig) -> None:
    presets = [load_preset(name) for name in sorted({config.preset, *config.by_domain.values()})]
    known = {rule.name for preset in presets for rule in preset.rules}
    for lang, values in config.thresholds.items():
        for name in values:
            if name not in known:
                raise unknown_name("rule", name, known, where=f"rules.thresholds.{lang}")


class Rules:
    """The block: signals, then verdicts. The signals of kept and dropped documents alike are given on."""

    def __init__(self, config: RulesConfig) -> None:
        _check(config)
        self._config = config
        self._stop_words = {lang: frozenset(words) for lang, words in load_preset(config.preset).stop_words.items()}

    def apply(self, documents: pa.Table) -> Outcome:
        signals = signals_table(documents, self._stop_words, self._config.segmenter)
        verdicts = judge(signals, documents["lang"].to_pylist(), documents["domain"].to_pylist(), self._config)
        dropped = [
            Dropped(row, f"rules.{verdict.rule}", f"{verdict.value:.4g}, threshold {verdict.threshold:g}")
            for row, verdict in enumerate(verdicts)
            if verdict is not None
        ]
        return outcome(documents, dropped, signals=signals)


def make(config: RulesConfig, paths: Mapping[str, tuple[str, ...]]) -> Rules:
    """Catalog entry."""
    return Rules(config)
