"""The `signals` block: every quality signal of every document, measured once and kept as columns; nothing is dropped.

Contract: the columns are those of `stages.signals`, for every document that reaches the block. The curriculum's graph
puts it before `rules`, in a step of its own, so that a changed threshold measures nothing again; listed in the
configuration it stands where it is listed. Stop words are identity by their text, whatever file they come from.
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
from pydantic import Field

from pipeline.core.config import Config
from stages.block import Outcome, outcome
from stages.presets import stop_words
from stages.signals import signals_table
from stages.words import Segmenter


class SignalsConfig(Config):
    """Options of the `signals` block."""

    segmenter: Segmenter = "seodang"
    stop_words: dict[str, tuple[str, ...]] = Field(default_factory=stop_words)  # by language; that of the presets


class Signals:
    """The block."""

    def __init__(self, config: SignalsConfig) -> None:
        self._segmenter: Segmenter = config.segmenter
        self._stop_words = {lang: frozenset(words) for lang, words in config.stop_words.items()}

    def apply(self, documents: pa.Table) -> Outcome:
        return outcome(documents, signals=self.table(documents))

    def table(self, documents: pa.Table) -> pa.Table:
        """The signals alone."""
        return signals_table(documents, self._stop_words, self._segmenter)


def make(config: SignalsConfig, paths: Mapping[str, tuple[str, ...]]) -> Signals:
    """Catalog entry."""
    return Signals(config)
