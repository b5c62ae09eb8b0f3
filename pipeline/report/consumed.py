"""What training has consumed of a segment so far, to the token, by the same groups as the plan's statistics.

Contract: a pure function of the plan's files and the number of rows served: the order of rows is the plan's, so that a
count of them says which documents were in them. When all rows are served the result equals the plan's statistics.
Cost: the pieces and small columns of the document tables, no tokens.

Shapes: P pieces, S shards.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from mixes.catalog import HUMAN, NO_LANGUAGE, NO_VALUE, document_columns
from mixes.loader import pieces_at
from mixes.stats import GROUPS
from pipeline.core.plans import Plan, Segment, read_rows

Composition = Mapping[str, Mapping[str, int]]  # group -> name -> tokens


def consumed_composition(plan: Plan, segment: Segment, served_rows: int) -> Composition:
    """Tokens of the first `served_rows` rows of `segment`, by group and name, in order of name."""
    if not served_rows:
        return {group: {} for group in GROUPS}
    first_piece, table = read_rows(plan, segment)
    _, served_P = pieces_at(segment, first_piece, segment.first_row, served_rows)
    pieces = pl.DataFrame(pl.from_arrow(table))[served_P]
    documents, first_document_S = document_columns(plan.store, segment.shards, ["lang", "domain", "license", "maker"])
    row_P = first_document_S[pieces["shard"].to_numpy()] + pieces["document"].to_numpy()
    named = documents.select(
        pl.col("lang").fill_null(NO_LANGUAGE), pl.col("domain", "license").fill_null(NO_VALUE),
        pl.col("maker").fill_null(HUMAN),
    )[row_P].with_columns(
        source=pl.Series(segment.sources)[pieces["source"]],
        component=pl.Series(segment.components)[pieces["component"]],
        tokens=pieces["length"].cast(pl.Int64),
    )  # fmt: skip
    return {
        group: {
            row[group]: row["tokens"]
            for row in named.group_by(group).agg(pl.col("tokens").sum()).sort(group).iter_rows(named=True)
        }
        for group in GROUPS
    }
