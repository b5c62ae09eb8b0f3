"""How much more of some documents than of others: quality curves and buckets, cluster sizes, floors and caps.

Contract: within a component every document of a source belongs to one stratum: its quality bucket, its cluster-size
factor and the limit (native floor, synthetic cap) it counts for. A stratum's factor multiplies its tokens where a
component's tokens are shared out; repeat caps stay as they are. Buckets hold equal tokens, worst quality first, ties in
catalogue order. Factors are millionths, computed in decimal arithmetic: the same on every machine.
Source of the curve: Olmo 3 (arXiv 2512.13961), quality-aware upsampling; of cluster factors: FineWeb2's rehydration.

Shapes: n documents of one source.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal, localcontext
from fractions import Fraction

import numpy as np

from mixes.catalog import HUMAN, Kind
from mixes.spec import BucketsConfig, CurveConfig, MixConfig
from pipeline.core.errors import QuotaError

MILLION = 1_000_000
SYNTHETIC = "synthetic"
NATIVE = "native "
DIGITS = Context(prec=40)  # decimal results are correctly rounded: no machine differs
POWER_STEPS = 20  # tried between the power asked for and none
HALVINGS = 60  # of the interval of lambda
STEEPEST = Decimal(400)  # lambda above which the best bucket takes everything


@dataclass(frozen=True)
class Stratum:
    """Documents of one source that are treated alike within a component."""

    bucket: int = -1  # of quality, worst first; -1: quality does not count
    cluster_factor: float = 1.0
    limit: str = ""  # `native ko`, `synthetic` or none


EVERY = Stratum()


def limit_of(kind: Kind, mix: MixConfig) -> str:
    """The floor or cap a document counts for."""
    if kind.maker != HUMAN:
        return SYNTHETIC if mix.synthetic_cap is not None else ""
    return f"{NATIVE}{kind.lang}" if kind.lang in mix.native_floors else ""


def bucket_of(quality_n: np.ndarray, length_n: np.ndarray, buckets: int) -> np.ndarray:
    """[n] int16 bucket of each document, 0 the worst; NaN has none, -1."""
    known = np.flatnonzero(~np.isnan(quality_n))
    bits = quality_n[known].astype(np.float32).view(np.int32)
    rising = np.where(bits < 0, bits ^ np.int32(0x7FFFFFFF), bits)  # floats as integers of the same order
    order = known[np.argsort(rising, kind="stable")]
    before = np.cumsum(length_n[order], dtype=np.int64) - length_n[order]
    found = np.full(quality_n.shape[0], -1, np.int16)
    total = int(length_n[order].sum(dtype=np.int64))
    found[order] = before * buckets // max(total, 1)
    return found


def cluster_place_of(size_n: np.ndarray, repeats: dict[int, float]) -> np.ndarray:
    """[n] int16: the place of the factor in the rising sizes of `repeats`, 0 where none applies."""
    return np.searchsorted(np.array(sorted(repeats), np.int64), size_n, side="right").astype(np.int16)


def bucket_factors(quality: CurveConfig | BucketsConfig, multiplier: Fraction, where: str) -> list[Fraction]:
    """A factor a bucket.

    Args:
        quality: What the component asks for.
        multiplier: Tokens the component is to give over the tokens it has: the curve's mean.
        where: The component, for messages.

    Raises:
        QuotaError: no curve gives that much within `top_repeats`.
    """
    if isinstance(quality, BucketsConfig):
        return [Fraction(repr(factor)) for factor in quality.factors]
    return curve(quality, multiplier, where)


def stratum_factors(
    mix: MixConfig, held: Sequence[tuple[str, Stratum, int]], wanted: Mapping[str, int], where: str
) -> list[Fraction]:
    """A factor for each stratum: of its quality bucket times that of its cluster sizes.

    Args:
        mix: The mix.
        held: Component, stratum and unique tokens of each.
        wanted: Component -> tokens it is to give.
        where: For messages.
    """
    buckets: dict[str, list[Fraction]] = {}
    for name, component in mix.components.items():
        if component.quality is not None:
            # The curve's mean is over all buckets: the discarded ones hold as many tokens as each of the others.
            unique = sum(tokens for component_name, _, tokens in held if component_name == name)
            kept = {stratum.bucket for component_name, stratum, _ in held if component_name == name} - {-1}
            multiplier = Fraction(wanted[name] * max(len(kept), 1), max(unique, 1) * component.quality.buckets)
            buckets[name] = bucket_factors(component.quality, multiplier, f"{where}, component `{name}`")
    return [
        (buckets[name][stratum.bucket] if stratum.bucket >= 0 else Fraction(1)) * Fraction(repr(stratum.cluster_factor))
        for name, stratum, _ in held
    ]


def curve(config: CurveConfig, multiplier: Fraction, where: str) -> list[Fraction]:
    """[buckets] repeats with the mean `multiplier` and at most `top_repeats` in the last: never falling."""
    with localcontext(DIGITS):
        mean = Decimal(multiplier.numerator) / Decimal(multiplier.denominator)
        top = Decimal(repr(config.top_repeats))
        reach = _reach(config)
        kept = sum(1 for x in reach if x is not None)
        if not kept:
            what = f"the quality curve discards all {config.buckets} buckets"
            raise QuotaError(what, where=where, fix=f"discard less than {config.discard:g}, or use more buckets")
        if mean * len(reach) > top * kept:
            need = mean * len(reach) / kept
            raise QuotaError(
                f"the quality curve keeps {kept} of {len(reach)} buckets, which must then be seen {need:.2f} times on "
                f"average: more than top_repeats {config.top_repeats:g}",
                where=where,
                fix=f"set top_repeats and max_repeats to at least {need:.2f}, or discard less",
            )
        for step in range(POWER_STEPS, -1, -1):
            power = Decimal(repr(config.power)) * step / POWER_STEPS
            shape = _shape(reach, power, Decimal(0))
            if shape[-1] * len(reach) * mean <= top * sum(shape):
                break
        else:
            raise AssertionError("a flat curve stays below the top")
        low, high = Decimal(0), STEEPEST
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            tried = _shape(reach, power, middle)
            if tried[-1] * len(reach) * mean <= top * sum(tried):
                low = middle
            else:
                high = middle
        shape = _shape(reach, power, low)
        scale = mean * len(reach) / sum(shape)
        return [Fraction(int((value * scale * MILLION).to_integral_value()), MILLION) for value in shape]


def _reach(config: CurveConfig) -> list[Decimal | None]:
    """How far each bucket's middle lies between the discarded part (0) and the best (1); None: discarded."""
    discard = Decimal(repr(config.discard))
    middles = [(Decimal(bucket) + Decimal("0.5")) / config.buckets for bucket in range(config.buckets)]
    return [(x - discard) / (1 - discard) if x > discard else None for x in middles]


def _shape(reach: Sequence[Decimal | None], power: Decimal, steepness: Decimal) -> list[Decimal]:
    return [Decimal(0) if x is None else (power * x.ln() + steepness * (x - 1)).exp() for x in reach]
