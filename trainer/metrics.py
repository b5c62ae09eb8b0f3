"""What a step's line in the run log is made of: losses by group, tokens by source, expert load.

Contract: pure functions over host arrays, float64 sums in a fixed order, so that equal steps give equal lines.
Cost: a few passes over the step's tokens.
Shapes: R rows, T tokens, E experts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from torch import Tensor


class TokenGroups(NamedTuple):
    """A name for each token: source, language or domain."""

    names: tuple[str, ...]
    ids_RT: np.ndarray  # integer index into names, -1 = none (padding, or not known)


class ExpertLoad(NamedTuple):
    """How evenly the last step used the experts."""

    max_over_mean: float  # busiest expert over the mean of its layer, worst layer; 0 without sparse layers
    dead: int  # experts of all layers that got no token


def losses_by_group(losses_RT: np.ndarray, labelled_RT: np.ndarray, groups: TokenGroups) -> dict[str, float]:
    """Mean nats a labelled token for every group that has one, in order of name."""
    chosen = labelled_RT & (groups.ids_RT >= 0)
    ids = groups.ids_RT[chosen]
    count = np.bincount(ids, minlength=len(groups.names))
    nats = np.bincount(ids, weights=losses_RT[chosen].astype(np.float64), minlength=len(groups.names))
    return {groups.names[index]: float(nats[index] / count[index]) for index in _by_name(groups, count)}


def tokens_by_group(groups: TokenGroups) -> dict[str, int]:
    """Tokens of every group that has one, in order of name."""
    count = np.bincount(groups.ids_RT[groups.ids_RT >= 0], minlength=len(groups.names))
    return {groups.names[index]: int(count[index]) for index in _by_name(groups, count)}


def expert_load(loads: Mapping[int, Tensor]) -> ExpertLoad:
    """Of `MoEModel.update_expert_bias`'s answer: layer -> tokens [E]."""
    peaks, dead = [0.0], 0
    for load_E in loads.values():
        mean = float(load_E.double().mean())
        peaks.append(float(load_E.max()) / mean if mean else 0.0)
        dead += int((load_E == 0).sum())
    return ExpertLoad(max(peaks), dead)


def _by_name(groups: TokenGroups, count: np.ndarray) -> list[int]:
    return sorted(np.flatnonzero(count).tolist(), key=lambda index: groups.names[index])
