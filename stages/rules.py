"""Rules: thresholds per language over the signal columns; the first failing rule drops the document.

Contract: judging reads the columns of `stages.signals` only, never text, so that re-tuning a threshold costs nothing.
Thresholds: the preset's default < its languages' < the configuration's `default` < the configuration's language. Null
switches a rule off; a null signal never fails. Presets are YAML files in `rules_presets/`, each value with its source.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from pydantic import Field

from pipeline.core.config import Config
from pipeline.core.errors import unknown_name
from stages.block import Dropped, Outcome, outcome
from stages.measure import Signals, SignalsConfig
from stages.presets import Preset, load_preset
from stages.signals import column
from stages.words import Segmenter

ENGLISH = "en"
DEFAULT = "default"


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


def thresholds(preset: Preset, config: RulesConfig, lang: str | None) -> dict[str, float | None]:
    """The threshold of every rule of a preset for one language."""
    values = {rule.name: rule.below if rule.below is not None else rule.above for rule in preset.rules}
    if lang != ENGLISH:
        values |= preset.other_than_english
    values |= preset.languages.get(lang or "", {})
    for key in (DEFAULT, lang or ""):
        values |= {name: value for name, value in config.thresholds.get(key, {}).items() if name in values}
    return values


@dataclass(frozen=True)
class Judged:
    """The documents of one preset and language: which rules they fail.

    Attributes:
        preset, lang: What they are judged by.
        rows: [members] their rows in the signal table.
        limits: The threshold of every rule that is on, in the preset's order.
        values: By rule, [members] float64 values of its signal; NaN where null, which never fails.
        fails: By rule, [members] bool.
    """

    preset: Preset
    lang: str | None
    rows: np.ndarray
    limits: dict[str, float]
    values: dict[str, np.ndarray]
    fails: dict[str, np.ndarray]


def judge_all(signals: pa.Table, config: RulesConfig) -> list[Judged]:
    """Every rule of every document, from a table of `stages.signals.signals_table` alone.

    Raises:
        ConfigError: The configuration names a preset or a rule that does not exist.
    """
    check(config)
    groups: dict[tuple[str, str | None], list[int]] = {}
    for row, (lang, domain) in enumerate(zip(*(signals[name].to_pylist() for name in ("lang", "domain")), strict=True)):
        groups.setdefault((config.by_domain.get(domain or "", config.preset), lang), []).append(row)
    columns: dict[str, np.ndarray] = {}
    found: list[Judged] = []
    for (name, lang), members in groups.items():
        preset, rows = load_preset(name), np.array(members, np.int64)
        one = Judged(preset, lang, rows, {}, {}, {})
        wanted = thresholds(preset, config, lang)
        for rule in preset.rules:
            limit = wanted[rule.name]
            if limit is None:
                continue
            if rule.signal not in columns:
                columns[rule.signal] = signals[column(rule.signal)].to_numpy()
            values = columns[rule.signal][rows]
            one.limits[rule.name], one.values[rule.name] = limit, values
            one.fails[rule.name] = values < limit if rule.below is not None else values > limit
        found.append(one)
    return found


def judge(signals: pa.Table, config: RulesConfig) -> list[Verdict | None]:
    """The verdict on every row of a signal table: the first failing rule; None keeps. Raises as `judge_all` does."""
    verdicts: list[Verdict | None] = [None] * signals.num_rows
    for one in judge_all(signals, config):
        still_open = np.ones(one.rows.size, bool)
        for rule, fails in one.fails.items():
            for at in np.flatnonzero(still_open & fails).tolist():
                verdicts[int(one.rows[at])] = Verdict(rule, float(one.values[rule][at]), one.limits[rule])
            still_open &= ~fails
    return verdicts


def check(config: RulesConfig) -> None:
    """Raises `ConfigError` for presets and rules that do not exist."""
    presets = [load_preset(name) for name in sorted({config.preset, *config.by_domain.values()})]
    known = {rule.name for preset in presets for rule in preset.rules}
    for lang, values in config.thresholds.items():
        for name in values:
            if name not in known:
                raise unknown_name("rule", name, known, where=f"rules.thresholds.{lang}")


def dropped_by(verdicts: Sequence[Verdict | None]) -> list[Dropped]:
    """The rows that a rule drops, with the rule, the signal's value and the threshold."""
    return [
        Dropped(row, f"rules.{verdict.rule}", f"{verdict.value:.4g}, threshold {verdict.threshold:g}")
        for row, verdict in enumerate(verdicts)
        if verdict is not None
    ]


class Rules:
    """The block by itself: signals, then verdicts. The signals of kept and dropped documents alike are given on.

    In a curriculum's graph an earlier step measures, and `stages.stored_signals.StoredRules` judges what it stored.
    """

    def __init__(self, config: RulesConfig) -> None:
        check(config)
        self._config = config
        self._measure = Signals(SignalsConfig(segmenter=config.segmenter))

    def apply(self, documents: pa.Table) -> Outcome:
        signals = self._measure.table(documents)
        return outcome(documents, dropped_by(judge(signals, self._config)), signals=signals)


def make(config: RulesConfig, paths: Mapping[str, tuple[str, ...]]) -> Rules:
    """Catalog entry."""
    return Rules(config)
