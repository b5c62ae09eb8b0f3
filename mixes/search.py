"""Hooks for mixture search: many small mixes out, their results in, a regression, proposed weights.

Contract: `proxy_weights` draws weight vectors around a mix's own from a Dirichlet distribution, seeded, so that the
same call gives the same table; each is meant to train one small model. `fit` learns the loss from the weights, cross-
validated; `propose` draws many vectors more and averages the best by the fit, so that it never leaves what was tried.
Tables are CSV: a `proxy` column, one `weight.COMPONENT` column each, and any loss columns. Training is the user's.
Source: RegMix (Liu et al. 2024, arXiv 2407.01492): 512 proxies, gradient-boosted trees, mean of the best 100 of
100,000; the regressor is scikit-learn's histogram gradient boosting.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mixes.spec import MixConfig
from pipeline.core.errors import InputError, UserError, unknown_name

CONCENTRATION = 10.0  # of the Dirichlet distribution: the larger, the nearer to the mix's own weights (ours)
LEAST_WEIGHT = 1e-4  # so that every component keeps a valid weight
CANDIDATES = 100_000
BEST = 100
FOLDS = 5
LEAST_RESULTS = 20
PREFIX = "weight."


@dataclass(frozen=True)
class Results:
    """Finished proxies."""

    components: tuple[str, ...]
    weights: np.ndarray  # [proxies, components], rows add up to 1
    losses: np.ndarray  # [proxies]


@dataclass(frozen=True)
class Proposal:
    """Weights, and how far to trust them."""

    weights: dict[str, float]
    predicted_loss: float
    best_tried_loss: float
    rank_correlation: float  # Spearman's, of held-out predictions with results
    proxies: int


def proxy_weights(mix: MixConfig, proxies: int, seed: int, concentration: float = CONCENTRATION) -> np.ndarray:
    """[proxies, components] weights that add up to 1; the first row is the mix's own."""
    own = np.array([component.weight for component in mix.components.values()])
    own = own / own.sum()
    drawn = np.random.Generator(np.random.PCG64(seed)).dirichlet(own * own.shape[0] * concentration, proxies - 1)
    return _valid(np.vstack([own, drawn]))


def _valid(weights: np.ndarray) -> np.ndarray:
    raised = np.maximum(weights, LEAST_WEIGHT)
    return np.round(raised / raised.sum(axis=1, keepdims=True), 6)


def proxy_table(mix: MixConfig, weights: np.ndarray) -> str:
    """CSV, one line a proxy."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("proxy", *(f"{PREFIX}{name}" for name in mix.components)))
    for number, row in enumerate(weights.tolist()):
        writer.writerow((number, *row))
    return out.getvalue()


def proxy_overrides(mix_name: str, mix: MixConfig, row: Sequence[float]) -> list[str]:
    """`--set` values that turn the curriculum into one proxy's."""
    return [
        f"mixes.{mix_name}.components.{name}.weight={weight}" for name, weight in zip(mix.components, row, strict=True)
    ]


def read_results(path: Path, mix: MixConfig, loss: str) -> Results:
    """Lines without a value in the loss column are not finished yet and are left out. Raises `UserError` with place."""
    try:
        reader = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig")))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read: {error}", where=str(path)) from None
    columns = list(reader.fieldnames or ())
    names = [f"{PREFIX}{name}" for name in mix.components]
    for name in (*names, loss):
        if name not in columns:
            raise unknown_name("column", name, columns, where=f"{path}:1")
    weights, losses = [], []
    for row in reader:
        if not row[loss]:
            continue
        try:
            weights.append([float(row[name]) for name in names])
            losses.append(float(row[loss]))
        except (TypeError, ValueError):
            raise InputError("a weight or loss is not a number", where=f"{path}:{reader.line_num}") from None
    if len(losses) < LEAST_RESULTS:
        what = f"{len(losses)} results in column `{loss}`"
        raise InputError(what, where=str(path), fix=f"at least {LEAST_RESULTS}; RegMix trains 512 proxies")
    return Results(tuple(mix.components), np.array(weights), np.array(losses))


def propose(results: Results, mix: MixConfig, seed: int) -> Proposal:
    """Fit, judge by cross-validation, and give the weights with the lowest predicted loss."""
    try:
        from scipy.stats import spearmanr
        from sklearn.ensemble import HistGradientBoostingRegressor
        from sklearn.model_selection import KFold, cross_val_predict
    except ImportError:
        fix = "pip install 'seodang[search]'"
        raise UserError("mixture search needs scikit-learn", where="seodang mix propose", fix=fix) from None
    regressor = HistGradientBoostingRegressor(
        max_iter=300, learning_rate=0.05, min_samples_leaf=max(2, len(results.losses) // 50), random_state=0
    )
    folds = KFold(FOLDS, shuffle=True, random_state=0)
    held_out = cross_val_predict(regressor, results.weights, results.losses, cv=folds)
    found: Any = spearmanr(held_out, results.losses)
    regressor.fit(results.weights, results.losses)
    candidates = proxy_weights(mix, CANDIDATES, seed)
    predicted = regressor.predict(candidates)
    best = candidates[np.argsort(predicted, kind="stable")[:BEST]].mean(axis=0)
    mean = _valid(best[None])[0]
    return Proposal(
        weights=dict(zip(results.components, mean.tolist(), strict=True)),
        predicted_loss=float(regressor.predict(mean[None])[0]),
        best_tried_loss=float(results.losses.min()),
        rank_correlation=float(found.statistic),
        proxies=len(results.losses),
    )
