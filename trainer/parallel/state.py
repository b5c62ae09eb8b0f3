"""The state of a run by name, as this process has it: what checkpoints are written from and read into.

Contract: every process names the same tensors, in its own memory, not copies. Weights cut by FSDP2 are DTensors
already; a process's own experts become DTensors over the same memory, so that DCP knows which rows of the whole they
are. A checkpoint therefore fits any grid of processes. Cost: none.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate, Shard

from trainer.checkpoint import Tree, split_state
from trainer.model.model import MoEModel
from trainer.optim import MuonAdamW
from trainer.parallel.ranks import Ranks
from trainer.parallel.sharding import expert_weights

MODEL = "model."
RANDOM_STATE = "rng.cpu"


def named_state(model: MoEModel, optimizer: MuonAdamW, ranks: Ranks) -> tuple[dict[str, Tensor], Tree]:
    """Tensors by name, a copy of the random state among them, and the tree of the optimiser's state."""
    tensors = model_state(model, ranks)
    tree = split_state(optimizer.state_dict(), "optimizer", tensors)
    for name in expert_weights(model):
        tensors[f"optimizer.muon.{name}"] = _among_others(tensors[f"optimizer.muon.{name}"], ranks)
    tensors[RANDOM_STATE] = torch.get_rng_state()
    return dict(sorted(tensors.items())), tree


def model_state(model: MoEModel, ranks: Ranks) -> dict[str, Tensor]:
    """Weights and buffers alone."""
    tensors: dict[str, Tensor] = {f"{MODEL}{name}": tensor.detach() for name, tensor in model.state_dict().items()}
    for name in expert_weights(model):
        tensors[f"{MODEL}{name}"] = _among_others(tensors[f"{MODEL}{name}"], ranks)
    return tensors


def _among_others(experts: Tensor, ranks: Ranks) -> DTensor:
    """A process's own experts as its rows of all experts."""
    assert ranks.grid is not None
    return DTensor.from_local(experts, ranks.grid, [Replicate(), Shard(0), Replicate()], run_check=False)
