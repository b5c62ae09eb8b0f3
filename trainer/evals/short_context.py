"""Short-context check: the loss on held-out rows of the length the model was pre-trained with.

Contract: measured the same way before and after an extension, on the same rows, so that only the weights differ.
Source: the K-EXAONE report (arXiv 2601.01739) asks for "short-context evaluations with the pre-training protocol";
the measure, a mean loss, is ours.
Shapes: R rows, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pipeline.core.errors import InputError
from trainer.evals.niah import dealt
from trainer.losses import UNLABELLED, head_cross_entropy, shifted_labels
from trainer.model.layout import PADDING_ID
from trainer.model.model import MoEModel
from trainer.parallel.ranks import ALONE, Ranks

TOKENS_PER_BATCH = 16_384


@dataclass(frozen=True)
class HeldOutRows:
    """Packed rows of documents that no mix trains on."""

    token_ids_RT: np.ndarray  # int64
    document_ids_RT: np.ndarray  # int32, -1 = padding


def pack_held_out(documents: Sequence[np.ndarray], context_tokens: int, most_rows: int) -> HeldOutRows:
    """Documents one after the other into rows, cut where a row ends; the last row is padded.

    `documents` are token ids, EOS included. Raises `InputError` when there is no token at all.
    """
    tokens = [document for document in documents if len(document)]
    if not tokens:
        raise InputError("no held-out document to measure the short-context loss on", fix="hold out some documents")
    token_ids = np.concatenate(tokens).astype(np.int64)[: most_rows * context_tokens]
    document_ids = np.repeat(np.arange(len(tokens), dtype=np.int32), [len(document) for document in tokens])
    rows = -(-len(token_ids) // context_tokens)
    token_ids_RT = np.zeros((rows, context_tokens), np.int64)
    document_ids_RT = np.full((rows, context_tokens), PADDING_ID, np.int32)
    token_ids_RT.flat[: len(token_ids)] = token_ids
    document_ids_RT.flat[: len(token_ids)] = document_ids[: len(token_ids)]
    return HeldOutRows(token_ids_RT, document_ids_RT)


@torch.no_grad()
def short_context_loss(model: MoEModel, held_out: HeldOutRows, ranks: Ranks = ALONE) -> float:
    """Mean nats a token, rows shared over processes. Puts the model into evaluation mode and back."""
    device = model.head.weight.device
    rows_per_batch = max(1, TOKENS_PER_BATCH // held_out.token_ids_RT.shape[1])
    was_training = model.training
    model.eval()
    starts = range(0, len(held_out.token_ids_RT), rows_per_batch)
    own: dict[int, tuple[float, int]] = {}
    for start in (starts[index] for index in dealt(len(starts), ranks)):
        token_ids = torch.from_numpy(held_out.token_ids_RT[start : start + rows_per_batch]).to(device)
        document_ids = torch.from_numpy(held_out.document_ids_RT[start : start + rows_per_batch]).to(device)
        hidden = model(token_ids, document_ids).hidden_BTC
        labels = shifted_labels(token_ids, document_ids, document_ids != PADDING_ID, ahead=1)
        losses = head_cross_entropy(hidden, model.head.weight, labels).losses_BT
        own[start] = float(losses.double().sum()), int((labels != UNLABELLED).sum())
    model.train(was_training)
    found = {start: sums for part in ranks.of_all(own) for start, sums in part.items()}
    nats, labelled = (sum(found[start][which] for start in starts) for which in range(2))
    if labelled == 0:
        raise InputError("the held-out rows have no token to predict", fix="hold out documents of at least two tokens")
    return nats / labelled
