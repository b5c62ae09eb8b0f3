"""Muon for hidden matrices, AdamW for the rest, behind one optimiser.

Contract: every matrix is orthogonalised by itself: each expert, each of gate and up, each of query, key and value,
although they are stored fused. All matrices of one shape are one batched product. State is keyed by the weight's
name and exists from the start, so that a checkpoint of it can be loaded into a new optimiser.
Source: Muon (Jordan et al. 2024), scaled to AdamW's update size (Moonlight, arXiv 2502.16982, section 2.2); which
weights get it is ours, after the same paper: the report names Muon and no more.
Shapes: G matrices of a shape, R rows, C columns.
"""

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from trainer.config import OptimizerConfig
from trainer.model.model import MoEModel
from trainer.parallel.sharding import expert_weights, local_part

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


@dataclass(frozen=True)
class _Matrices:
    """All matrices of one Muon weight: views into it and into its momentum, [G, R, C] each."""

    weight: Tensor
    update: Tensor


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
        by_shape: dict[tuple[int, int, bool], list[_Matrices]] = defaultdict(list)
        sharded: list[tuple[DTensor, Tensor]] = []  # a weight and its whole change
        for name, weight in self._groups["muon"].items():
            if weight.grad is None:
                continue
            momentum = self._momentum[name]
            momentum.lerp_(weight.grad, 1 - self.config.muon_momentum)
            update = weight.grad.lerp(momentum, self.config.muon_momentum)  # Nesterov
            weight.mul_(1 - self.learning_rate * self.config.weight_decay)
            target: Tensor = weight
            if isinstance(weight, DTensor):
                # A matrix is orthogonalised whole: its gradient is gathered, and each process keeps its rows.
                assert isinstance(update, DTensor)
                update = update.full_tensor()
                target = torch.zeros_like(update)
                sharded.append((weight, target))
            for part in _split(target, update, self._row_parts.get(name)):
                by_shape[part.weight.shape[1], part.weight.shape[2], name in self._own_experts].append(part)
        whole = own = 0.0
        for (rows, columns, is_own), parts in by_shape.items():
            square = self._update_matrices(parts, rows, columns)
            whole, own = (whole, own + square) if is_own else (whole + square, own)
        for weight, change in sharded:
            weight.to_local().add_(local_part(change, weight))
        return whole + (_summed(own, self._expert_group) if self._own_experts else 0.0)

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
        updates_GRC = torch.cat([part.update for part in parts])
        at_once = max(1, ELEMENTS_PER_BATCH // (rows * columns))
        orthogonal = [orthogonalize(batch, self.config.newton_schulz_steps) for batch in updates_GRC.split(at_once)]
        for part, update in zip(parts, torch.cat(orthogonal).split([len(p.weight) for p in parts]), strict=True):
            part.weight.add_(update, alpha=-rate)
        return rate**2 * sum(float(batch.float().norm()) ** 2 for batch in orthogonal)

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
                for part in _split(weight, weight, self._row_parts.get(name))
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


def _split(weight: Tensor, update: Tensor, row_parts: tuple[int, ...] | None) -> list[_Matrices]:
    """Views [G, R, C] of a weight [R, C] or [experts, R, C], one for each fused part."""
    weight_GRC, update_GRC = (t if t.ndim == 3 else t.unsqueeze(0) for t in (weight.detach(), update))
    if row_parts is None:
        return [_Matrices(weight_GRC, update_GRC)]
    pairs = zip(weight_GRC.split(row_parts, dim=1), update_GRC.split(row_parts, dim=1), strict=True)
    return [_Matrices(part_weight, part_update) for part_weight, part_update in pairs]


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
