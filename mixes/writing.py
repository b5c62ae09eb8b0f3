"""Rows of pieces to disk: one thread merges and packs a window while another writes and counts the one before it.

Contract: windows are written in their order, so that files and counts are those of one thread after the other. Memory:
three windows. Cost: two thirds of the planning; packing and writing take about the same.

Shapes: D documents of the catalogue, S shards, P pieces, R rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit

from mixes.catalog import Catalogue
from mixes.draw import Pool
from mixes.rows import packed_rows
from mixes.spec import PlanConfig
from mixes.stream import Pieces, Stream
from mixes.tally import Tally
from pipeline.core.plans import SegmentWriter


@dataclass(frozen=True)
class Numbers:
    """What the numbers in pieces.arrow stand for: those of the catalogue that the accepted documents use."""

    shards: np.ndarray  # [used] rising catalogue numbers
    kinds: np.ndarray
    sources: tuple[int, ...]  # of the pools
    components: tuple[str, ...]


def write_rows(
    catalogue: Catalogue,
    config: PlanConfig,
    pools: Sequence[Pool],
    stream: Stream,
    numbers: Numbers,
    tally: Tally,
    folder: Path,
) -> None:
    """Pack the pools' pieces window by window into rows.arrow and pieces.arrow of `folder`, and count them."""
    source_of_pool = np.array([numbers.sources.index(pool.source) for pool in pools], np.int32)
    component_of_pool = np.array([numbers.components.index(pool.component) for pool in pools], np.int32)
    shard_place, kind_place = _places(numbers.shards), _places(numbers.kinds)

    def write(count_R: np.ndarray, pieces: Pieces) -> None:
        component_P = component_of_pool[pieces.pool_P]
        shard_P, document_P, start_P, kind_P = _references(
            pieces.row_P, pieces.offset_P, catalogue.first_document_S, catalogue.start_D, catalogue.kind_D
        )
        writer.append(
            count_R,
            {
                "shard": shard_place[shard_P],
                "start": start_P,
                "length": pieces.length_P,
                "source": source_of_pool[pieces.pool_P],
                "document": document_P,
                "component": component_P,
                "kind": kind_place[kind_P],
            },
        )
        tally.add(pieces.row_P, kind_P, component_P, pieces.offset_P, pieces.length_P)
        tally.add_rows(count_R)

    written: Future[None] | None = None
    with SegmentWriter(folder) as writer, ThreadPoolExecutor(1, "plan-writer") as thread:
        for count_R, pieces in packed_rows(stream, config.window_pieces, config.context_tokens, config.rows):
            if written is not None:
                written.result()
            written = thread.submit(write, count_R, pieces)
        if written is not None:
            written.result()


def _places(used: np.ndarray) -> np.ndarray:
    """int32 place of each used number among them, 0 for the others; rising."""
    places = np.zeros(int(used[-1]) + 1 if used.size else 1, np.int32)
    places[used] = np.arange(used.size)
    return places


@njit(cache=True, nogil=True)
def _references(
    row_P: np.ndarray, offset_P: np.ndarray, first_document_S: np.ndarray, start_D: np.ndarray, kind_D: np.ndarray
) -> Any:
    """([P] shard, [P] document of the shard, [P] first token in the shard, [P] kind) of pieces."""
    pieces = row_P.shape[0]
    shard_P, kind_P = np.empty(pieces, np.int32), np.empty(pieces, np.int32)
    document_P, start_P = np.empty(pieces, np.int64), np.empty(pieces, np.int64)
    for p in range(pieces):
        row = row_P[p]
        start_P[p] = np.int64(start_D[row]) + offset_P[p]
        kind_P[p] = kind_D[row]
    for p in range(pieces):
        low, high = 0, first_document_S.shape[0] - 1
        while high - low > 1:
            middle = (low + high) // 2
            if first_document_S[middle] <= row_P[p]:
                low = middle
            else:
                high = middle
        shard_P[p] = low
        document_P[p] = row_P[p] - first_document_S[low]
    return shard_P, document_P, start_P, kind_P
