"""The presets of the rules: which signals, which thresholds, and the stop words that one of the signals counts.

Contract: a preset is a YAML file in `rules_presets/`, each value with its source. Stop words belong to a language, not
to a preset: where two presets listed a language, both would have to list the same words.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from pipeline.core.config import Config, load_config
from pipeline.core.errors import unknown_name

PRESETS = Path(__file__).with_name("rules_presets")


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


def preset_names() -> list[str]:
    """Every preset there is."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


@lru_cache(maxsize=16)
def load_preset(name: str) -> Preset:
    """Raises `ConfigError` for a name that no file has."""
    known = preset_names()
    if name not in known:
        raise unknown_name("rules preset", name, known)
    return load_config(PRESETS / f"{name}.yaml", Preset)


def stop_words() -> dict[str, tuple[str, ...]]:
    """The stop words of every language, of all presets."""
    found: dict[str, tuple[str, ...]] = {}
    for name in preset_names():
        for lang, words in load_preset(name).stop_words.items():
            assert found.setdefault(lang, words) == words, f"two lists of stop words for {lang}"
    return found
