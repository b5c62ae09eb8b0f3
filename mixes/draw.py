"""Which documents each component takes from its sources, in which order, and how their pieces are interleaved.

Contract: a document that was drawn e times since the chain began is next drawn in epoch e of its source, and epoch e
runs through the source in the order Permutation(n, derive_seed(seed, source, e)) of its n documents. Without
conditions and with a fresh chain, draw j is therefore the (j mod n)-th of epoch j // n; with conditions, several
components over one source, or earlier phases, repeat caps still hold for every single document, because draws are
counted by document over the whole chain. A document longer than a row is a sequence of row-length pieces, of which a
pool gives no more than meet its token target: a document served in part counts as drawn, its end is not served later.
Everything is integer arithmetic on the catalogue's order.

Shapes: D documents of the catalogue, E documents a pool accepts, N documents a pool draws, P pieces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import floor

import numpy as np
import polars as pl

from mixes.catalog import Catalogue
from mixes.quota import exact
from mixes.spec import ComponentConfig, PlanConfig
from pipeline.core.errors import ConfigError, unknown_name
from pipeline.core.rng import Permutation, derive_seed

REASONS = ("where", "minimum_tokens", "maximum_tokens", "longer_than_row")
DIGIT_BITS = 20  # of one step of the long division; a pool's tokens stay below 2^(62 - 20), 4.4e12
DIGITS = 3  # 60 bits of fraction: keys differ wherever the fractions of two realistic quotas do
ONE = 1 << DIGIT_BITS * DIGITS


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


@dataclass(frozen=True)
class Stream:
    """Pieces in the order in which they fill the rows."""

    row_P: np.ndarray  # int64 catalogue row of the piece's document
    pool_P: np.ndarray  # int32
    offset_P: np.ndarray  # int64 tokens, in the document
    length_P: np.ndarray  # int64 tokens, 1..context


def interleave(
    catalogue: Catalogue, drawn: Sequence[np.ndarray], targets: Sequence[int], context_tokens: int
) -> Stream:
    """One stream of pieces from several pools, each cut off once its target is met.

    Pieces stand by the part of their pool's target that is behind them when they end; a pool's last piece, the one that
    reaches beyond the target, comes after all others, and of these first the one that is owed the greatest part of
    itself (largest remainders, as in the quota). So in any prefix of the stream every pool is less than one of its own
    pieces below the common part of its target, never beyond that part, and in the whole stream less than one piece
    beyond the target: what a prefix leaves of the rows as padding takes the same share of every target. Ties go to the
    first pool. Cost: one merge sort of runs that are sorted already.
    """
    streams: list[Stream] = []
    keys: list[np.ndarray] = []
    for pool, (documents_N, target) in enumerate(zip(drawn, targets, strict=True)):
        place_P, offset_P, length_P = cut(catalogue.length_D[documents_N], target, context_tokens)
        pool_P = np.full(length_P.shape[0], pool, np.int32)
        streams.append(Stream(documents_N[place_P], pool_P, offset_P, length_P))
        keys.append(_keys(length_P, target))
    order_P = np.argsort(np.concatenate(keys), kind="stable")
    return Stream(
        *(
            np.concatenate([getattr(stream, name) for stream in streams])[order_P]
            for name in ("row_P", "pool_P", "offset_P", "length_P")
        )
    )


def cut(length_N: np.ndarray, target_tokens: int, context_tokens: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Documents as pieces of `context_tokens` and their rests, up to the piece that meets the target.

    Returns:
        ([P] int64 place in `length_N`, [P] int64 token offset in the document, [P] int64 tokens).
    """
    count_N = -(-length_N // context_tokens)
    place_P = np.repeat(np.arange(length_N.shape[0], dtype=np.int64), count_N)
    first_N = np.cumsum(count_N) - count_N
    offset_P = (np.arange(place_P.shape[0], dtype=np.int64) - first_N[place_P]) * context_tokens
    length_P = np.minimum(length_N[place_P] - offset_P, context_tokens)
    pieces = int(np.searchsorted(np.cumsum(length_P) - length_P, target_tokens))
    return place_P[:pieces], offset_P[:pieces], length_P[:pieces]


def _keys(length_P: np.ndarray, target: int) -> np.ndarray:
    """[P] int64, rising: where in the stream each piece of a pool stands."""
    end_P = np.cumsum(length_P)
    if end_P.shape[0] == 0:
        return end_P
    key_P = _fraction(np.minimum(end_P, target), target)
    if end_P[-1] > target:
        key_P[-1] = ONE + 1 + _fraction(end_P[-1:] - target, int(length_P[-1]))[0]
    return key_P


def _fraction(part_P: np.ndarray, whole: int) -> np.ndarray:
    """[P] int64 floor(part * ONE / whole) for part <= whole, by long division: the product has more than 64 bits."""
    assert whole < 1 << 62 - DIGIT_BITS, whole
    quotient_P, rest_P = part_P // whole, part_P % whole
    for _ in range(DIGITS):
        rest_P = rest_P << DIGIT_BITS
        quotient_P = (quotient_P << DIGIT_BITS) + rest_P // whole
        rest_P = rest_P % whole
    return quotient_P
