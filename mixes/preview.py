"""What a mix would become, from histograms of document lengths alone: rows, fill, padding, epochs, cut documents.

Contract: a pure function of the mix and the histograms; quotas are solved as for a plan, and each source gives every
length the same share of its target. Rows, padding and fill are those of packing all pieces at once (a plan packs
windows of 100,000 pieces and carries one row over: it differs by less than a row a window). Later phases see what
earlier ones took, spread evenly over each source. Cost: milliseconds, whatever the number of documents.

Shapes: H distinct lengths of one source, T = row tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mixes.catalog import Catalogue
from mixes.draw import Pool, sort_out
from mixes.histogram import pack_histogram
from mixes.limits import Limits, hold
from mixes.quota import Ask, Supply, exact, solve, wanted_tokens
from mixes.spec import PlanConfig
from mixes.strata import EVERY, Stratum, stratum_factors

LEAST_DOCUMENTS = 1_000_000  # packed


@dataclass(frozen=True)
class Lengths:
    """How long the documents are that one component may take from one source."""

    component: str
    source: str
    length_H: np.ndarray  # int64 tokens, rising
    count_H: np.ndarray  # int64 documents
    stratum: Stratum = EVERY

    @property
    def tokens(self) -> int:
        return int((self.length_H * self.count_H).sum())

    @property
    def documents(self) -> int:
        return int(self.count_H.sum())


@dataclass(frozen=True)
class SourcePreview:
    """What one component takes from one source."""

    component: str
    source: str
    tokens: int
    documents: int
    available_tokens: int
    repeats: float  # over this phase: tokens taken over tokens there are
    repeats_so_far: float  # over all phases up to this one
    unique_tokens: int
    cut_documents: int


@dataclass(frozen=True)
class Preview:
    """One phase."""

    phase: str
    context_tokens: int
    rows: int
    steps: int
    tokens: int
    padding_tokens: int
    fill: float
    documents: int
    documents_per_row: float
    cut_documents: int
    whole_documents_cut: int  # of components that promise whole documents: none, by construction
    excluded_documents: int  # by length, for the components that could have taken them
    unique_tokens: int
    sources: tuple[SourcePreview, ...]


def lengths_of(catalogue: Catalogue, config: PlanConfig) -> list[Lengths]:
    """The histograms of what each component accepts, conditions applied, from the document tables."""
    return [_lengths_of(catalogue, pool) for pool in sort_out(catalogue, config).pools]


def _lengths_of(catalogue: Catalogue, pool: Pool) -> Lengths:
    rows = catalogue.of_source[pool.source][pool.stratum_n == pool.number]
    length_H, count_H = np.unique(catalogue.length_D[rows], return_counts=True)
    return Lengths(pool.component, catalogue.sources[pool.source], length_H.astype(np.int64), count_H, pool.stratum)


def preview(lengths: Sequence[Lengths], config: PlanConfig, taken: Mapping[str, float]) -> Preview:
    """What the phase would be.

    Args:
        lengths: One entry for each component and source (or stratum of it).
        config: As for a plan.
        taken: Source -> how often its documents were seen on average in earlier phases.

    Raises:
        QuotaError: the sources cannot give what the mix asks for.
    """
    components = config.mix.components
    kept, excluded = _within_limits(lengths, config)
    ask = Ask(
        budget_tokens=config.rows * config.context_tokens,
        weights={name: component.weight for name, component in components.items()},
        max_repeats={name: component.max_repeats for name, component in components.items()},
        shortage=config.mix.shortage,
        where=f"mix of phase `{config.phase}`",
    )

    def capacity(one: Lengths, max_repeats: float) -> int:
        return max(0, int(one.tokens * (exact(max_repeats) - exact(taken.get(one.source, 0.0)))))

    def capacity_at(component: str, max_repeats: float) -> int:
        return sum(capacity(one, max_repeats) for one in kept if one.component == component)

    held = [(one.component, one.stratum, one.tokens) for one in kept]
    factors = stratum_factors(config.mix, held, wanted_tokens(ask), ask.where)
    supplies = [
        Supply(
            component=one.component,
            source=one.source,
            unique_tokens=one.tokens,
            capacity_tokens=capacity(one, components[one.component].max_repeats),
            factor=factor,
            limit=one.stratum.limit,
        )
        for one, factor in zip(kept, factors, strict=True)
    ]
    limits = Limits(config.mix.native_floors, config.mix.synthetic_cap)
    targets = hold(solve(ask, supplies, capacity_at), supplies, limits, ask.where)
    return _packed(kept, targets, config, excluded, taken)


def _within_limits(lengths: Sequence[Lengths], config: PlanConfig) -> tuple[list[Lengths], int]:
    """(histograms of the lengths each component accepts, documents left out)."""
    kept, excluded = [], 0
    for one in lengths:
        component = config.mix.components[one.component]
        longest = component.maximum_tokens or int(one.length_H.max(initial=0))
        longest = min(longest, config.context_tokens) if component.whole else longest
        own = (one.length_H >= component.minimum_tokens) & (one.length_H <= longest)
        excluded += int(one.count_H[~own].sum())
        kept.append(Lengths(one.component, one.source, one.length_H[own], one.count_H[own], one.stratum))
    return kept, excluded


def _packed(
    kept: Sequence[Lengths], targets: Sequence[int], config: PlanConfig, excluded: int, taken: Mapping[str, float]
) -> Preview:
    context = config.context_tokens
    copies = _copies(kept, targets)
    count_T = np.zeros(context + 1, np.int64)
    sources: dict[tuple[str, str], SourcePreview] = {}
    for one, target in zip(kept, targets, strict=True):
        drawn_H = _shared(one.count_H, target * copies, one.tokens)
        whole_H, rest_H = one.length_H // context, one.length_H % context
        count_T[context] += int((drawn_H * whole_H).sum())
        np.add.at(count_T, rest_H, drawn_H)
        key = one.component, one.source
        sources[key] = _added(sources.get(key), one, drawn_H, target, copies, context, taken.get(one.source, 0.0))
    count_T[0] = 0
    rows, _ = pack_histogram(count_T, context)
    tokens = int((count_T * np.arange(context + 1)).sum())
    fill = tokens / (rows * context) if rows else 0.0
    served = round(config.rows * context * fill)
    documents = sum(one.documents for one in sources.values())
    return Preview(
        phase=config.phase,
        context_tokens=context,
        rows=config.rows,
        steps=config.rows // config.rows_per_batch,
        tokens=served,
        padding_tokens=config.rows * context - served,
        fill=fill,
        documents=documents,
        documents_per_row=documents / config.rows,
        cut_documents=sum(one.cut_documents for one in sources.values()),
        whole_documents_cut=sum(
            one.cut_documents for one in sources.values() if config.mix.components[one.component].whole
        ),
        excluded_documents=excluded,
        unique_tokens=sum(one.unique_tokens for one in sources.values()),
        sources=tuple(sources[key] for key in sorted(sources)),
    )


def _copies(kept: Sequence[Lengths], targets: Sequence[int]) -> int:
    """How many such phases are packed together, so that rounding to whole documents does not show in small ones."""
    drawn = sum(target * one.documents / one.tokens for one, target in zip(kept, targets, strict=True) if one.tokens)
    return max(1, round(LEAST_DOCUMENTS / max(drawn, 1.0)))


def _shared(count_H: np.ndarray, target: int, tokens: int) -> np.ndarray:
    """[H] int64 documents drawn of each length: the same share of each, rounded so that no remainder is lost."""
    if not tokens:
        return np.zeros_like(count_H)
    times, part = divmod(target, tokens)
    cumulated = np.floor(np.cumsum(count_H) * (part / tokens)).astype(np.int64)
    return count_H * times + np.diff(cumulated, prepend=0)


def _added(
    known: SourcePreview | None,
    one: Lengths,
    drawn_H: np.ndarray,
    target: int,
    copies: int,
    context: int,
    before: float,
) -> SourcePreview:
    """A source's amounts, with those of one more of its strata."""
    tokens = target + (known.tokens if known else 0)
    available = one.tokens + (known.available_tokens if known else 0)
    repeats = tokens / available if available else 0.0
    cut = round(int(drawn_H[one.length_H > context].sum()) / copies)
    return SourcePreview(
        component=one.component,
        source=one.source,
        tokens=tokens,
        documents=round(int(drawn_H.sum()) / copies) + (known.documents if known else 0),
        available_tokens=available,
        repeats=repeats,
        repeats_so_far=before + repeats,
        unique_tokens=round(min(tokens, available * max(0.0, 1.0 - before))),
        cut_documents=cut + (known.cut_documents if known else 0),
    )
