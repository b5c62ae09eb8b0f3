"""Training rows as numpy arrays: a pure function of (plan, position), for any number of ranks and workers.

Contract: `MixLoader(plan).batch(position, rows)` gathers rows straight from memory-mapped shards; two loaders over the
same plan give the same arrays, and a batch is the concatenation of its parts however it is split. Nothing is kept per
position: resuming is a number. Each shard is checked against the plan's content hash once, when it is first opened.
Cost: one pass over a shard at opening; after that the batch's own bytes.

Shapes: R rows of the batch, T context tokens, P pieces of the batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa
from numba import njit

from mixes.catalog import NO_LANGUAGE, NO_VALUE
from pipeline.core.errors import InputError
from pipeline.core.files import hash_file, read_json
from pipeline.core.plans import ORDER_VERSION, Plan, Segment, ShardRef, read_rows
from pipeline.core.rng import Permutation
from pipeline.core.shards import TokenShard, sidecar

PADDING = -1  # document and source id of padding
ALL_COUNT = np.empty(0, np.uint8)  # loss flags of a shard where every token counts


@dataclass(frozen=True)
class BatchPieces:
    """The documents, or parts of them, that lie in a batch; one entry a piece, row by row."""

    row_P: np.ndarray  # int32 row of the batch
    offset_P: np.ndarray  # int32 first token in the row
    length_P: np.ndarray  # int32 tokens
    shard_P: np.ndarray  # int32 index into Batch.shards
    document_P: np.ndarray  # int64 row of the shard's document table
    start_P: np.ndarray  # int64 first token in the shard
    source_P: np.ndarray  # int32 index into Batch.sources
    component_P: np.ndarray  # int32 index into Batch.components
    language_P: np.ndarray  # int32 index into Batch.languages
    domain_P: np.ndarray  # int32 index into Batch.domains


@dataclass(frozen=True)
class Batch:
    """Rows at [position, position + R) of a plan, with the names their ids stand for (the same in a whole segment)."""

    position: int
    segment: str  # chain fingerprint
    token_ids_RT: np.ndarray  # int64, 0 in padding
    document_ids_RT: np.ndarray  # int32 ordinal of the piece in its row, -1 in padding
    source_ids_RT: np.ndarray  # int32, -1 in padding
    loss_mask_RT: np.ndarray  # bool: the token counts in the loss
    pieces: BatchPieces
    shards: tuple[str, ...]  # stems relative to the store
    sources: tuple[str, ...]
    components: tuple[str, ...]
    languages: tuple[str, ...]
    domains: tuple[str, ...]


@dataclass(frozen=True)
class _OpenSegment:
    segment: Segment
    first_piece: np.ndarray
    columns: dict[str, np.ndarray]
    languages: tuple[str, ...]
    domains: tuple[str, ...]


@dataclass(frozen=True)
class _Labels:
    """Of one shard's documents, in one segment's vocabulary."""

    language_D: np.ndarray  # int32
    domain_D: np.ndarray  # int32


class MixLoader:
    """Reads a plan's rows. Holds only caches: opened segments and shards."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._segments: dict[str, _OpenSegment] = {}
        self._shards: dict[ShardRef, TokenShard] = {}
        self._labels: dict[tuple[str, str], _Labels] = {}

    def batch(self, position: int, rows: int) -> Batch:
        """Rows [position, position + rows) of the plan.

        Raises:
            InputError: the rows are outside the plan or cross the end of a segment, or a shard is missing or not the
                one that was planned with (names it).
        """
        segment = self.plan.segment_at(position)
        end = segment.first_row + segment.rows
        if rows < 1 or position + rows > end:
            raise InputError(
                f"rows {position} to {position + rows} do not lie in segment `{segment.name}`, which ends at row {end}",
                where=segment.folder,
                fix=f"ask for 1 to {end - position} rows",
            )
        opened = self._segment(segment)
        row_P, piece_P = pieces_at(segment, opened.first_piece, position, rows)
        shard_P, start_P, length_P, document_P, source_P, component_P = (
            opened.columns[name][piece_P] for name in ("shard", "start", "length", "document", "source", "component")
        )
        ordinal_P = _ordinals(row_P)
        offset_P = _offsets(row_P, length_P)
        context = segment.context_tokens
        token_ids_RT = np.zeros((rows, context), np.int64)
        document_ids_RT = np.full((rows, context), PADDING, np.int32)
        source_ids_RT = np.full((rows, context), PADDING, np.int32)
        loss_mask_RT = np.zeros((rows, context), np.bool_)
        language_P, domain_P = np.empty_like(row_P), np.empty_like(row_P)
        for shard_index in np.unique(shard_P):
            own = np.flatnonzero(shard_P == shard_index)
            shard = self._shard(segment.shards[shard_index])
            labels = self._labels_of(opened, shard, segment.shards[shard_index])
            language_P[own] = labels.language_D[document_P[own]]
            domain_P[own] = labels.domain_D[document_P[own]]
            loss = ALL_COUNT if shard.loss is None else np.asarray(shard.loss)
            _gather(
                np.asarray(shard.token_ids), loss, start_P[own], length_P[own], row_P[own], offset_P[own],
                ordinal_P[own], source_P[own], token_ids_RT, document_ids_RT, source_ids_RT, loss_mask_RT,
            )  # fmt: skip
        return Batch(
            position=position,
            segment=segment.fingerprint,
            token_ids_RT=token_ids_RT,
            document_ids_RT=document_ids_RT,
            source_ids_RT=source_ids_RT,
            loss_mask_RT=loss_mask_RT,
            pieces=BatchPieces(
                row_P, offset_P, length_P, shard_P, document_P, start_P, source_P, component_P, language_P, domain_P
            ),
            shards=tuple(shard.stem for shard in segment.shards),
            sources=segment.sources,
            components=segment.components,
            languages=opened.languages,
            domains=opened.domains,
        )

    def _segment(self, segment: Segment) -> _OpenSegment:
        if segment.fingerprint not in self._segments:
            if segment.order_version != ORDER_VERSION:
                raise InputError(
                    f"segment `{segment.name}` has row order {segment.order_version}, this program {ORDER_VERSION}",
                    where=segment.folder,
                )
            first_piece, table = read_rows(self.plan, segment)
            vocabulary = read_json(self.plan.store / segment.folder / "vocabulary.json")
            self._segments[segment.fingerprint] = _OpenSegment(
                segment,
                first_piece,
                {name: table[name].to_numpy() for name in table.column_names},
                tuple(vocabulary["languages"]),
                tuple(vocabulary["domains"]),
            )
        return self._segments[segment.fingerprint]

    def _shard(self, ref: ShardRef) -> TokenShard:
        if ref not in self._shards:
            shard = TokenShard.open(self.plan.store / ref.stem)
            content = hash_file(sidecar(shard.stem, ".bin"))
            if content != ref.content:
                raise InputError(
                    f"token shard has content {content[:8]}, the plan was made with {ref.content[:8]}",
                    where=str(sidecar(shard.stem, ".bin")),
                    fix="the file was changed or corrupted: delete its step's folder and run it again",
                )
            if shard.loss is not None and shard.loss.shape != shard.token_ids.shape:
                raise InputError(
                    f"{shard.loss.shape[0]} loss flags for {shard.token_ids.shape[0]} tokens",
                    where=str(sidecar(shard.stem, ".bin.loss")),
                    fix="the file is cut or corrupted: delete its step's folder and run it again",
                )
            self._shards[ref] = shard
        return self._shards[ref]

    def _labels_of(self, opened: _OpenSegment, shard: TokenShard, ref: ShardRef) -> _Labels:
        key = (opened.segment.fingerprint, ref.stem)
        if key not in self._labels:
            documents = shard.documents()
            self._labels[key] = _Labels(
                _numbered(documents["lang"], opened.languages, NO_LANGUAGE),
                _numbered(documents["domain"], opened.domains, NO_VALUE),
            )
        return self._labels[key]


def pieces_at(segment: Segment, first_piece: np.ndarray, position: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """([P] int32 row of the batch, [P] int64 piece of the segment) of the rows served from `position` on."""
    offsets = np.arange(position - segment.first_row, position - segment.first_row + rows, dtype=np.int64)
    stored = Permutation(segment.rows, segment.seed).take(offsets)
    counts = first_piece[stored + 1] - first_piece[stored]
    row_P = np.repeat(np.arange(rows, dtype=np.int32), counts)
    before = np.cumsum(counts) - counts
    return row_P, first_piece[stored][row_P] + np.arange(row_P.shape[0]) - before[row_P]


def _ordinals(row_P: np.ndarray) -> np.ndarray:
    """[P] int32: 0, 1, 2 … within each row; rows rise."""
    return (np.arange(row_P.shape[0]) - np.searchsorted(row_P, row_P)).astype(np.int32)


def _offsets(row_P: np.ndarray, length_P: np.ndarray) -> np.ndarray:
    """[P] int32: tokens before each piece in its row."""
    before = np.cumsum(length_P, dtype=np.int64) - length_P
    return (before - before[np.searchsorted(row_P, row_P)]).astype(np.int32)


def _numbered(values: pa.ChunkedArray, names: tuple[str, ...], absent: str) -> np.ndarray:
    """[D] int32 index of each value in `names`; -1 for a value no planned document has."""
    column = pl.Series(values=pl.from_arrow(values)).cast(pl.String).fill_null(absent)
    return column.replace_strict(list(names), list(range(len(names))), default=-1, return_dtype=pl.Int32).to_numpy()


@njit(cache=True, nogil=True)
def _gather(
    tokens: np.ndarray,
    loss: np.ndarray,
    start_P: np.ndarray,
    length_P: np.ndarray,
    row_P: np.ndarray,
    offset_P: np.ndarray,
    ordinal_P: np.ndarray,
    source_P: np.ndarray,
    token_ids_RT: np.ndarray,
    document_ids_RT: np.ndarray,
    source_ids_RT: np.ndarray,
    loss_mask_RT: np.ndarray,
) -> None:
    every = loss.shape[0] == 0
    for p in range(start_P.shape[0]):
        row, offset, start = row_P[p], offset_P[p], start_P[p]
        for t in range(length_P[p]):
            token_ids_RT[row, offset + t] = tokens[start + t]
            document_ids_RT[row, offset + t] = ordinal_P[p]
            source_ids_RT[row, offset + t] = source_P[p]
            loss_mask_RT[row, offset + t] = every or loss[start + t] != 0
