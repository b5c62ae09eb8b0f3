"""Muon for hidden matrices, AdamW for the rest, behind one optimiser.

Contract: every matrix is orthogonalised by itself: each expert, each of gate and up, each of query, key and value,
although they are stored fused. All matrices of one shape are one batched product. State is keyed by the weight's
name and exists from the start, so that a checkpoint of it can be loaded into a new optimiser. A weight that is cut over
processes is orthogonalised whole by one of them, each taking another.
Source: Muon (Jordan et al. 2024), scaled to AdamW's update size (Moonlight, arXiv 2502.16982, section 2.2); which
weights get it is ours, after the same paper: the report names Muon and no more.
Cost: beside the state, memory for a batch of ELEMENTS_PER_BATCH.
Shapes: G matrices of a shape, R rows, C columns.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from trainer.config import OptimizerConfig
from trainer.model.model import MoEModel
from trainer.parallel.sharding import expert_weights

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # quintic coefficients, Jordan et al. 2024
NORM_FLOOR = 1e-7  # of a matrix, before dividing by it
MATCH_ADAMW = 0.2  # update RMS of AdamW, Moonlight equation 4
ELEMENTS_PER_BATCH = 1 << 26  # at most this many elements are orthogonalised at once (128 MiB in bfloat16)

GroupName = Literal["muon", "adamw-decayed", "adamw-undecayed"]


class GroupRow(NamedTuple):
    """One line of the table of parameter groups."""

    group: GroupName
    weights: int  # tensors
    matrices: int  # orthogonalised by themselves; 0 for AdamW
    parameters: int
    weight_decay: float
    rate_ratio: float  # of the learning rate
    example: str


class _Matrices(NamedTuple):
    """Matrices of one Muon weight: views [G, R, C] into it, its gradient and its momentum."""

    weight: Tensor
    gradient: Tensor
    momentum: Tensor | None  # None: `gradient` is the update already

    def update(self, momentum: float) -> Tensor:
        """Nesterov's."""
        return self.gradient if self.momentum is None else self.gradient.lerp(self.momentum, momentum)

    def part(self, first: int, last: int) -> _Matrices:
        momentum = None if self.momentum is None else self.momentum[first:last]
        return _Matrices(self.weight[first:last], self.gradient[first:last], momentum)


class _Sharded(NamedTuple):
    """A Muon weight of which every process has rows."""

    weight: DTensor
    gradient: DTensor
    momentum: DTensor
    row_parts: tuple[int, ...] | None


class MuonAdamW:
    """One optimiser with one learning rate over both rules. Make it with `build_optimizer`."""

    def __init__(self, model: MoEModel, config: OptimizerConfig) -> None:
        self.config = config
        self.learning_rate = 0.0
        self._groups = parameter_groups(model)
        self._row_parts = _row_parts(model)
        self._own_experts = set(expert_weights(model))
        self._expert_group = next((moe.experts.group for moe in model.sparse_layers().values()), None)
        self._momentum = {name: torch.zeros_like(weight) for name, weight in self._groups["muon"].items()}
        self._adamw = torch.optim.AdamW(
            [
                {"params": list(self._groups["adamw-decayed"].values()), "weight_decay": config.weight_decay},
                {"params": list(self._groups["adamw-undecayed"].values()), "weight_decay": 0.0},
            ],
            lr=0.0,
            betas=(config.adamw_beta1, config.adamw_beta2),
            eps=config.adamw_eps,
            fused=True,
        )
        for weight in self._adamw_weights().values():
            self._adamw.state[weight] = {
                "step": torch.zeros((), device=weight.device),
                "exp_avg": torch.zeros_like(weight),
                "exp_avg_sq": torch.zeros_like(weight),
            }

    def set_learning_rate(self, learning_rate: float) -> None:
        """Set the rate of the next steps, for both rules."""
        self.learning_rate = learning_rate
        for group in self._adamw.param_groups:
            group["lr"] = learning_rate * self.config.adamw_rate_ratio

    def zero_grad(self) -> None:
        for weights in self._groups.values():
            for weight in weights.values():
                weight.grad = None

    @torch.no_grad()
    def gradient_norms(self) -> dict[str, float]:
        """Norm of each group's gradients; groups without one are left out."""
        norms: dict[str, float] = {}
        for group, weights in self._groups.items():
            gradients = {name: weight.grad for name, weight in weights.items() if weight.grad is not None}
            if gradients:
                norms[group] = math.sqrt(self._square(gradients))
        return norms

    def _square(self, tensors: dict[str, Tensor]) -> float:
        """Squared norm of tensors of the weights' form, each in one process, sharded, or a process's own experts."""
        kinds: dict[str, list[Tensor]] = defaultdict(list)
        for name, tensor in tensors.items():
            kind = "sharded" if isinstance(tensor, DTensor) else "own" if name in self._own_experts else "whole"
            kinds[kind].append(tensor.to_local() if isinstance(tensor, DTensor) else tensor)
        squares = {kind: float(torch.nn.utils.get_total_norm(parts)) ** 2 for kind, parts in kinds.items()}
        return (
            squares.get("whole", 0.0)
            + (_summed(squares["sharded"], None) if "sharded" in squares else 0.0)
            + (_summed(squares["own"], self._expert_group) if "own" in squares else 0.0)
        )

    def clip_gradients(self, norm: float) -> None:
        """Scale all gradients down to `gradient_clip_norm`, given their norm now."""
        weights = [weight for group in self._groups.values() for weight in group.values()]
        factor = min(1.0, self.config.gradient_clip_norm / (norm + 1e-6))  # as torch clips
        for weight in weights:
            if weight.grad is not None and factor < 1:
                weight.grad.mul_(factor)

    @torch.no_grad()
    def step(self) -> dict[str, float]:
        """Update every weight that has a gradient; returns the norm of each group's update, decay not counted."""
        self._adamw.step()
        squares: dict[str, float] = {}
        for group in ("adamw-decayed", "adamw-undecayed"):
            if self._groups[group]:
                changes = {name: self._adamw_change(weight) for name, weight in self._groups[group].items()}
                squares[group] = self._square({name: change for name, change in changes.items() if change is not None})
        squares["muon"] = self._muon_step()
        return {group: math.sqrt(squares[group]) for group in self._groups if group in squares}

    def _muon_step(self) -> float:
        """Update the matrices; squared norm of the change."""
        here: list[_Matrices] = []
        own: list[_Matrices] = []
        sharded: list[_Sharded] = []
        for name, weight in self._groups["muon"].items():
            if weight.grad is None:
                continue
            momentum, rows = self._momentum[name], self._row_parts.get(name)
            momentum.lerp_(weight.grad, 1 - self.config.muon_momentum)
            weight.mul_(1 - self.learning_rate * self.config.weight_decay)
            if isinstance(weight, DTensor):
                cut = _Sharded(_distributed(weight.detach()), _distributed(weight.grad), _distributed(momentum), rows)
                sharded.append(cut)
            else:
                (own if name in self._own_experts else here).extend(_split(weight, weight.grad, momentum, rows))
        square = self._update_all(here)
        if self._own_experts:
            square += _summed(self._update_all(own), self._expert_group)
        return square + (self._update_sharded(sharded) if sharded else 0.0)

    def _update_all(self, matrices: list[_Matrices]) -> float:
        """Update matrices that are whole here, those of one shape at once; squared norm of the change."""
        by_shape: dict[tuple[int, int], list[_Matrices]] = defaultdict(list)
        for part in matrices:
            by_shape[part.weight.shape[1], part.weight.shape[2]].append(part)
        return sum(self._update_matrices(parts, *shape) for shape, parts in by_shape.items())

    def _update_sharded(self, weights: list[_Sharded]) -> float:
        """A matrix is orthogonalised whole, by one process, and each gets its rows of the change.

        Memory: one whole weight and its change, beside the process's rows of as many weights as there are processes.
        """
        size = dist.get_world_size()
        alike = sorted(weights, key=lambda each: each.weight.numel(), reverse=True)  # equal work for all at a time
        square = sum(self._update_group(alike[at : at + size]) for at in range(0, len(alike), size))
        return _summed(square, None)

    def _update_group(self, group: list[_Sharded]) -> float:
        """The i-th weight of the group by process i; squared norm of this process's change."""
        size, rank = dist.get_world_size(), dist.get_rank()
        ahead = self.config.muon_momentum
        parts = [each.gradient.to_local().lerp(each.momentum.to_local(), ahead).flatten() for each in group]
        sent = [part.numel() for part in parts] + [0] * (size - len(group))
        mine = group[rank] if rank < len(group) else None
        received = [0] * size if mine is None else _elements_of_processes(mine.weight, size)
        arrived = parts[0].new_empty(sum(received))
        dist.all_to_all_single(arrived, torch.cat(parts), received, sent)
        square, change = 0.0, torch.zeros_like(arrived)
        if mine is not None:
            shape = mine.weight.shape
            square = self._update_all(_split(change.view(shape), arrived.view(shape), None, mine.row_parts))
        returned = parts[0].new_empty(sum(sent))
        dist.all_to_all_single(returned, change, sent, received)
        for each, piece in zip(group, returned.split(sent[: len(group)]), strict=True):
            local = each.weight.to_local()
            local.add_(piece.view(local.shape))
        return square

    def _adamw_change(self, weight: nn.Parameter) -> Tensor | None:
        """The last AdamW update of a weight, from the state it left."""
        state, config = self._adamw.state[weight], self.config
        steps = float(state["step"])
        if weight.grad is None or steps == 0:
            return None
        spread = (state["exp_avg_sq"].sqrt() / math.sqrt(1 - config.adamw_beta2**steps)).add_(config.adamw_eps)
        rate = self.learning_rate * config.adamw_rate_ratio / (1 - config.adamw_beta1**steps)
        return state["exp_avg"] / spread * rate

    def _update_matrices(self, parts: list[_Matrices], rows: int, columns: int) -> float:
        """Orthogonalise all matrices of one shape and subtract them from their weights; squared norm of the change."""
        rate = self.learning_rate * MATCH_ADAMW * math.sqrt(max(rows, columns))
        square = 0.0
        for batch in _batches(parts, max(1, ELEMENTS_PER_BATCH // (rows * columns))):
            updates_GRC = torch.cat([part.update(self.config.muon_momentum) for part in batch])
            orthogonal_GRC = orthogonalize(updates_GRC, self.config.newton_schulz_steps)
            for part, update in zip(batch, orthogonal_GRC.split([len(part.weight) for part in batch]), strict=True):
                part.weight.add_(update, alpha=-rate)
            square += float(orthogonal_GRC.float().norm()) ** 2
        return rate**2 * square

    def state_dict(self) -> dict[str, Any]:
        """Momenta by weight name. The tensors are the live ones, not copies."""
        adamw = {name: dict(self._adamw.state[weight]) for name, weight in self._adamw_weights().items()}
        return {"muon": dict(self._momentum), "adamw": adamw}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Copy a `state_dict` in. Raises KeyError when it is of a model with other weights."""
        _check_same_names(self._momentum, state["muon"])
        _check_same_names(self._adamw_weights(), state["adamw"])
        for name, momentum in self._momentum.items():
            momentum.copy_(state["muon"][name])
        for name, weight in self._adamw_weights().items():
            for key, value in self._adamw.state[weight].items():
                value.copy_(state["adamw"][name][key])

    def describe_groups(self) -> list[GroupRow]:
        """The table of parameter groups, one row a group that has weights."""
        rows: list[GroupRow] = []
        for group, weights in self._groups.items():
            if not weights:
                continue
            is_muon = group == "muon"
            matrices = sum(
                len(part.weight)
                for name, weight in weights.items()
                for part in _split(weight, weight, None, self._row_parts.get(name))
            )
            rows.append(
                GroupRow(
                    group=group,
                    weights=len(weights),
                    matrices=matrices if is_muon else 0,
                    parameters=sum(weight.numel() for weight in weights.values()),
                    weight_decay=0.0 if group == "adamw-undecayed" else self.config.weight_decay,
                    rate_ratio=1.0 if is_muon else self.config.adamw_rate_ratio,
                    example=next(iter(weights)),
                )
            )
        return rows

    def _adamw_weights(self) -> dict[str, nn.Parameter]:
        return {**self._groups["adamw-decayed"], **self._groups["adamw-undecayed"]}


def build_optimizer(model: MoEModel, config: OptimizerConfig) -> MuonAdamW:
    """An optimiser over all weights of `model`, at learning rate 0 until `set_learning_rate`."""
    return MuonAdamW(model, config)


def parameter_groups(model: MoEModel) -> dict[GroupName, dict[str, nn.Parameter]]:
    """Which rule each weight gets: norms AdamW without decay; embedding, head and routers AdamW; matrices Muon."""
    groups: dict[GroupName, dict[str, nn.Parameter]] = {"muon": {}, "adamw-decayed": {}, "adamw-undecayed": {}}
    for name, weight in model.named_parameters():
        if weight.ndim == 1:
            groups["adamw-undecayed"][name] = weight
        elif name in ("embedding.weight", "head.weight") or name.endswith("router.weight"):
            groups["adamw-decayed"][name] = weight
        else:
            groups["muon"][name] = weight
    return groups


def orthogonalize(matrices_GRC: Tensor, steps: int) -> Tensor:
    """The nearest semi-orthogonal matrix of each, roughly: singular values end between about 0.7 and 1.2.

    Newton-Schulz iteration in bfloat16, as in torch.optim.Muon, for a batch [G, R, C]; returns bfloat16.
    """
    a, b, c = NEWTON_SCHULZ
    x = matrices_GRC.bfloat16()
    is_tall = x.shape[1] > x.shape[2]
    if is_tall:
        x = x.mT
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=NORM_FLOOR)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if is_tall else x


def _row_parts(model: MoEModel) -> dict[str, tuple[int, ...]]:
    """Rows of each matrix of the weights that hold several, by weight name."""
    parts: dict[str, tuple[int, ...]] = {}
    for module_name, module in model.named_modules():
        for weight_name, rows in getattr(module, "fused_rows", {}).items():
            parts[f"{module_name}.{weight_name}"] = rows
    return parts


def _split(
    weight: Tensor, gradient: Tensor, momentum: Tensor | None, row_parts: tuple[int, ...] | None
) -> list[_Matrices]:
    """Views [G, R, C] of a weight [R, C] or [experts, R, C], one for each fused part."""

    def views(tensor: Tensor) -> tuple[Tensor, ...]:
        tensor_GRC = tensor.detach().view(-1, *tensor.shape[-2:])
        return (tensor_GRC,) if row_parts is None else tensor_GRC.split(row_parts, dim=1)

    momenta = (None,) * len(row_parts or (1,)) if momentum is None else views(momentum)
    return [_Matrices(*each) for each in zip(views(weight), views(gradient), momenta, strict=True)]


def _batches(parts: list[_Matrices], at_once: int) -> Iterator[list[_Matrices]]:
    """The same matrices in the same order, `at_once` at a time."""
    batch: list[_Matrices] = []
    room = at_once
    for part in parts:
        first = 0
        while first < len(part.weight):
            last = min(first + room, len(part.weight))
            batch.append(part.part(first, last))
            room -= last - first
            first = last
            if room == 0:
                yield batch
                batch, room = [], at_once
    if batch:
        yield batch


def _distributed(tensor: Tensor) -> DTensor:
    assert isinstance(tensor, DTensor)
    return tensor


def _elements_of_processes(weight: DTensor, processes: int) -> list[int]:
    """Of a weight that FSDP2 has cut: equal stretches of rows, the last ones less."""
    rows = weight.shape[0]
    most = -(-rows // processes)
    return [max(0, min(most, rows - most * rank)) * (weight.numel() // rows) for rank in range(processes)]


def _summed(value: float, group: dist.ProcessGroup | None) -> float:
    """Over the group's processes; None is all."""
    total = torch.tensor(value, dtype=torch.float64)
    dist.all_reduce(total, group=group)
    return float(total)


def _check_same_names(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    if ours.keys() != theirs.keys():
        raise KeyError(
            f"optimiser state is of another model: missing {sorted(ours.keys() - theirs.keys())}, "
            f"unknown {sorted(theirs.keys() - ours.keys())}"
        )
