"""What is in a segment, to the token: by component, source, language, domain, licence and maker.

Contract: `segment_statistics` is a pure function of a tally, its segment and the rows' attention costs;
`plan_statistics` makes the tally from the plan's files, the mix step while planning; both give the same mapping, which
the step writes as `stats.json`. Planned tokens count every repeat; unique tokens only a document's first draw in the
whole chain. A document is synthetic when it has a maker; synthetic tokens are told for every name of every group.
Cost: the pieces once, no tokens.

Shapes: R rows, C components, K kinds.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import fsum
from typing import Any

import numpy as np
import polars as pl

from mixes.catalog import HUMAN, Kind, catalogue_of, draws_before
from mixes.order import RowOrder
from mixes.tally import Tally
from pipeline.core.files import read_json
from pipeline.core.plans import Plan, Segment, SegmentRows

GROUPS = ("component", *Kind._fields)
AMOUNTS = ("tokens", "unique_tokens", "synthetic_tokens", "documents", "cut_documents")
BALANCED_RANKS = (2, 4, 8, 16, 32, 64)  # for which the balance of attention costs is told
BALANCED_BATCHES = 256  # looked at, spread over the segment


def plan_statistics(plan: Plan, segment: Segment) -> dict[str, Any]:
    """Composition, repeats, lengths and packing of one segment of a plan.

    Returns:
        A JSON-ready mapping; every `tokens` is a whole number, every share is of the segment's tokens.
    """
    catalogue = catalogue_of(plan.store, segment.tokenizer, segment.shards)
    earlier = [other for other in plan.segments if other.first_row < segment.first_row]
    tally = Tally(catalogue, len(segment.components), segment.context_tokens, draws_before(plan, earlier, catalogue))
    rows = SegmentRows(plan, segment)
    for _, columns in rows.piece_batches():
        row_P = catalogue.first_document_S[columns["shard"]] + columns["document"]
        offset_P = columns["start"] - catalogue.start_D[row_P]
        tally.add(row_P, catalogue.kind_D[row_P], columns["component"], offset_P, columns["length"])
    for first, columns in rows.row_batches():
        last = np.array([min(first + columns["first_piece"].shape[0], segment.rows)])
        tally.add_rows(np.diff(np.append(columns["first_piece"], rows.first_piece(last)))[: segment.rows - first])
    quota = read_json(plan.store / segment.folder / "quota.json")
    excluded = read_json(plan.store / segment.folder / "excluded.json")
    return segment_statistics(tally, rows, quota, excluded)


def segment_statistics(
    tally: Tally, rows: SegmentRows, quota: Mapping[str, Mapping[str, int]], excluded: Mapping[str, Any]
) -> dict[str, Any]:
    """The mapping of `stats.json`."""
    segment = rows.segment
    table = composition(tally, segment)
    human = int(table.filter(pl.col("maker") == HUMAN)["tokens"].sum())
    return {
        "name": segment.name,
        "fingerprint": segment.fingerprint,
        "rows": segment.rows,
        "rows_per_batch": segment.rows_per_batch,
        "context_tokens": segment.context_tokens,
        "tokens": segment.tokens,
        "padding_tokens": segment.padding_tokens,
        "fill": segment.tokens / (segment.rows * segment.context_tokens),
        "unique_tokens": int(tally.unique_tokens_CK.sum()),
        "synthetic_share": (segment.tokens - human) / segment.tokens,
        "targets": _targets(segment, quota),
        **{f"by_{group}": _by(table, group, segment) for group in GROUPS},
        "draws_by_times_seen": _times_seen(tally),
        "documents_per_row": _per_row(tally),
        "document_lengths": _lengths(tally.lengths_KB.sum(axis=0)),
        "document_lengths_by_source": _lengths_by_source(tally),
        "attention": _attention(rows),
        "cut_documents": segment.truncated_documents,
        "lost_tokens": tally.lost_tokens,  # ends of documents served in part
        "excluded": excluded,
    }


def composition(tally: Tally, segment: Segment) -> pl.DataFrame:
    """One row a component and kind that has tokens: its names and amounts."""
    component, kind = np.nonzero(tally.tokens_CK)
    kinds = [tally.catalogue.kinds[number] for number in kind]
    return pl.DataFrame(
        {
            "component": pl.Series([segment.components[number] for number in component], dtype=pl.String),
            **{
                name: pl.Series([value[place] for value in kinds], dtype=pl.String)
                for place, name in enumerate(Kind._fields)
            },
            "tokens": tally.tokens_CK[component, kind],
            "unique_tokens": tally.unique_tokens_CK[component, kind],
            "synthetic_tokens": [
                0 if tally.catalogue.kinds[k].maker == HUMAN else int(tally.tokens_CK[c, k])
                for c, k in zip(component, kind, strict=True)
            ],
            "documents": tally.documents_CK[component, kind],
            "cut_documents": tally.cut_documents_CK[component, kind],
        }
    )


def _by(table: pl.DataFrame, group: str, segment: Segment) -> dict[str, dict[str, Any]]:
    summed = table.group_by(group).agg(pl.col(AMOUNTS).sum()).sort(group)
    return {
        row[group]: {**{name: row[name] for name in AMOUNTS}, "share": row["tokens"] / segment.tokens}
        for row in summed.iter_rows(named=True)
    }


def _times_seen(tally: Tally) -> dict[str, int]:
    """How many documents of this segment have been seen once, twice, … when it ends."""
    documents = tally.documents_by_times_seen()
    return {str(times): int(count) for times, count in enumerate(documents) if count}


def _per_row(tally: Tally) -> dict[str, Any]:
    rows = tally.pieces_in_row
    pieces = np.arange(rows.shape[0])
    histogram: dict[str, int] = {}
    for number, count in zip(pieces.tolist(), rows.tolist(), strict=True):
        if count:
            key = str(1 << number.bit_length() - 1 if number else 0)
            histogram[key] = histogram.get(key, 0) + count
    return {
        "mean": int((pieces * rows).sum()) / int(rows.sum()),
        "most": int(np.flatnonzero(rows)[-1]),
        "histogram": histogram,
    }


def _lengths(count_B: np.ndarray) -> dict[str, int]:
    """Counts by power of two: key `2^k` holds the lengths in [2^k, 2^(k+1))."""
    return {str(1 << power): int(count) for power, count in enumerate(count_B) if count}


def _lengths_by_source(tally: Tally) -> dict[str, dict[str, int]]:
    catalogue = tally.catalogue
    found: dict[str, dict[str, int]] = {}
    for number, source in enumerate(catalogue.sources):
        counts = _lengths(tally.lengths_KB[catalogue.source_K == number].sum(axis=0))
        if counts:
            found[source] = counts
    return found


def _attention(rows: SegmentRows) -> dict[str, Any]:
    """How evenly the attention inside documents is spread over ranks that take equal parts of each global batch: the
    costliest rank over the mean, averaged over batches, as served and as the permutation alone would deal them."""
    segment, order = rows.segment, RowOrder(rows)
    batches = segment.rows // segment.rows_per_batch
    looked_at = np.unique(np.linspace(0, batches - 1, min(batches, BALANCED_BATCHES)).astype(np.int64)).tolist()
    served = np.array([rows.attention(order.batch(number)) for number in looked_at])
    dealt = np.array([rows.attention(order.dealt(number)) for number in looked_at])
    by_ranks = {
        str(ranks): {"served": _unevenness(served, ranks), "dealt": _unevenness(dealt, ranks)}
        for ranks in (*BALANCED_RANKS, segment.rows_per_batch)
        if ranks <= segment.rows_per_batch and segment.rows_per_batch % ranks == 0
    }
    return {"tokens_squared_per_row": int(served.sum()) / served.size, "busiest_over_mean": by_ranks}


def _unevenness(cost_NB: np.ndarray, ranks: int) -> float:
    per_rank = cost_NB.reshape(cost_NB.shape[0], ranks, -1).sum(axis=2)
    ratios = (per_rank.max(axis=1) * ranks / per_rank.sum(axis=1)).tolist()
    return fsum(ratios) / len(ratios)  # exact addition: the same on every machine


def _targets(segment: Segment, quota: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, dict[str, int]]]:
    """Component -> source -> tokens asked for, planned, and the difference (negative: less than asked)."""
    found: dict[str, dict[str, dict[str, int]]] = {}
    for share in segment.shares:
        asked = quota[share.component][share.source]
        found.setdefault(share.component, {})[share.source] = {
            "asked": asked,
            "planned": share.tokens_planned,
            "difference": share.tokens_planned - asked,
        }
    return found
