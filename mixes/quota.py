"""Weights, budget and repeat caps into exact whole numbers of tokens for every (component, source, stratum).

Contract: pure functions in exact rational arithmetic; the targets add up to the budget to the token and none exceeds
what its source may give. Between components tokens follow the weights, within a component the sizes of its sources
times the factors of their strata; native floors and the synthetic cap then move tokens inside components
(`mixes.limits`). Where a cap binds, the rest is shared among the others by the same proportions (water-filling); whole
numbers come from largest remainders (Hamilton's method), ties to the first name. Cost: O(K^2) for K sources.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor
from typing import Literal

from mixes.spec import REPEATS_MOST
from pipeline.core.errors import QuotaError

REPEATS_GRID = 10  # suggested caps are multiples of one tenth
WEIGHT_GRID = 10_000  # suggested weights have four decimals


@dataclass(frozen=True)
class Supply:
    """What one source, or one stratum of it, can give to one component."""

    component: str
    source: str
    unique_tokens: int  # of the documents the component accepts
    capacity_tokens: int  # of the draws its repeat cap still allows
    factor: Fraction = Fraction(1)  # of its stratum
    limit: str = ""  # the floor or cap it counts for

    @property
    def pull(self) -> Fraction:
        """Its weight within the component."""
        return self.unique_tokens * self.factor


@dataclass(frozen=True)
class Ask:
    """What a mix asks for."""

    budget_tokens: int
    weights: Mapping[str, float]  # by component
    max_repeats: Mapping[str, float]  # by component
    shortage: Literal["refuse", "fill"]
    where: str  # the phase, for messages


def exact(number: float) -> Fraction:
    """The decimal a person wrote, not its nearest binary fraction."""
    return Fraction(repr(number))


def water_fill(total: int, weights: Sequence[Fraction], caps: Sequence[int]) -> list[int]:
    """Whole numbers adding up to `total`, in proportion to `weights`, none above its cap.

    The caps of the positive weights must hold `total`.
    """
    shares = [0] * len(caps)
    left = total
    active = [i for i, cap in enumerate(caps) if cap > 0 and weights[i] > 0]
    assert sum(caps[i] for i in active) >= total, (total, list(caps))
    while active:
        weight = sum((weights[i] for i in active), Fraction(0))
        full = [i for i in active if weights[i] * left >= caps[i] * weight]
        if not full:
            break
        for i in full:
            shares[i] = caps[i]
            left -= caps[i]
        active = [i for i in active if i not in full]
    if active:
        weight = sum((weights[i] for i in active), Fraction(0))
        ideal = {i: weights[i] * left / weight for i in active}
        for i in active:
            shares[i] = floor(ideal[i])
        missing = left - sum(shares[i] for i in active)
        for i in sorted(active, key=lambda i: (shares[i] - ideal[i], i))[:missing]:
            shares[i] += 1
    return shares


def solve(ask: Ask, supplies: Sequence[Supply], capacity_at: Callable[[str, float], int]) -> list[int]:
    """A token target for each supply; they add up to the budget.

    Args:
        ask: Budget, weights and caps.
        supplies: One entry for each component, source and stratum.
        capacity_at: Tokens a component could give under another repeat cap, for the suggestion in the error.

    Raises:
        QuotaError: a component (with `shortage: refuse`) or the whole mix holds too little; names it, the shortfall
            in tokens, and the repeat cap, weights or budget that would do.
    """
    names = sorted(ask.weights)
    caps = [sum(s.capacity_tokens for s in supplies if s.component == name and s.factor) for name in names]
    wanted = list(wanted_tokens(ask).values())
    short = any(want > cap for want, cap in zip(wanted, caps, strict=True))
    if sum(caps) < ask.budget_tokens or (ask.shortage == "refuse" and short):
        raise _shortage(ask, names, wanted, caps, supplies, capacity_at)
    totals = water_fill(ask.budget_tokens, [exact(ask.weights[name]) for name in names], caps)
    targets = [0] * len(supplies)
    for name, total in zip(names, totals, strict=True):
        own = [i for i, s in enumerate(supplies) if s.component == name]
        shares = water_fill(total, [supplies[i].pull for i in own], [supplies[i].capacity_tokens for i in own])
        for i, share in zip(own, shares, strict=True):
            targets[i] = share
    return targets


def wanted_tokens(ask: Ask) -> dict[str, int]:
    """Tokens each component should give by its weight, in order of name."""
    names = sorted(ask.weights)
    weights = [exact(ask.weights[name]) for name in names]
    shares = water_fill(ask.budget_tokens, weights, [ask.budget_tokens] * len(names))
    return dict(zip(names, shares, strict=True))


def _shortage(
    ask: Ask,
    names: Sequence[str],
    wanted: Sequence[int],
    caps: Sequence[int],
    supplies: Sequence[Supply],
    capacity_at: Callable[[str, float], int],
) -> QuotaError:
    what, repeats = [], []
    short = [i for i in range(len(names)) if wanted[i] > caps[i]]
    for i in short:
        own = [s for s in supplies if s.component == names[i]]
        by_source: dict[str, int] = {}
        for s in own:
            by_source[s.source] = by_source.get(s.source, 0) + s.capacity_tokens * bool(s.factor)
        held = ", ".join(f"{source} {tokens:,}" for source, tokens in by_source.items())
        what.append(
            f"component `{names[i]}` needs {wanted[i]:,} tokens (weight {ask.weights[names[i]]:g} of "
            f"{ask.budget_tokens:,}), its sources hold {caps[i]:,} within max_repeats {ask.max_repeats[names[i]]:g} "
            f"({held}): {wanted[i] - caps[i]:,} short"
        )
        enough = _repeats_that_do(names[i], wanted[i], caps[i], ask.max_repeats[names[i]], capacity_at)
        repeats.append(f"max_repeats {enough:g} for `{names[i]}`" if enough else "")
    fixes = [" and ".join(repeats)] if all(repeats) else []
    if sum(caps) >= ask.budget_tokens:
        fixes.append(f"weights {_weights_that_do(ask, names, caps, short)}")
        fixes.append("`shortage: fill`")
    total = sum((exact(ask.weights[name]) for name in names), Fraction(0))
    budget = min(floor(Fraction(caps[i]) * total / exact(ask.weights[names[i]])) for i in short)
    if budget > 0:
        fixes.append(f"budget_tokens {budget}")
    if not all(caps[i] for i in short):
        fixes.append("sources or conditions that leave documents in it")
    return QuotaError("; ".join(what), where=ask.where, fix="what would do: " + ", or ".join(fixes))


def _repeats_that_do(
    component: str, wanted: int, cap: int, now: float, capacity_at: Callable[[str, float], int]
) -> float:
    """The least repeat cap in tenths under which the component holds enough; 0 when none does."""
    taken = capacity_at(component, now) - cap  # by components that share its documents
    low, high = ceil(exact(now) * REPEATS_GRID), REPEATS_MOST * REPEATS_GRID
    if capacity_at(component, high / REPEATS_GRID) - taken < wanted:
        return 0.0
    while low < high:
        middle = (low + high) // 2
        if capacity_at(component, middle / REPEATS_GRID) - taken >= wanted:
            high = middle
        else:
            low = middle + 1
    return high / REPEATS_GRID


def _weights_that_do(ask: Ask, names: Sequence[str], caps: Sequence[int], short: Sequence[int]) -> str:
    """What filling from the others would plan, as weights: short components rounded down, the others up."""
    filled = water_fill(ask.budget_tokens, [exact(ask.weights[name]) for name in names], caps)
    parts = []
    for i, name in enumerate(names):
        scaled = Fraction(filled[i] * WEIGHT_GRID, ask.budget_tokens)
        bound = i in short or filled[i] == caps[i]
        weight = floor(scaled) if bound else ceil(scaled)
        parts.append(f"{name} {weight / WEIGHT_GRID:g}" if weight else f"{name} none (leave it out)")
    return ", ".join(parts)
