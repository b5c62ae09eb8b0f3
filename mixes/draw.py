"""Which documents each component takes from its sources, in which order, and how the sources are interleaved.

Contract: a document that was drawn e times since the chain began is next drawn in epoch e of its source, and epoch e
runs through the source in the order Permutation(n, derive_seed(seed, source, e)) of its n documents. Without
conditions and with a fresh chain, draw j is therefore the (j mod n)-th of epoch j // n; with conditions, several
components over one source, or earlier phases, repeat caps still hold for every single document, because draws are
counted by document over the whole chain. Everything is integer arithmetic on the catalogue's order.

Shapes: D documents of the catalogue, E documents a pool accepts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import floor

import numpy as np
import polars as pl
from numba import njit

from mixes.catalog import Catalogue
from mixes.quota import exact
from mixes.spec import ComponentConfig, PlanConfig
from pipeline.core.errors import ConfigError, unknown_name
from pipeline.core.rng import Permutation, derive_seed

REASONS = ("where", "minimum_tokens", "maximum_tokens", "longer_than_row")
KEY_BITS = 62  # of an interleaving key, so that it stays a positive int64


@dataclass(frozen=True)
class Pool:
    """What one component accepts of one source."""

    component: str
    source: int  # index into the catalogue's sources
    max_repeats: float
    documents_E: np.ndarray  # int64 catalogue rows, rising


@dataclass(frozen=True)
class Sorted:
    """All pools, what was left out of each, and why each document is in none."""

    pools: tuple[Pool, ...]  # by component, then source
    excluded: dict[str, dict[str, dict[str, dict[str, int]]]]  # component -> source -> reason -> documents, tokens
    reason_D: np.ndarray  # int8: -1 accepted by some component, -2 named by none, else index into REASONS


def sort_out(catalogue: Catalogue, config: PlanConfig) -> Sorted:
    """Sort the catalogue's documents into pools. Raises `ConfigError` for a pattern that names no source."""
    pools: list[Pool] = []
    excluded: dict[str, dict[str, dict[str, dict[str, int]]]] = {}
    reason_D = np.full(catalogue.documents, -2, np.int8)
    for name in sorted(config.mix.components):
        component = config.mix.components[name]
        verdict_D = _verdicts(catalogue, component, config.context_tokens)
        for source in _sources_named(catalogue, name, component):
            rows = catalogue.of_source[source]
            verdict = verdict_D[rows]
            pools.append(Pool(name, source, component.max_repeats, rows[verdict < 0]))
            reason_D[rows[verdict < 0]] = -1
            undecided = rows[(verdict >= 0) & (reason_D[rows] == -2)]
            reason_D[undecided] = verdict_D[undecided]
            for index, reason in enumerate(REASONS):
                left_out = rows[verdict == index]
                if left_out.size:
                    counts = {"documents": left_out.size, "tokens": int(catalogue.length_D[left_out].sum())}
                    excluded.setdefault(name, {}).setdefault(catalogue.sources[source], {})[reason] = counts
    return Sorted(tuple(pools), excluded, reason_D)


def _sources_named(catalogue: Catalogue, name: str, component: ComponentConfig) -> list[int]:
    found: set[int] = set()
    for pattern in component.from_:
        hits = {i for i, source in enumerate(catalogue.sources) if fnmatchcase(source, pattern)}
        if not hits:
            raise unknown_name("source or synthetic set", pattern, catalogue.sources, where=f"component `{name}`, from")
        found |= hits
    return sorted(found)


def _verdicts(catalogue: Catalogue, component: ComponentConfig, context_tokens: int) -> np.ndarray:
    """[D] int8: -1 accepted, else the first reason in REASONS that speaks against the document."""
    length_D = catalogue.length_D
    longest = component.maximum_tokens or int(length_D.max(initial=0))
    against = [
        ~_condition(catalogue, component.where),
        length_D < component.minimum_tokens,
        length_D > longest,
        (length_D > context_tokens) & component.whole,
    ]
    verdict_D = np.full(catalogue.documents, -1, np.int8)
    for index in range(len(REASONS) - 1, -1, -1):
        verdict_D[against[index]] = index
    return verdict_D


def _condition(catalogue: Catalogue, where: str) -> np.ndarray:
    """[D] bool: the condition holds; null counts as false."""
    if not where:
        return np.ones(catalogue.documents, bool)
    expression = pl.sql_expr(where)
    names = expression.meta.root_names()
    if not names:
        raise ConfigError(f"`{where}` names no column of the document table", where="where", fix="leave it out")
    return catalogue.columns(names).select(expression.fill_null(value=False).alias("kept"))["kept"].to_numpy()


def draws_left(catalogue: Catalogue, pool: Pool, max_repeats: float, uses_D: np.ndarray) -> np.ndarray:
    """[E] int64: how often each document of the pool may still be drawn.

    A cap with a fraction f lets a fixed share f of the source's documents be seen once more than the others.
    """
    cap = exact(max_repeats)
    whole = floor(cap)
    source_documents = catalogue.of_source[pool.source]
    favoured = floor((cap - whole) * source_documents.shape[0])
    place_E = np.searchsorted(source_documents, pool.documents_E)
    seed = derive_seed("one more repeat", catalogue.sources[pool.source])
    more_E = Permutation(source_documents.shape[0], seed).take(place_E) < favoured
    return np.maximum(whole + more_E.astype(np.int64) - uses_D[pool.documents_E], 0)


def capacity(catalogue: Catalogue, pool: Pool, max_repeats: float, uses_D: np.ndarray) -> int:
    """Tokens the pool can still give."""
    left_E = draws_left(catalogue, pool, max_repeats, uses_D)
    return int((left_E * catalogue.length_D[pool.documents_E]).sum())


def draw(catalogue: Catalogue, pool: Pool, uses_D: np.ndarray, seed: int, target_tokens: int) -> np.ndarray:
    """int64 catalogue rows in the order they are drawn, just enough for `target_tokens` or all the cap allows."""
    source_documents = catalogue.of_source[pool.source]
    place_E = np.searchsorted(source_documents, pool.documents_E)
    uses_E = uses_D[pool.documents_E]
    cap_E = uses_E + draws_left(catalogue, pool, pool.max_repeats, uses_D)
    parts: list[np.ndarray] = [np.empty(0, np.int64)]
    tokens = 0
    epoch, end = int(uses_E.min(initial=0)), int(cap_E.max(initial=0))
    while tokens < target_tokens and epoch < end:
        open_n = np.zeros(source_documents.shape[0], bool)
        open_n[place_E[(uses_E <= epoch) & (epoch < cap_E)]] = True
        order_n = Permutation(open_n.shape[0], derive_seed(seed, catalogue.sources[pool.source], epoch)).all()
        chosen = source_documents[order_n[open_n[order_n]]]
        reached = tokens + np.cumsum(catalogue.length_D[chosen])
        taken = chosen[: int(np.searchsorted(reached, target_tokens)) + 1]
        tokens += int(catalogue.length_D[taken].sum())
        parts.append(taken)
        epoch += 1
    return np.concatenate(parts)


def interleave(
    catalogue: Catalogue, drawn: Sequence[np.ndarray], targets: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """One stream from several: next comes always the pool that has the smallest part of its target behind it.

    Any prefix of the stream keeps the targets' proportions within a document or two of each pool.

    Returns:
        (int64 catalogue row, int32 pool) of each document of the stream.
    """
    documents = np.concatenate(drawn)
    ends = np.cumsum([rows.shape[0] for rows in drawn], dtype=np.int64)
    longest = int(catalogue.length_D[documents].sum()) if documents.size else 0
    shift = KEY_BITS - max(longest, 1).bit_length()
    order, pool = _merge(catalogue.length_D[documents], ends, np.maximum(np.array(targets, np.int64), 1), shift)
    return documents[order], pool


@njit(cache=True)
def _merge(lengths: np.ndarray, ends: np.ndarray, targets: np.ndarray, shift: int) -> tuple[np.ndarray, np.ndarray]:
    count, pools = lengths.shape[0], ends.shape[0]
    cursor = np.zeros(pools, np.int64)
    cursor[1:] = ends[:-1]
    tokens = np.zeros(pools, np.int64)
    key = np.zeros(pools, np.int64)
    order = np.empty(count, np.int64)
    pool_of = np.empty(count, np.int32)
    for i in range(count):
        best = -1
        for pool in range(pools):
            if cursor[pool] < ends[pool] and (best < 0 or key[pool] < key[best]):
                best = pool
        order[i] = cursor[best]
        pool_of[i] = best
        tokens[best] += lengths[cursor[best]]
        key[best] = (tokens[best] << shift) // targets[best]
        cursor[best] += 1
    return order, pool_of
