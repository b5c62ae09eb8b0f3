"""A small model trained on the bytes of real text, for benchmarks that need one which has learnt something.

Contract: the same rows, order and weights for the same arguments. Ids are bytes behind the reserved ids.
Shapes: R rows of T tokens.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from benchmarks.inputs import Corpus
from pipeline.core.chat import RESERVED_IDS
from trainer.architecture import ModelConfig
from trainer.config import OptimizerConfig, Precision
from trainer.losses import compute_losses
from trainer.model.model import MoEModel, build_model
from trainer.optim import build_optimizer
from trainer.precision import set_precision

BYTES = 256
VOCABULARY = RESERVED_IDS + BYTES
ROW_TOKENS = 256
ROWS = 8
LEARNING_RATE = 3e-3


def byte_rows(corpus: Corpus) -> np.ndarray:
    """[R,T] int64 ids of the corpus's bytes, its texts one after the other."""
    data = "\n\n".join(corpus.texts).encode("utf-8")
    rows_RT = np.frombuffer(data, np.uint8)[: len(data) // ROW_TOKENS * ROW_TOKENS].reshape(-1, ROW_TOKENS)
    return rows_RT.astype(np.int64) + RESERVED_IDS


def new_model(config: ModelConfig, seed: int, precision: Precision = "float32") -> MoEModel:
    model = build_model(config, VOCABULARY, seed=seed).train()
    set_precision(model, precision)
    return model


def train(model: MoEModel, rows_RT: np.ndarray, steps: int) -> Iterator[float]:
    """The next-token loss of each step, in nats."""
    optimizer = build_optimizer(model, OptimizerConfig())
    optimizer.set_learning_rate(LEARNING_RATE)
    for step in range(steps):
        token_ids_BT = torch.from_numpy(rows_RT[np.arange(step * ROWS, (step + 1) * ROWS) % rows_RT.shape[0]])
        document_ids_BT = torch.zeros_like(token_ids_BT, dtype=torch.int32)
        optimizer.zero_grad()
        losses = compute_losses(model, token_ids_BT, document_ids_BT, torch.ones_like(token_ids_BT, dtype=torch.bool))
        losses.total.backward()
        optimizer.step()
        yield losses.main.item()
