"""Native floors and the synthetic cap: tokens moved inside components until every limit holds.

Contract: pure functions in whole numbers. `hold` takes the targets that follow from weights and sizes; where the
documents of a limit get less than their floor, or synthetic ones more than their cap, the limit's total is set to
exactly that and spread over the components by what it had there, and the rest of each component is shared out anew
among the others. Components keep their totals. Limits are settled one after the other until none is broken; each is
settled once. Cost: a few water-fillings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from mixes.quota import Supply, exact, water_fill
from mixes.strata import NATIVE, SYNTHETIC
from pipeline.core.errors import QuotaError


@dataclass(frozen=True)
class Limits:
    """What a mix promises about its tokens."""

    native_floors: Mapping[str, float]  # language -> share
    synthetic_cap: float | None

    def bounds(self, budget_tokens: int) -> dict[str, tuple[int, int]]:
        """Limit -> (least, most) tokens."""
        found = {
            f"{NATIVE}{language}": (-int(-exact(share) * budget_tokens // 1), budget_tokens)
            for language, share in sorted(self.native_floors.items())
        }
        if self.synthetic_cap is not None:
            found[SYNTHETIC] = (0, int(exact(self.synthetic_cap) * budget_tokens // 1))
        return found


def hold(targets: Sequence[int], supplies: Sequence[Supply], limits: Limits, where: str) -> list[int]:
    """The targets, changed so that every limit holds. Raises `QuotaError` naming the limit and what it could reach."""
    bounds = limits.bounds(sum(targets))
    totals: dict[str, int] = {}
    for supply, target in zip(supplies, targets, strict=True):
        totals[supply.component] = totals.get(supply.component, 0) + target
    settled: dict[tuple[str, str], int] = {}  # (component, limit) -> tokens
    now = list(targets)
    while True:
        broken = [
            limit
            for limit, (least, most) in bounds.items()
            if not any(key[1] == limit for key in settled) and not least <= _total(now, supplies, limit) <= most
        ]
        if not broken:
            return now
        limit = broken[0]
        least, most = bounds[limit]
        goal = least if _total(now, supplies, limit) < least else most
        settled |= _settle(limit, goal, now, supplies, totals, settled, where)
        now = _shared_out(supplies, totals, settled)


def _total(targets: Sequence[int], supplies: Sequence[Supply], limit: str) -> int:
    return sum(target for target, supply in zip(targets, supplies, strict=True) if supply.limit == limit)


def _settle(
    limit: str,
    goal: int,
    now: Sequence[int],
    supplies: Sequence[Supply],
    totals: Mapping[str, int],
    settled: Mapping[tuple[str, str], int],
    where: str,
) -> dict[tuple[str, str], int]:
    """Tokens of one limit in each component, `goal` together."""
    names = sorted(totals)
    weights, lows, highs = [], [], []
    done = {limit for _, limit in settled}
    for name in names:
        room = totals[name] - sum(tokens for (component, _), tokens in settled.items() if component == name)
        own = [s for s in supplies if s.component == name and s.limit == limit]
        free = sum(
            s.capacity_tokens for s in supplies if s.component == name and s.limit != limit and s.limit not in done
        )
        held = sum(s.capacity_tokens for s in own if s.factor)
        had = sum(t for t, s in zip(now, supplies, strict=True) if s.component == name and s.limit == limit)
        highs.append(min(held, room))
        lows.append(min(highs[-1], max(0, room - free)))
        weights.append(Fraction(had) if had else sum((s.pull for s in own), Fraction(0)) / 1000)
    if not sum(lows) <= goal <= sum(highs):
        budget = sum(totals.values())
        reach = sum(highs) if goal > sum(highs) else sum(lows)
        raise _broken(limit, goal, reach, budget, where)
    spread = water_fill(goal - sum(lows), weights, [high - low for high, low in zip(highs, lows, strict=True)])
    return {(name, limit): low + more for name, low, more in zip(names, lows, spread, strict=True)}


def _broken(limit: str, goal: int, reach: int, budget: int, where: str) -> QuotaError:
    share = reach * 10_000 // budget / 10_000
    if limit == SYNTHETIC:
        share = -(-reach * 10_000 // budget) / 10_000
        what = f"synthetic_cap allows {goal:,} tokens, the components need at least {reach:,} synthetic ones"
        fix = f"set synthetic_cap to at least {share:g}, or give the components more text that people wrote"
    else:
        language = limit.removeprefix(NATIVE)
        what = f"native_floors asks for {goal:,} tokens people wrote in `{language}`, the components hold {reach:,}"
        fix = f"set native_floors.{language} to at most {share:g}, or raise max_repeats or weights of its components"
    return QuotaError(f"{what}: {abs(goal - reach):,} tokens apart", where=where, fix=fix)


def _shared_out(
    supplies: Sequence[Supply], totals: Mapping[str, int], settled: Mapping[tuple[str, str], int]
) -> list[int]:
    targets = [0] * len(supplies)
    done = {limit for _, limit in settled}
    for name, total in totals.items():
        own = [i for i, s in enumerate(supplies) if s.component == name]
        parts = [
            (tokens, [i for i in own if supplies[i].limit == limit])
            for (c, limit), tokens in settled.items()
            if c == name
        ]
        rest = total - sum(tokens for tokens, _ in parts)
        for tokens, members in [*parts, (rest, [i for i in own if supplies[i].limit not in done])]:
            shares = water_fill(
                tokens, [supplies[i].pull for i in members], [supplies[i].capacity_tokens for i in members]
            )
            for i, share in zip(members, shares, strict=True):
                targets[i] = share
    return targets
