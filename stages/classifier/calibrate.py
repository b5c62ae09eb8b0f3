"""From raw scores to chances: ROC, isotonic calibration, buckets.

Contract: pure functions over arrays. Isotonic regression by pooling adjacent violators (Ayer et al. 1955; Zadrozny and
Elkan 2002, for classifiers). ROC after Fawcett 2006; equal scores are one threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ROC_POINTS = 101


@dataclass(frozen=True)
class Roc:
    """A ROC curve: points in order of falling threshold, and the area under it."""

    false_positive_rate: list[float]
    true_positive_rate: list[float]
    area: float


def roc(scores: np.ndarray, truth: np.ndarray) -> Roc:
    """The curve of [n] scores against [n] booleans, thinned to `ROC_POINTS`; the area is that of the whole curve."""
    order = np.argsort(-scores, kind="stable")
    hits = truth[order].astype(np.int64)
    last_of_score = np.append(np.flatnonzero(np.diff(scores[order])), scores.shape[0] - 1)
    true = np.append(0, np.cumsum(hits)[last_of_score])
    false = np.append(0, np.cumsum(1 - hits)[last_of_score])
    true_rate, false_rate = true / max(1, int(true[-1])), false / max(1, int(false[-1]))
    area = float(np.trapezoid(true_rate, false_rate))
    thinned = np.unique(np.linspace(0, true.shape[0] - 1, ROC_POINTS).round().astype(np.int64))
    return Roc(false_rate[thinned].tolist(), true_rate[thinned].tolist(), area)


@dataclass(frozen=True)
class Calibration:
    """A rising map from raw score to chance, through knots; constant outside them."""

    raw: Sequence[float]
    chance: Sequence[float]

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """[n] chances; NaN stays NaN."""
        return np.where(np.isnan(scores), np.nan, np.interp(scores, self.raw, self.chance))


def isotonic(scores: np.ndarray, truth: np.ndarray) -> Calibration:
    """The rising step function of least squared error, as knots in the middle of its steps.

    Each step's chance has half a document of either kind added, so that no score promises certainty.
    """
    order = np.argsort(scores, kind="stable")
    blocks: list[list[float]] = []  # [positives, documents, sum of scores]
    for score, hit in zip(scores[order].tolist(), truth[order].tolist(), strict=True):
        blocks.append([float(hit), 1.0, score])
        while len(blocks) > 1 and blocks[-2][0] * blocks[-1][1] >= blocks[-1][0] * blocks[-2][1]:
            top = blocks.pop()
            blocks[-1] = [a + b for a, b in zip(blocks[-1], top, strict=True)]
    raw = [total / count for _, count, total in blocks]
    chance = np.maximum.accumulate([(hits + 0.5) / (count + 1.0) for hits, count, _ in blocks])
    return Calibration(raw, chance.tolist())


def buckets(chances: np.ndarray, count: int) -> np.ndarray:
    """[n] float64 bucket numbers 0 … count-1, equally wide in chance; NaN stays NaN."""
    return np.where(np.isnan(chances), np.nan, np.clip(np.floor(chances * count), 0, count - 1))
