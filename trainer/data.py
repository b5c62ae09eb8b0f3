"""Batches of a mix plan on the device, with the source, language and domain of every token.

Contract: a batch is a function of (plan, position, rows); the mix's loader does the reading.
Shapes: R rows, T tokens, P pieces of the batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mixes.loader import PADDING, Batch, MixLoader
from pipeline.core.plans import Plan
from trainer.metrics import TokenGroups

AHEAD = 1  # batches prepared while the model works on one


@dataclass(frozen=True)
class MicroBatch:
    """What the model and the losses need of some rows."""

    token_ids_RT: Tensor  # int64
    document_ids_RT: Tensor  # int32, -1 = padding
    loss_mask_RT: Tensor  # bool: counts as a target

    @property
    def rows(self) -> int:
        return self.token_ids_RT.shape[0]

    def split(self, most_rows: int) -> Iterator[MicroBatch]:
        """Consecutive parts of at most `most_rows` rows."""
        parts = (tensor.split(most_rows) for tensor in (self.token_ids_RT, self.document_ids_RT, self.loss_mask_RT))
        for token_ids, document_ids, loss_mask in zip(*parts, strict=True):
            yield MicroBatch(token_ids, document_ids, loss_mask)


@dataclass(frozen=True)
class TrainingBatch(MicroBatch):
    """The rows [position, position + R) of a plan."""

    position: int
    sources: TokenGroups
    languages: TokenGroups
    domains: TokenGroups


def own_rows(batch: MicroBatch, data_rank: int, data_size: int) -> MicroBatch:
    """The rows of one of `data_size` processes; rows of padding where they do not go round."""
    missing = -batch.rows % data_size
    token_ids = F.pad(batch.token_ids_RT, (0, 0, 0, missing))
    document_ids = F.pad(batch.document_ids_RT, (0, 0, 0, missing), value=PADDING)
    loss_mask = F.pad(batch.loss_mask_RT, (0, 0, 0, missing))
    return MicroBatch(*(x.chunk(data_size)[data_rank] for x in (token_ids, document_ids, loss_mask)))


class BatchReader:
    """Reads the rows of one plan onto one device."""

    def __init__(self, plan: Plan, device: str | torch.device) -> None:
        self._loader = MixLoader(plan, ahead=AHEAD)
        self._device = device

    def batch(self, position: int, rows: int) -> TrainingBatch:
        """Raises `InputError` for rows outside a segment and for shards that are not the planned ones."""
        batch = self._loader.batch(position, rows)
        piece_RT = _piece_of_token(batch)
        return TrainingBatch(
            token_ids_RT=torch.from_numpy(batch.token_ids_RT).to(self._device),
            document_ids_RT=torch.from_numpy(batch.document_ids_RT).to(self._device),
            loss_mask_RT=torch.from_numpy(batch.loss_mask_RT).to(self._device),
            position=position,
            sources=TokenGroups(batch.sources, batch.source_ids_RT),
            languages=TokenGroups(batch.languages, _of_piece(batch.pieces.language_P, piece_RT)),
            domains=TokenGroups(batch.domains, _of_piece(batch.pieces.domain_P, piece_RT)),
        )


def _piece_of_token(batch: Batch) -> np.ndarray:
    """[R, T] index into the batch's pieces, -1 for padding."""
    first_piece_R = np.searchsorted(batch.pieces.row_P, np.arange(batch.token_ids_RT.shape[0]))
    return np.where(batch.document_ids_RT == PADDING, -1, first_piece_R[:, None] + batch.document_ids_RT)


def _of_piece(values_P: np.ndarray, piece_RT: np.ndarray) -> np.ndarray:
    """Each token's value, -1 for padding."""
    return np.where(piece_RT < 0, -1, values_P[piece_RT])
