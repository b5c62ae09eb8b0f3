"""Rows of pieces: the stream packed window by window, exactly as many rows as asked for.

Contract: each window is packed by itself; its emptiest row is taken apart again and its pieces begin the next window,
so that windows lose nothing to the row they end in. What is served in the end is a prefix of the stream. Rows are
numbered as they come. Memory: one window. Cost: the packer's.

Shapes: P pieces of a window, R rows of a window.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mixes.packing import group_by_row, pack, pack_prefix
from mixes.stream import Pieces, Stream


def packed_rows(stream: Stream, window_pieces: int, row_tokens: int, rows: int) -> Iterator[tuple[np.ndarray, Pieces]]:
    """([R] int64 pieces of each row, the pieces row by row) of each window, `rows` rows together.

    The stream must hold at least `rows * row_tokens` tokens.
    """
    held = stream.window(0)
    while rows:
        pieces = joined(held, stream.window(window_pieces))
        assert pieces.length_P.shape[0] > held.length_P.shape[0], "the stream does not fill the rows"
        row_of_P, count = pack(pieces.length_P, row_tokens)
        if count > rows:
            row_of_P, count = pack_prefix(pieces.length_P, row_tokens, rows)
        elif 1 < count < rows:
            emptiest = int(np.argmin(np.bincount(row_of_P, weights=pieces.length_P)))
            held = pieces.at(np.flatnonzero(row_of_P == emptiest))
            kept = np.flatnonzero(row_of_P != emptiest)
            pieces, row_of_P, count = pieces.at(kept), row_of_P[kept], count - 1
            row_of_P = row_of_P - (row_of_P > emptiest)
        else:
            held = pieces.at(np.empty(0, np.int64))
        first_piece, order = group_by_row(row_of_P, count)
        yield np.diff(first_piece), pieces.at(order)
        rows -= count


def joined(first: Pieces, second: Pieces) -> Pieces:
    return Pieces(
        np.concatenate([first.row_P, second.row_P]),
        np.concatenate([first.pool_P, second.pool_P]),
        np.concatenate([first.offset_P, second.offset_P]),
        np.concatenate([first.length_P, second.length_P]),
    )
