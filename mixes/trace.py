"""From a training position to its documents, and from a document to every position that served it.

Contract: both are pure functions of the plan and its shards' document tables. Cost: `documents_at` reads the pieces of
the asked rows and the document tables of their shards; `positions_of` scans the id columns and walks the row order
once, in blocks.

Shapes: P pieces.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import polars as pl

from mixes.catalog import document_columns
from mixes.loader import pieces_at
from pipeline.core.errors import InputError
from pipeline.core.plans import Plan, Segment, read_rows
from pipeline.core.rng import Permutation

COLUMNS = ("id", "source", "lang", "domain", "license", "maker", "parents")
BLOCK_ROWS = 1 << 20  # positions whose stored row is computed at a time


def documents_at(plan: Plan, position: int, rows: int) -> pl.DataFrame:
    """The documents in rows [position, position + rows), one line a piece, in the order they are served.

    Columns: position, segment, offset, length, document_offset (tokens), id, source, component, lang, domain, license,
    maker, parents, shard, document. The rows may cross segments. Raises `InputError` outside the plan.
    """
    parts = []
    while rows > 0:
        segment = plan.segment_at(position)
        here = min(rows, segment.first_row + segment.rows - position)
        parts.append(_documents_in(plan, segment, position, here))
        position, rows = position + here, rows - here
    return pl.concat(parts)


def _documents_in(plan: Plan, segment: Segment, position: int, rows: int) -> pl.DataFrame:
    first_piece, table = read_rows(plan, segment)
    row_P, piece_P = pieces_at(segment, first_piece, position, rows)
    pieces = pl.DataFrame(pl.from_arrow(table.take(piece_P)))
    used, shard_P = np.unique(pieces["shard"].to_numpy(), return_inverse=True)
    shards = [segment.shards[index] for index in used]
    documents, first_document_S = document_columns(plan.store, shards, [*COLUMNS, "start"])
    facts = documents[first_document_S[shard_P] + pieces["document"].to_numpy()]
    length = pieces["length"].cast(pl.Int64)
    before = length.cum_sum() - length
    row = pl.Series("row", row_P)
    return pl.DataFrame(
        {
            "position": position + row.cast(pl.Int64),
            "segment": pl.repeat(segment.name, pieces.height, eager=True),
            "offset": before - before.gather(np.searchsorted(row_P, row_P)),
            "length": length,
            "document_offset": pieces["start"] - facts["start"],
            **{name: facts[name] for name in ("id", "source")},
            "component": pl.Series(segment.components, dtype=pl.String).gather(pieces["component"]),
            **{name: facts[name] for name in ("lang", "domain", "license", "maker", "parents")},
            "shard": pl.Series([shard.stem for shard in shards], dtype=pl.String).gather(shard_P),
            "document": pieces["document"],
        }
    )


def positions_of(plan: Plan, document_id: str) -> pl.DataFrame:
    """Every position that serves the document, rising.

    Columns: position, segment, component, document_offset, length (tokens). Empty when the plan's shards hold the
    document but no row serves it. Raises `InputError` when no shard of the plan holds it.
    """
    found = [positions_in(plan, segment, [document_id]) for segment in plan.segments]
    if not any(held for held, _ in found):
        raise InputError(f"no shard of the plan holds document `{document_id}`", where=plan.segments[-1].folder)
    return pl.concat([rows for _, rows in found]).drop("id").sort("position", "document_offset")


def positions_in(plan: Plan, segment: Segment, document_ids: Collection[str]) -> tuple[set[str], pl.DataFrame]:
    """(ids that the segment's shards hold, every position of the segment that serves one of them, rising).

    Columns: id, position, segment, component, document_offset, length (tokens).
    """
    documents, first_document_S = document_columns(plan.store, segment.shards, ["id", "start"])
    places = np.flatnonzero(documents["id"].is_in(list(document_ids)).to_numpy())
    parts = [_positions_in(plan, segment, -1, -1, 0).with_columns(id=pl.lit(""))]
    for place in places:
        shard = int(np.searchsorted(first_document_S, place, side="right")) - 1
        start = int(documents["start"][int(place)])
        rows = _positions_in(plan, segment, shard, int(place - first_document_S[shard]), start)
        parts.append(rows.with_columns(id=pl.lit(documents["id"][int(place)])))
    served = pl.concat(parts).select("id", pl.exclude("id")).sort("position", "document_offset")
    return set(documents["id"].gather(places)), served


def _positions_in(plan: Plan, segment: Segment, shard: int, document: int, document_start: int) -> pl.DataFrame:
    first_piece, table = read_rows(plan, segment)
    serves = (table["shard"].to_numpy() == shard) & (table["document"].to_numpy() == document)
    piece_P = np.flatnonzero(serves)
    stored_P = np.searchsorted(first_piece, piece_P, side="right") - 1
    names = pl.Series(segment.components, dtype=pl.String)
    return pl.DataFrame(
        {
            "position": segment.first_row + _served_at(segment, stored_P),
            "segment": pl.repeat(segment.name, piece_P.shape[0], eager=True),
            "component": names.gather(table["component"].to_numpy()[piece_P]),
            "document_offset": table["start"].to_numpy()[piece_P] - document_start,
            "length": table["length"].to_numpy()[piece_P].astype(np.int64),
        }
    )


def _served_at(segment: Segment, stored_P: np.ndarray) -> np.ndarray:
    """[P] int64: offset in the segment at which each stored row is served."""
    order = Permutation(segment.rows, segment.seed)
    found = np.full(stored_P.shape[0], -1, np.int64)
    for begin in range(0, segment.rows, BLOCK_ROWS):
        block = order.take(np.arange(begin, min(begin + BLOCK_ROWS, segment.rows), dtype=np.int64))
        by_row = np.argsort(block, kind="stable")
        place = np.searchsorted(block, stored_P, sorter=by_row).clip(max=block.shape[0] - 1)
        hit = block[by_row[place]] == stored_P
        found[hit] = begin + by_row[place[hit]]
    return found
