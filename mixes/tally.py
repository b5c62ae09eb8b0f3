"""Counting a segment's pieces as they are planned or read back: by component and kind of document, whole numbers only.

Contract: `Tally.add` takes pieces in any order; the counts are the same. Planned tokens count every repeat; a piece's
tokens are unique when no earlier segment drew the document and no other piece of this segment has the same tokens.
Memory: 2 bytes a document of the catalogue. Cost: some 30 million pieces a second.

Shapes: P pieces, D documents, C components, K kinds, B powers of two.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from mixes.catalog import Catalogue

POWERS = 32  # a document has fewer than 2^31 tokens
BLOCK = 256  # pieces looked up at a time


class Tally:
    """Running counts of one segment."""

    def __init__(self, catalogue: Catalogue, components: int, context_tokens: int, uses_before_D: np.ndarray) -> None:
        self.catalogue = catalogue
        self.context_tokens = context_tokens
        self.uses_before_D = uses_before_D
        self.draws_D = np.zeros(catalogue.documents, np.uint16)
        shape = components, len(catalogue.kinds)
        self.tokens_CK = np.zeros(shape, np.int64)
        self.unique_tokens_CK = np.zeros(shape, np.int64)
        self.documents_CK = np.zeros(shape, np.int64)  # beginnings served
        self.cut_documents_CK = np.zeros(shape, np.int64)  # served in several pieces or without their end
        self.cut_pieces_C = np.zeros(components, np.int64)
        self.pieces_C = np.zeros(components, np.int64)
        self.drawn_tokens_C = np.zeros(components, np.int64)  # of documents begun, whole
        self.lengths_KB = np.zeros((len(catalogue.kinds), POWERS), np.int64)  # documents begun, by power of two
        self.pieces_in_row = np.zeros(1, np.int64)  # rows by their number of pieces
        # Of documents longer than a row each piece has its own mark; of the others the first draw is enough.
        self._long = np.flatnonzero(catalogue.length_D > context_tokens)
        pieces = -(-catalogue.length_D[self._long].astype(np.int64) // context_tokens)
        self._first_mark = np.concatenate([[0], np.cumsum(pieces)])
        self._marks = np.zeros(int(self._first_mark[-1]), bool)

    def add(
        self,
        row_P: np.ndarray,
        kind_P: np.ndarray,
        component_P: np.ndarray,
        offset_P: np.ndarray,
        length_P: np.ndarray,
    ) -> None:
        """Pieces: catalogue row, its kind, component, tokens before it in its document, tokens."""
        _add(
            row_P, component_P, offset_P, length_P, kind_P, self.catalogue.length_D, self.uses_before_D, self.draws_D,
            self._long, self._first_mark, self._marks, self.context_tokens, self.tokens_CK,
            self.unique_tokens_CK, self.documents_CK, self.cut_documents_CK, self.cut_pieces_C, self.pieces_C,
            self.drawn_tokens_C, self.lengths_KB,
        )  # fmt: skip

    def add_rows(self, count_R: np.ndarray) -> None:
        """Numbers of pieces of some rows."""
        counted = np.bincount(count_R)
        size = max(counted.shape[0], self.pieces_in_row.shape[0])
        grown = np.zeros(size, np.int64)
        grown[: self.pieces_in_row.shape[0]] = self.pieces_in_row
        grown[: counted.shape[0]] += counted
        self.pieces_in_row = grown

    def documents_by_times_seen(self) -> np.ndarray:
        """[n] int64 documents of this segment by how often they have been seen when it ends."""
        return _times_seen(self.draws_D, self.uses_before_D)

    def documents_by_kind(self) -> np.ndarray:
        """[K] int64 documents that are served."""
        return _served_by(self.draws_D, self.catalogue.kind_D, 0, len(self.catalogue.kinds), 1)

    def unserved_by(self, group_D: np.ndarray, least: int, groups: int) -> np.ndarray:
        """[groups] int64 documents that are not served, by a number from `least` on."""
        return _served_by(self.draws_D, group_D, least, groups, 0)

    @property
    def tokens(self) -> int:
        return int(self.tokens_CK.sum())

    @property
    def cut_documents(self) -> int:
        return int(self.cut_documents_CK.sum())

    @property
    def lost_tokens(self) -> int:
        """Ends of documents that were served in part."""
        return int(self.drawn_tokens_C.sum()) - self.tokens


@njit(cache=True, nogil=True)
def _times_seen(draws_D: np.ndarray, uses_before_D: np.ndarray) -> np.ndarray:
    counts = np.zeros(2 * (1 << 16), np.int64)
    most = 0
    for row in range(draws_D.shape[0]):
        if draws_D[row] > 0:
            times = np.int64(draws_D[row]) + np.int64(uses_before_D[row])
            counts[times] += 1
            most = max(most, times)
    return counts[: most + 1]


@njit(cache=True, nogil=True)
def _served_by(draws_D: np.ndarray, group_D: np.ndarray, least: int, groups: int, served: int) -> np.ndarray:
    counts = np.zeros(groups, np.int64)
    for row in range(draws_D.shape[0]):
        if (draws_D[row] > 0) == (served == 1):
            counts[group_D[row] - least] += 1
    return counts


@njit(cache=True, nogil=True)
def _add(
    row_P: np.ndarray, component_P: np.ndarray, offset_P: np.ndarray, length_P: np.ndarray, kind_P: np.ndarray,
    length_D: np.ndarray, uses_before_D: np.ndarray, draws_D: np.ndarray, long: np.ndarray, first_mark: np.ndarray,
    marks: np.ndarray, context: int, tokens_CK: np.ndarray, unique_CK: np.ndarray, documents_CK: np.ndarray,
    cut_CK: np.ndarray, cut_pieces_C: np.ndarray, pieces_C: np.ndarray, drawn_C: np.ndarray, lengths_KB: np.ndarray,
) -> None:  # fmt: skip
    """A block at a time: the places of its documents are scattered over memory, and the processor waits for several at
    once only where no decision stands between them. Draws may change within a block: they are read to have them near.
    """
    whole_b, before_b, near_b = np.empty(BLOCK, np.int64), np.empty(BLOCK, np.int64), np.empty(BLOCK, np.int64)
    for first in range(0, row_P.shape[0], BLOCK):
        block = min(BLOCK, row_P.shape[0] - first)
        for b in range(block):
            row = row_P[first + b]
            whole_b[b], before_b[b], near_b[b] = length_D[row], uses_before_D[row], draws_D[row]
        for b in range(block):
            p = first + b
            row, component, tokens = row_P[p], component_P[p], np.int64(length_P[p])
            whole, kind = whole_b[b], kind_P[p]
            tokens_CK[component, kind] += tokens
            pieces_C[component] += 1
            if tokens != whole:
                cut_pieces_C[component] += 1
            if whole > context:
                mark = first_mark[np.searchsorted(long, row)] + offset_P[p] // context
                new = not marks[mark]
                marks[mark] = True
            else:
                new = draws_D[row] == 0
            if new and before_b[b] == 0:
                unique_CK[component, kind] += tokens
            if offset_P[p] == 0:
                draws_D[row] += 1
                documents_CK[component, kind] += 1
                drawn_C[component] += whole
                cut_CK[component, kind] += tokens < whole
                power = 0
                for shift in (16, 8, 4, 2, 1):
                    if whole >> shift:
                        whole >>= shift
                        power += shift
                lengths_KB[kind, power] += 1
