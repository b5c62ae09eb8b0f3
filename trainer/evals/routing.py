"""Which experts serve which language or domain, how sure that is, who works together, and what an expert is worth.

Contract: counts over whole rows of a plan, padding left out; nothing of the model is changed. Specialisation of a layer
is the mutual information of a token's group and its expert in bits, less what shuffled groups would show (Miller's
correction, (G-1)(E-1)/(2 N ln 2)); its interval is the 2.5% and 97.5% point of a bootstrap over rows, since tokens of a
row are not independent. What an expert is worth is the rise of the loss when nobody may choose it.
Cost: one forward pass a batch; for each expert that is taken out, another.
Shapes: R rows, T tokens, k experts a token, G groups, E experts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trainer.architecture import ModelConfig
from trainer.data import TrainingBatch
from trainer.generate import evaluating
from trainer.losses import compute_losses
from trainer.metrics import TokenGroups
from trainer.model.model import MoEModel
from trainer.model.moe import Routing

KINDS = ("languages", "domains", "sources")
RESAMPLES = 200
INTERVAL = (2.5, 97.5)  # percent


@dataclass(frozen=True)
class LayerUse:
    """One sparse layer."""

    layer: int
    share_GE: np.ndarray  # of a group's choices, by expert; rows add up to 1
    specialisation: float  # bits
    low: float
    high: float
    together_EE: np.ndarray  # of the tokens that chose the first, the share that chose the second too


def layer_use(model: MoEModel, batches: Sequence[TrainingBatch], kind: str) -> tuple[list[str], list[LayerUse]]:
    """The names of the groups that have tokens here, and each sparse layer; `kind` is one of `KINDS`.

    Raises ValueError when no token has a group of that kind.
    """
    layers, experts = list(model.sparse_layers()), model.config.num_experts
    names = sorted({name for batch in batches for name in _groups(batch, kind).names})
    counts: dict[int, list[np.ndarray]] = {layer: [] for layer in layers}  # [row] of [G, E]
    pairs = {layer: np.zeros((experts, experts), np.int64) for layer in layers}
    for batch in batches:
        groups = _groups(batch, kind)
        own_id = np.array([names.index(name) for name in groups.names] or [0])
        group_RT = np.where(groups.ids_RT < 0, -1, own_id[np.maximum(groups.ids_RT, 0)])
        for layer, chosen_RTk in _choices(model, batch).items():
            for row in range(batch.rows):
                known = group_RT[row] >= 0
                cell = group_RT[row][known][:, None] * experts + chosen_RTk[row][known]
                counts[layer].append(np.bincount(cell.ravel(), minlength=len(names) * experts).reshape(-1, experts))
                used = np.zeros((int(known.sum()), experts), np.int64)
                np.put_along_axis(used, chosen_RTk[row][known], 1, axis=1)
                pairs[layer] += used.T @ used
    seen = [place for place in range(len(names)) if any(count[place].any() for count in counts[layers[0]])]
    if not seen:
        raise ValueError(f"no token of these rows has one of {kind}")
    found = []
    for layer in layers:
        rows_RGE = np.stack(counts[layer])[:, seen]
        generator = np.random.default_rng(layer)
        drawn = generator.integers(len(rows_RGE), size=(RESAMPLES, len(rows_RGE)))
        low, high = np.percentile([specialisation(rows_RGE[each].sum(0)) for each in drawn], INTERVAL)
        total_GE = rows_RGE.sum(0)
        share_GE = total_GE / total_GE.sum(1, keepdims=True)
        together_EE = pairs[layer] / np.maximum(np.diag(pairs[layer])[:, None], 1)
        found.append(LayerUse(layer, share_GE, specialisation(total_GE), float(low), float(high), together_EE))
    return [names[place] for place in seen], found


def specialisation(counts_GE: np.ndarray) -> float:
    """Mutual information of group and expert in bits, corrected for the number of choices; 0 for none."""
    total = counts_GE.sum()
    if not total:
        return 0.0
    joint = counts_GE / total
    apart = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    known = joint > 0
    bits = float((joint[known] * np.log2(joint[known] / apart[known])).sum())
    groups, experts = (counts_GE.sum(1) > 0).sum(), (counts_GE.sum(0) > 0).sum()
    return bits - float((groups - 1) * (experts - 1) / (2 * total * np.log(2)))


def can_miss_one(config: ModelConfig) -> bool:
    """Whether enough experts are left for a token when one is taken out."""
    return config.num_experts > config.experts_per_token


def loss_without(
    model: MoEModel, batches: Sequence[TrainingBatch], layer: int, told: Callable[[], object] = lambda: None
) -> np.ndarray:
    """[E] nats a token by which the loss rises when expert e of a layer may not be chosen; `told` after each expert.

    Raises ValueError for a model whose tokens need every expert (`can_miss_one`).
    """
    if not can_miss_one(model.config):
        raise ValueError(f"each token needs all {model.config.num_experts} experts: none can be taken out")
    router = model.sparse_layers()[layer].router
    before, rises = router.expert_bias.clone(), []
    with evaluating(model):
        whole = _loss(model, batches)
        for expert in range(model.config.num_experts):
            try:
                router.expert_bias[expert] = -torch.inf
                rises.append(_loss(model, batches) - whole)
            finally:
                router.expert_bias.copy_(before)
            told()
    return np.array(rises)


def _loss(model: MoEModel, batches: Sequence[TrainingBatch]) -> float:
    losses = [compute_losses(model, b.token_ids_RT, b.document_ids_RT, b.loss_mask_RT) for b in batches]
    labelled = sum(each.labelled_tokens for each in losses)
    return sum(float(each.main) * each.labelled_tokens for each in losses) / max(labelled, 1)


def _groups(batch: TrainingBatch, kind: str) -> TokenGroups:
    return {"languages": batch.languages, "domains": batch.domains, "sources": batch.sources}[kind]


def _choices(model: MoEModel, batch: TrainingBatch) -> dict[int, np.ndarray]:
    """Layer -> [R, T, k] experts chosen."""
    found: dict[int, np.ndarray] = {}

    def keep(layer: int) -> AbstractContextManager[Any]:
        def hook(module: nn.Module, given: Any, routing: Routing) -> None:
            del module, given
            shape = (*batch.token_ids_RT.shape, routing.experts_Nk.shape[1])
            found[layer] = routing.experts_Nk.view(shape).cpu().numpy()

        return model.sparse_layers()[layer].router.register_forward_hook(hook)

    handles = [keep(layer) for layer in model.sparse_layers()]
    try:
        with evaluating(model):
            documents: Tensor = batch.document_ids_RT
            model(batch.token_ids_RT, documents)
    finally:
        for handle in handles:
            handle.__exit__(None, None, None)
    return found
