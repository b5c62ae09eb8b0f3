"""What is in a segment, to the token: by component, source, language, domain, licence and maker.

Contract: `plan_statistics` is a pure function of the plan's files and its shards' document tables; the mix step writes
it as `stats.json`. Planned tokens count every repeat; unique tokens only a document's first draw in the whole chain.
A document is synthetic when it has a maker. Cost: the document tables' small columns and the pieces, no tokens.

Shapes: P pieces, R rows, D documents of the segment's shards.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from mixes.catalog import HUMAN, NO_LANGUAGE, NO_VALUE, document_columns, draws_before
from pipeline.core.files import read_json
from pipeline.core.plans import Plan, Segment, read_rows

GROUPS = ("component", "source", "lang", "domain", "license", "maker")


def first_seen_pieces(shard_P: np.ndarray, start_P: np.ndarray, uses_before_P: np.ndarray) -> np.ndarray:
    """[P] bool: the piece's tokens are served for the first time in the chain."""
    place = pl.DataFrame({"shard": shard_P, "start": start_P})
    return place.select(pl.struct("shard", "start").is_first_distinct())["shard"].to_numpy() & (uses_before_P == 0)


def plan_statistics(plan: Plan, segment: Segment) -> dict[str, Any]:
    """Composition, repeats, lengths and packing of one segment of a plan.

    Returns:
        A JSON-ready mapping; every `tokens` is a whole number, every share is of the segment's tokens.
    """
    first_piece, table = read_rows(plan, segment)
    documents, first_document_S = document_columns(
        plan.store, segment.shards, ["lang", "domain", "license", "maker", "start", "length"]
    )
    pieces = pl.DataFrame(pl.from_arrow(table))
    row_P = first_document_S[pieces["shard"].to_numpy()] + pieces["document"].to_numpy()
    earlier = [other for other in plan.segments if other.first_row < segment.first_row]
    uses_D = draws_before(plan, earlier, segment.shards, first_document_S, documents["start"].to_numpy())
    new_P = first_seen_pieces(pieces["shard"].to_numpy(), pieces["start"].to_numpy(), uses_D[row_P])
    facts = documents.select(
        pl.col("lang").fill_null(NO_LANGUAGE),
        pl.col("domain", "license").fill_null(NO_VALUE),
        pl.col("maker").fill_null(HUMAN),
        document_start=pl.col("start"),
        document_length=pl.col("length"),
    )[row_P]
    named = pieces.with_columns(
        source=pl.Series(segment.sources)[pieces["source"]],
        component=pl.Series(segment.components)[pieces["component"]],
        unique=pl.Series(new_P),
        place=pl.Series(row_P),
    ).hstack(facts)
    draws = named.filter(pl.col("start") == pl.col("document_start"))
    pieces_per_row = np.diff(first_piece)
    return {
        "name": segment.name,
        "fingerprint": segment.fingerprint,
        "rows": segment.rows,
        "context_tokens": segment.context_tokens,
        "tokens": segment.tokens,
        "padding_tokens": segment.padding_tokens,
        "fill": segment.tokens / (segment.rows * segment.context_tokens),
        "unique_tokens": int(named.filter("unique")["length"].sum()),
        "synthetic_share": _share(named.filter(pl.col("maker") != HUMAN), segment),
        "targets": _targets(plan, segment),
        **{f"by_{group}": _composition(named, draws, group, segment) for group in GROUPS},
        "draws_by_times_seen": _times_seen(draws["place"].to_numpy(), uses_D),
        "documents_per_row": {
            "mean": float(pieces_per_row.mean()),
            "most": int(pieces_per_row.max()),
            "histogram": _log2_histogram(pieces_per_row),
        },
        "document_lengths": _log2_histogram(draws["document_length"].to_numpy()),
        "document_lengths_by_source": {
            str(name): _log2_histogram(part["document_length"].to_numpy())
            for (name,), part in sorted(draws.group_by("source"), key=lambda item: str(item[0]))
        },
        "cut_documents": segment.truncated_documents,
        "lost_tokens": int(draws["document_length"].sum()) - segment.tokens,  # ends of documents served in part
        "excluded": read_json(plan.store / segment.folder / "excluded.json"),
    }


def _share(part: pl.DataFrame, segment: Segment) -> float:
    return int(part["length"].sum()) / segment.tokens


def _composition(named: pl.DataFrame, draws: pl.DataFrame, group: str, segment: Segment) -> dict[str, dict[str, Any]]:
    tokens = named.group_by(group).agg(
        tokens=pl.col("length").cast(pl.Int64).sum(),
        unique_tokens=pl.col("length").cast(pl.Int64).filter("unique").sum(),
    )
    documents = draws.group_by(group).agg(
        documents=pl.len(), cut_documents=(pl.col("length") < pl.col("document_length")).sum()
    )
    return {
        row[group]: {
            "tokens": row["tokens"],
            "unique_tokens": row["unique_tokens"],
            "documents": row["documents"] or 0,
            "cut_documents": row["cut_documents"] or 0,
            "share": row["tokens"] / segment.tokens,
        }
        for row in tokens.join(documents, on=group, how="left").sort(group).iter_rows(named=True)
    }


def _times_seen(drawn: np.ndarray, uses_D: np.ndarray) -> dict[str, int]:
    """How many documents of this segment have been seen once, twice, … when it ends."""
    rows, here = np.unique(drawn, return_counts=True)
    times, documents = np.unique(here + uses_D[rows], return_counts=True)
    return {str(t): int(n) for t, n in zip(times, documents, strict=True)}


def _targets(plan: Plan, segment: Segment) -> dict[str, dict[str, dict[str, int]]]:
    """Component -> source -> tokens asked for, planned, and the difference (negative: less than asked)."""
    quota: Mapping[str, Mapping[str, int]] = read_json(plan.store / segment.folder / "quota.json")
    found: dict[str, dict[str, dict[str, int]]] = {}
    for share in segment.shares:
        asked = quota[share.component][share.source]
        found.setdefault(share.component, {})[share.source] = {
            "asked": asked,
            "planned": share.tokens_planned,
            "difference": share.tokens_planned - asked,
        }
    return found


def _log2_histogram(values: np.ndarray) -> dict[str, int]:
    """Counts by power of two: key `2^k` holds the values in [2^k, 2^(k+1)); zero has its own key."""
    if values.size == 0:
        return {}
    exponents = np.frexp(values.astype(np.float64))[1] - 1  # exact: frexp reads the exponent, no logarithm
    found = {"0": int((values == 0).sum())} if (values == 0).any() else {}
    for exponent in range(int(exponents.max()) + 1):
        count = int(((exponents == exponent) & (values > 0)).sum())
        if count:
            found[str(1 << exponent)] = count
    return found
