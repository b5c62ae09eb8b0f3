"""Spread a model's weights over processes: FSDP2 for all but the experts, whole experts for expert parallelism.

Contract: gradients are sums over processes, not means, because each process's loss is already its share of the whole
batch's. Every weight starts as in one process: initial values are drawn whole and cut. Without expert parallelism the
experts are sharded by FSDP2 like the rest; with it a process keeps its experts whole and sums their gradients over the
processes that have the same ones.
Source: FSDP2 (torch.distributed.fsdp.fully_shard); expert parallelism of GShard (arXiv 2006.16668).
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from trainer.model.block import Block
from trainer.model.model import MoEModel
from trainer.parallel.ranks import Ranks

EXPERT_WEIGHTS = ("gate_up", "down")


def shard(model: MoEModel, ranks: Ranks) -> MoEModel:
    """Cut `model`, the same whole one in every process, in place."""
    if ranks.is_alone:
        return model
    model.share = ranks.share
    ignored: set[nn.Parameter] = set()
    if ranks.experts is not None:
        for moe in model.sparse_layers().values():
            moe.experts.group = ranks.experts
            for name in EXPERT_WEIGHTS:
                whole: nn.Parameter = getattr(moe.experts, name)
                part = nn.Parameter(whole.detach().chunk(ranks.config.expert)[ranks.expert_rank].clone())
                setattr(moe.experts, name, part)
                ignored.add(part)
    device = next(model.parameters()).device.type
    mesh = init_device_mesh(device, (ranks.config.processes,), mesh_dim_names=("all",))
    blocks = [module for module in model.modules() if isinstance(module, Block)]
    for module in (*blocks, model):
        fully_shard(module, mesh=mesh, ignored_params=ignored)
        assert isinstance(module, FSDPModule)
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)
    return model


def expert_weights(model: MoEModel) -> dict[str, nn.Parameter]:
    """Name -> weight, of those that expert parallelism keeps whole in this process; none without it."""
    return {
        f"layers.{index}.feed_forward.experts.{name}": getattr(moe.experts, name)
        for index, moe in model.sparse_layers().items()
        for name in EXPERT_WEIGHTS
        if moe.experts.group is not None
    }


def sum_expert_gradients(model: MoEModel, ranks: Ranks) -> None:
    """What FSDP2 does for the other weights: add up the gradients of those who have the same experts."""
    if ranks.copies is None:
        return
    for weight in expert_weights(model).values():
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
        dist.all_reduce(weight.grad, group=ranks.copies)


def sum_loads(model: MoEModel, ranks: Ranks) -> None:
    """Loads of the experts over all processes, so that every bias moves alike everywhere."""
    if ranks.is_alone:
        return
    for moe in model.sparse_layers().values():
        dist.all_reduce(moe.router.load)


def assemble_rows(values_RT: Tensor, ranks: Ranks) -> Tensor:
    """[rows of the batch, S] on every process, of what each has of its rows and stretch."""
    if ranks.is_alone:
        return values_RT
    parts = [torch.empty_like(values_RT) for _ in range(ranks.config.processes)]
    dist.all_gather(parts, values_RT.contiguous())
    contexts = ranks.config.context
    rows = [torch.cat(parts[at : at + contexts], dim=1) for at in range(0, len(parts), contexts)]
    return torch.cat(rows)
