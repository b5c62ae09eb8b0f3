"""What training has consumed of a segment so far, to the token, by the same groups as the plan's statistics.

Contract: a pure function of the plan's files and the number of rows served: the order of rows is the plan's, so that a
count of them says which documents were in them. When all rows are served the result equals the plan's statistics.
Cost: the pieces, no tokens and no document tables.

Shapes: P pieces.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from mixes.order import RowOrder, served_pieces
from mixes.stats import GROUPS
from pipeline.core.files import read_json
from pipeline.core.plans import Plan, Segment, SegmentRows

Composition = Mapping[str, Mapping[str, int]]  # group -> name -> tokens


def consumed_composition(plan: Plan, segment: Segment, served_rows: int) -> Composition:
    """Tokens of the first `served_rows` rows of `segment`, by group and name, in order of name."""
    if not served_rows:
        return {group: {} for group in GROUPS}
    rows = SegmentRows(plan, segment)
    _, piece_P = served_pieces(rows, RowOrder(rows), 0, served_rows)
    pieces = rows.pieces(piece_P, ("component", "kind", "length"))
    kinds = pl.DataFrame(read_json(plan.store / segment.folder / "kinds.json"))
    named = kinds[pieces["kind"]].with_columns(
        component=pl.Series(segment.components)[pieces["component"]], tokens=pl.Series(pieces["length"]).cast(pl.Int64)
    )
    return {
        group: {
            row[group]: row["tokens"]
            for row in named.group_by(group).agg(pl.col("tokens").sum()).sort(group).iter_rows(named=True)
        }
        for group in GROUPS
    }
