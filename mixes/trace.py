"""From a training position to its documents, and from a document to every position that served it.

Contract: both are pure functions of the plan and its shards' document tables. Cost: `documents_at` reads the pieces of
the asked rows and the document tables of their shards; `positions_of` scans the id columns and the pieces once and
runs the row order backwards for the rows it finds.

Shapes: P pieces.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import polars as pl

from mixes.catalog import document_columns
from mixes.order import RowOrder, served_pieces
from pipeline.core.errors import InputError
from pipeline.core.plans import Plan, Segment, SegmentRows

COLUMNS = ("id", "source", "lang", "domain", "license", "maker", "parents")


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
    stored = SegmentRows(plan, segment)
    row_P, piece_P = served_pieces(stored, RowOrder(stored), position - segment.first_row, rows)
    pieces = pl.DataFrame(stored.pieces(piece_P))
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
    stored = SegmentRows(plan, segment)
    piece_P, place_P = _pieces_of(stored, places, first_document_S)
    pieces = stored.pieces(piece_P, ("start", "component", "length"))
    found = documents[place_P]
    served = pl.DataFrame(
        {
            "id": found["id"],
            "position": segment.first_row + RowOrder(stored).offsets(_row_of(stored, piece_P)),
            "segment": pl.repeat(segment.name, piece_P.shape[0], eager=True),
            "component": pl.Series(segment.components, dtype=pl.String).gather(pieces["component"]),
            "document_offset": pieces["start"] - found["start"].to_numpy(),
            "length": pieces["length"].astype(np.int64),
        }
    )
    return set(documents["id"].gather(places)), served.sort("position", "document_offset")


def _pieces_of(stored: SegmentRows, places: np.ndarray, first_document_S: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """([P] int64 pieces that serve one of the documents, [P] int64 which); documents are rows of all shards' tables."""
    pieces, found = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for first, columns in stored.piece_batches():
        place = first_document_S[columns["shard"]] + columns["document"]
        own = np.flatnonzero(np.isin(place, places))
        pieces.append(first + own)
        found.append(place[own])
    return np.concatenate(pieces), np.concatenate(found)


def _row_of(stored: SegmentRows, piece_P: np.ndarray) -> np.ndarray:
    """[P] int64 stored row of each piece, by bisection."""
    low = np.zeros(piece_P.shape[0], np.int64)
    high = np.full(piece_P.shape[0], stored.segment.rows, np.int64)
    while piece_P.size and int((high - low).max()) > 1:
        middle = (low + high) // 2
        before = stored.first_piece(middle) <= piece_P
        low, high = np.where(before, middle, low), np.where(before, high, middle)
    return low
