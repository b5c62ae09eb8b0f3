"""Which documents each component takes from its sources, and in which order.

Contract: a document that was drawn e times since the chain began is next drawn in epoch e of its source, and epoch e
runs through the source in the order Permutation(n, derive_seed(seed, source, e)) of its n documents. Without
conditions and with a fresh chain, draw j is therefore the (j mod n)-th of epoch j // n; with conditions, several
components over one source, or earlier phases, repeat caps still hold for every single document, because draws are
counted by document over the whole chain. A document that is served in part counts as drawn, its end is not served
later. Everything is integer arithmetic on the catalogue's order. Cost: one walk over a source an epoch and pool, about
20 million documents a second; 2 bytes a document and component beside the catalogue.

Shapes: D documents of the catalogue, n documents of a source, N documents a pool draws.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from fractions import Fraction
from math import floor
from typing import Any

import numpy as np
import polars as pl
from numba import njit

from mixes.catalog import Catalogue
from mixes.quota import exact
from mixes.spec import ComponentConfig, CurveConfig, PlanConfig
from mixes.strata import EVERY, Stratum, bucket_of, cluster_place_of, limit_of
from pipeline.core.errors import ConfigError, unknown_name
from pipeline.core.rng import Permutation, derive_seed, image_of

REASONS = ("where", "minimum_tokens", "maximum_tokens", "longer_than_row", "no_quality", "quality")
BLOCK = 256  # documents drawn at a time
MOST_USES = 2**16 - 1  # that are counted of a document
NOT_NAMED = -2  # of `Sorted.reason_D`
ACCEPTED = -1
Excluded = dict[str, dict[str, dict[str, dict[str, int]]]]  # component -> source -> reason -> documents, tokens


@dataclass(frozen=True)
class Pool:
    """What one component accepts of one source's documents, of one stratum."""

    component: str
    source: int  # index into the catalogue's sources
    max_repeats: float
    stratum: Stratum
    number: int  # of the stratum
    stratum_n: np.ndarray  # int16 stratum of each document of the source; shared by the component's pools of the source
    unique_tokens: int


@dataclass(frozen=True)
class Sorted:
    """All pools, what was left out of each, and why each document is in none."""

    pools: tuple[Pool, ...]  # by component, then source, then stratum
    excluded: Excluded
    reason_D: np.ndarray  # int8: ACCEPTED by some component, NOT_NAMED by any, else index into REASONS


def sort_out(catalogue: Catalogue, config: PlanConfig) -> Sorted:
    """Sort the catalogue's documents into pools. Raises `ConfigError` for a pattern that names no source."""
    pools: list[Pool] = []
    excluded: Excluded = {}
    reason_D = np.full(catalogue.documents, NOT_NAMED, np.int8)
    for name in sorted(config.mix.components):
        component = config.mix.components[name]
        sources = _sources_named(catalogue, name, component)
        verdict_D = _verdicts(catalogue, component, config.context_tokens)
        quality_D = _column(catalogue, "quality", np.float32) if component.quality is not None else None
        cluster_D = _column(catalogue, "cluster_size", np.int32) if component.cluster_repeats else None
        for source in sources:
            rows = catalogue.of_source[source]
            verdict = verdict_D[rows]
            strata, stratum_n = _strata(catalogue, config, name, rows, verdict, quality_D, cluster_D)
            tokens = _tokens_by(rows, stratum_n, catalogue.length_D, len(strata))[1]
            for number, stratum in enumerate(strata):
                pools.append(Pool(name, source, component.max_repeats, stratum, number, stratum_n, int(tokens[number])))
            _note(reason_D, rows, verdict)
            left_out = _left_out(*_tokens_by(rows, verdict, catalogue.length_D, len(REASONS)))
            if left_out:
                excluded.setdefault(name, {})[catalogue.sources[source]] = left_out
    return Sorted(tuple(pools), excluded, reason_D)


def _note(reason_D: np.ndarray, rows: np.ndarray, verdict: np.ndarray) -> None:
    known = reason_D[rows]
    reason_D[rows] = np.where(verdict < 0, ACCEPTED, np.where(known == NOT_NAMED, verdict, known))


@njit(cache=True, nogil=True)
def _tokens_by(row_n: np.ndarray, group_n: np.ndarray, length_D: np.ndarray, groups: int) -> Any:
    """([groups] documents, [groups] tokens) of each group; -1 is none."""
    documents, tokens = np.zeros(groups, np.int64), np.zeros(groups, np.int64)
    for place in range(row_n.shape[0]):
        group = group_n[place]
        if group >= 0:
            documents[group] += 1
            tokens[group] += length_D[row_n[place]]
    return documents, tokens


def _left_out(documents: np.ndarray, tokens: np.ndarray) -> dict[str, dict[str, int]]:
    return {
        reason: {"documents": int(documents[index]), "tokens": int(tokens[index])}
        for index, reason in enumerate(REASONS)
        if documents[index]
    }


def _sources_named(catalogue: Catalogue, name: str, component: ComponentConfig) -> list[int]:
    found: set[int] = set()
    for pattern in component.from_:
        hits = {i for i, source in enumerate(catalogue.sources) if fnmatchcase(source, pattern)}
        if not hits:
            raise unknown_name("source or synthetic set", pattern, catalogue.sources, where=f"component `{name}`, from")
        found |= hits
    return sorted(found)


def _verdicts(catalogue: Catalogue, component: ComponentConfig, context_tokens: int) -> np.ndarray:
    """[D] int8: ACCEPTED, else the first reason in REASONS that speaks against the document."""
    length_D = catalogue.length_D
    verdict_D = np.full(catalogue.documents, ACCEPTED, np.int8)
    if component.whole:
        verdict_D[length_D > context_tokens] = REASONS.index("longer_than_row")
    if component.maximum_tokens is not None:
        verdict_D[length_D > component.maximum_tokens] = REASONS.index("maximum_tokens")
    if component.minimum_tokens:
        verdict_D[length_D < component.minimum_tokens] = REASONS.index("minimum_tokens")
    if component.where:
        expression = pl.sql_expr(component.where)
        names = expression.meta.root_names()
        if not names:
            raise ConfigError(f"`{component.where}` names no column", where="where", fix="leave it out")
        for first, columns in catalogue.columns(names):
            kept = columns.select(expression.fill_null(value=False).alias("kept"))["kept"].to_numpy()
            verdict_D[first : first + columns.height][~kept] = REASONS.index("where")
    return verdict_D


def _column(catalogue: Catalogue, name: str, kind: type) -> np.ndarray:
    """[D] a column of the document tables; null is NaN, or 1 in a whole number."""
    found = np.empty(catalogue.documents, kind)
    for first, columns in catalogue.columns([name]):
        null = np.nan if kind is np.float32 else 1
        found[first : first + columns.height] = columns[name].fill_null(null).to_numpy()
    return found


def _strata(
    catalogue: Catalogue,
    config: PlanConfig,
    name: str,
    rows: np.ndarray,
    verdict: np.ndarray,
    quality_D: np.ndarray | None,
    cluster_D: np.ndarray | None,
) -> tuple[list[Stratum], np.ndarray]:
    """(strata, [n] int16 stratum of each document, -1 excluded); documents without quality get a verdict here."""
    component = config.mix.components[name]
    limits = [limit_of(kind, config.mix) for kind in catalogue.kinds]
    if not any(limits) and quality_D is None and cluster_D is None:
        return [EVERY], np.where(verdict < 0, np.int16(0), np.int16(-1))
    names = sorted({limits[kind] for kind in np.unique(catalogue.kind_D[rows]).tolist()})
    code = np.zeros(rows.shape[0], np.int64)
    if len(names) > 1:
        code += np.array([names.index(limit) if limit in names else 0 for limit in limits])[catalogue.kind_D[rows]]
    factors = [1.0, *(factor for _, factor in sorted(component.cluster_repeats.items()))]
    if cluster_D is not None:
        code += cluster_place_of(cluster_D[rows], component.cluster_repeats).astype(np.int64) * len(names)
    buckets = 0
    if quality_D is not None and component.quality is not None:
        buckets = component.quality.buckets
        accepted = np.flatnonzero(verdict < 0)
        bucket = bucket_of(quality_D[rows[accepted]], catalogue.length_D[rows[accepted]], buckets)
        if accepted.size and (bucket < 0).all():
            source = catalogue.kinds[int(catalogue.kind_D[rows[0]])].source
            raise ConfigError(
                f"component `{name}` asks for quality, but no document of `{source}` has any",
                where=f"mix of phase `{config.phase}`",
                fix="set `encode.quality_signal` to a signal's column, for example of a `classifier` block",
            )
        verdict[accepted[bucket < 0]] = REASONS.index("no_quality")
        dead = accepted[(bucket >= 0) & _discarded(component, buckets)[np.maximum(bucket, 0)]]
        verdict[dead] = REASONS.index("quality")
        code[accepted] += np.maximum(bucket, 0).astype(np.int64) * len(names) * len(factors)
    code[verdict >= 0] = -1
    used = np.unique(code[code >= 0])
    place = np.full(int(used[-1]) + 1 if used.size else 1, -1, np.int16)
    place[used] = np.arange(used.size)
    strata = [
        Stratum(
            bucket=c // (len(names) * len(factors)) if buckets else -1,
            cluster_factor=factors[c // len(names) % len(factors)],
            limit=names[c % len(names)] if names else "",
        )
        for c in used.tolist()
    ]
    return strata or [EVERY], np.where(code < 0, np.int16(-1), place[np.maximum(code, 0)])


def _discarded(component: ComponentConfig, buckets: int) -> np.ndarray:
    """[buckets] bool: the bucket is left out whatever the budget."""
    quality = component.quality
    assert quality is not None
    if isinstance(quality, CurveConfig):
        kept_from = exact(quality.discard) * buckets
        return np.array([Fraction(2 * bucket + 1, 2) <= kept_from for bucket in range(buckets)])
    return np.array([factor == 0 for factor in quality.factors])


@dataclass(frozen=True)
class _Cap:
    """How often documents of a source may be drawn: `whole` times, and a fixed share of them once more."""

    whole: int
    favoured: int
    order: Permutation


def _cap(catalogue: Catalogue, pool: Pool, max_repeats: float) -> _Cap:
    cap = exact(max_repeats)
    whole = floor(cap)
    documents = catalogue.of_source[pool.source].shape[0]
    order = Permutation(documents, derive_seed("one more repeat", catalogue.sources[pool.source]))
    return _Cap(whole, floor((cap - whole) * documents), order)


def capacity(catalogue: Catalogue, pool: Pool, max_repeats: float, uses_D: np.ndarray) -> int:
    """Tokens the pool can still give under a repeat cap.

    A cap with a fraction f lets a fixed share f of the source's documents be seen once more than the others.
    """
    cap = _cap(catalogue, pool, max_repeats)
    rows = catalogue.of_source[pool.source]
    return int(
        _capacity(
            rows, pool.stratum_n, pool.number, catalogue.length_D, uses_D, cap.whole, cap.favoured, *cap.order.network
        )
    )


@njit(cache=True, nogil=True)
def _capacity(
    row_n: np.ndarray, stratum_n: np.ndarray, stratum: int, length_D: np.ndarray, uses_D: np.ndarray, whole: int,
    favoured: int, size: np.uint64, left_base: np.uint64, right_base: np.uint64, keys: np.ndarray,
) -> Any:  # fmt: skip
    tokens = np.int64(0)
    for place in range(row_n.shape[0]):
        if stratum_n[place] != stratum:
            continue
        times = np.int64(whole)
        if favoured > 0 and image_of(np.uint64(place), size, left_base, right_base, keys) < np.uint64(favoured):
            times += 1
        left = times - np.int64(uses_D[row_n[place]])
        if left > 0:
            tokens += left * np.int64(length_D[row_n[place]])
    return tokens


def draw(catalogue: Catalogue, pool: Pool, uses_D: np.ndarray, seed: int, target_tokens: int) -> np.ndarray:
    """[N] catalogue rows in the order they are drawn, just enough for `target_tokens` or all the cap allows."""
    rows = catalogue.of_source[pool.source]
    cap = _cap(catalogue, pool, pool.max_repeats)
    parts: list[np.ndarray] = [np.empty(0, rows.dtype)]
    tokens = 0
    documents, epoch = _held(rows, pool.stratum_n, pool.number, uses_D)
    while tokens < target_tokens and epoch < cap.whole + (cap.favoured > 0):
        order = Permutation(rows.shape[0], derive_seed(seed, catalogue.sources[pool.source], epoch))
        taken = np.empty(documents, rows.dtype)
        count, given = _draw(
            rows, pool.stratum_n, pool.number, catalogue.length_D, uses_D, epoch, cap.whole, cap.favoured,
            *cap.order.network[1:], order.network[3], np.uint64(rows.shape[0]), target_tokens - tokens, taken,
        )  # fmt: skip
        tokens += int(given)
        parts.append(taken[:count].copy() if count < documents else taken)
        epoch += 1
    return np.concatenate(parts) if len(parts) != 2 else parts[1]


@njit(cache=True, nogil=True)
def _held(row_n: np.ndarray, stratum_n: np.ndarray, stratum: int, uses_D: np.ndarray) -> Any:
    """(documents of the stratum, how often its least drawn one was drawn)."""
    documents, least = 0, np.int64(MOST_USES)
    for place in range(row_n.shape[0]):
        if stratum_n[place] == stratum:
            documents += 1
            least = min(least, np.int64(uses_D[row_n[place]]))
    return documents, least


@njit(cache=True, nogil=True)
def _draw(
    row_n: np.ndarray, stratum_n: np.ndarray, stratum: int, length_D: np.ndarray, uses_D: np.ndarray, epoch: int,
    whole: int, favoured: int, left_base: np.uint64, right_base: np.uint64, favour_keys: np.ndarray,
    epoch_keys: np.ndarray, size: np.uint64, target: int, taken: np.ndarray,
) -> Any:  # fmt: skip
    """(documents, tokens) drawn in one epoch; all permutations of one size have the same digits.

    A block at a time: places are scattered over memory, and the processor waits for several at once only where no
    decision stands between them.
    """
    count, tokens = 0, np.int64(0)
    place_b, row_b = np.empty(BLOCK, np.int64), np.empty(BLOCK, np.int64)
    use_b, length_b = np.empty(BLOCK, np.int64), np.empty(BLOCK, np.int64)
    for first in range(0, row_n.shape[0], BLOCK):
        block = min(BLOCK, row_n.shape[0] - first)
        for b in range(block):
            place_b[b] = np.int64(image_of(np.uint64(first + b), size, left_base, right_base, epoch_keys))
        for b in range(block):
            row_b[b] = row_n[place_b[b]] if stratum_n[place_b[b]] == stratum else -1
        for b in range(block):
            row = max(row_b[b], 0)
            use_b[b], length_b[b] = uses_D[row], length_D[row]
        for b in range(block):
            if row_b[b] < 0 or use_b[b] > epoch:
                continue
            if epoch >= whole and not (
                epoch == whole
                and image_of(np.uint64(place_b[b]), size, left_base, right_base, favour_keys) < np.uint64(favoured)
            ):
                continue
            taken[count] = row_b[b]
            count += 1
            tokens += length_b[b]
            if tokens >= target:
                return count, tokens
    return count, tokens
