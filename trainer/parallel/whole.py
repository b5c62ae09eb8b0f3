"""Whole tensors out of the parts that processes have, and parts out of whole ones: what checkpoints are made of.

Contract: a checkpoint holds whole tensors, so that any grid of processes reads what any other wrote; putting together
and cutting change no bit. Every process calls these functions, since each gives its part. Cost: the whole state in
every process's memory for as long as it is written or read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from trainer.model.model import MoEModel
from trainer.optim import MuonAdamW, local_part
from trainer.parallel.ranks import Ranks
from trainer.parallel.sharding import expert_weights


def whole_state(model: MoEModel, optimizer: MuonAdamW, ranks: Ranks) -> tuple[dict[str, Tensor], Any]:
    """State dictionaries of model and optimiser as one process would have them."""
    own = expert_weights(model)

    def whole(name: str, tensor: Tensor) -> Tensor:
        if isinstance(tensor, DTensor):
            return tensor.full_tensor()
        if ranks.experts is None or name not in own:
            return tensor
        parts = [torch.empty_like(tensor) for _ in range(ranks.config.expert)]
        dist.all_gather(parts, tensor.contiguous(), group=ranks.experts)
        return torch.cat(parts)

    weights = {name: whole(name, tensor.detach()) for name, tensor in model.state_dict().items()}
    return weights, _mapped(optimizer.state_dict(), whole)


def put_state(
    model: MoEModel, optimizer: MuonAdamW, ranks: Ranks, weights: Mapping[str, Tensor], state: Mapping[str, Any]
) -> None:
    """Put whole state dictionaries into a model and optimiser that may be cut."""
    own = expert_weights(model)

    def part(name: str, whole: Tensor, like: Tensor) -> Tensor:
        if isinstance(like, DTensor):
            cut = local_part(whole.to(like.device), like)
            return DTensor.from_local(cut, like.device_mesh, like.placements, shape=like.shape, stride=like.stride())
        if ranks.experts is not None and name in own:
            return whole.chunk(ranks.config.expert)[ranks.expert_rank]
        return whole

    live = model.state_dict()
    missing = live.keys() ^ weights.keys()
    assert not missing, f"weights of another model: {sorted(missing)[:5]}"
    with torch.no_grad():
        for name, tensor in live.items():
            tensor.copy_(part(name, weights[name], tensor))
    likes = optimizer.state_dict()
    cut_state = {
        "muon": {name: part(name, whole, likes["muon"][name]) for name, whole in state["muon"].items()},
        "adamw": {
            name: {key: part(name, whole, likes["adamw"][name][key]) for key, whole in values.items()}
            for name, values in state["adamw"].items()
        },
    }
    optimizer.load_state_dict(cut_state)


def _mapped(state: Mapping[str, Any], whole: Callable[[str, Tensor], Tensor]) -> dict[str, Any]:
    return {
        "muon": {name: whole(name, tensor) for name, tensor in state["muon"].items()},
        "adamw": {
            name: {key: whole(name, tensor) for key, tensor in values.items()}
            for name, values in state["adamw"].items()
        },
    }
