"""Spread a model's weights over processes: FSDP2 for all but the experts, whole experts for expert parallelism.

Contract: gradients are sums over processes, not means, because each process's loss is already its share of the whole
batch's. Every weight starts as in one process: initial values are drawn whole, one weight at a time, and cut.
Without expert parallelism the experts are sharded by FSDP2 like the rest; with it a process keeps its experts whole and
sums their gradients over the processes that have the same ones.
Source: FSDP2 (torch.distributed.fsdp.fully_shard); expert parallelism of GShard (arXiv 2006.16668).
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from trainer.architecture import ModelConfig
from trainer.model.block import Block
from trainer.model.model import MoEModel, build_model, initialize
from trainer.parallel.ranks import Ranks

EXPERT_WEIGHTS = ("gate_up", "down")


def build_sharded(config: ModelConfig, vocabulary_size: int, seed: int, device: str, ranks: Ranks) -> MoEModel:
    """A new model of which this process has its part; no process ever holds more of it and one whole weight."""
    if ranks.is_alone:
        return build_model(config, vocabulary_size, seed, device)
    if config.tie_embeddings:  # a weight with two names is not found again once it has left the meta device
        return shard(build_model(config, vocabulary_size, seed, device), ranks)
    model = shard(build_model(config, vocabulary_size, seed, "meta"), ranks)
    model.to_empty(device=device)
    own = expert_weights(model)

    def part(name: str, whole: Tensor, like: Tensor) -> Tensor:
        if isinstance(like, DTensor):
            return DTensor.from_local(
                local_part(whole, like).to(device), like.device_mesh, like.placements, run_check=False,
                shape=like.shape, stride=like.stride(),
            )  # fmt: skip
        return whole.chunk(ranks.config.expert)[ranks.expert_rank] if name in own else whole

    shapes = {
        name: weight.shape for name, weight in build_model(config, vocabulary_size, seed, "meta").named_parameters()
    }
    initialize(model, seed, shapes, part)
    return model


def shard(model: MoEModel, ranks: Ranks) -> MoEModel:
    """Cut `model`, the same whole one in every process or one on the meta device, in place."""
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
    assert ranks.grid is not None
    mesh = init_device_mesh(ranks.grid.device_type, (ranks.config.processes,), mesh_dim_names=("all",))
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


def local_part(whole: Tensor, like: DTensor) -> Tensor:
    """What of a whole tensor this process has of `like`."""
    shape, offset = compute_local_shape_and_global_offset(like.shape, like.device_mesh, like.placements)
    return whole[tuple(slice(at, at + size) for at, size in zip(offset, shape, strict=True))]
