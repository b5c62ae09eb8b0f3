"""Sparse feed-forward: sigmoid router with a selection-only bias, dropless experts, an ungated shared expert.

Contract: every token reaches its experts_per_token experts, whatever the load. The bias decides who is chosen and
never touches the output or a gradient. The layer keeps no count of its own: it returns what it routed, so that
recomputing it in the backward pass cannot count twice.
Cost: one grouped matrix product for all experts; rows are only ever gathered, forward and backward.
Source: DeepSeek-V3 (arXiv 2412.19437, sections 2.1.2 and 2.1.3) as used by K-EXAONE (arXiv 2601.01739).
Shapes: B rows, T tokens a row, N = B*T tokens, k experts per token, R = N*k routed rows, E experts, C width.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.architecture import ModelConfig
from trainer.model.linear import MLP

WEIGHT_SUM_FLOOR = 1e-20  # keeps the normalisation finite when all chosen scores underflow


class Routing(NamedTuple):
    """Who goes where."""

    scores_NE: Tensor  # sigmoid scores, float32
    experts_Nk: Tensor  # int64
    weights_Nk: Tensor  # float32, they add up to routed_scaling


class RoutingStatistics(NamedTuple):
    """What one layer did with one batch; padding is not counted."""

    counts_E: Tensor  # int64: tokens sent to each expert
    balance_loss: Tensor  # scalar, not yet weighted; 1 when every row is perfectly balanced


class Router(nn.Module):
    """Scores in float32 whatever the model's precision, since choices flip on small differences."""

    expert_bias: Tensor
    load: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.experts_per_token = config.experts_per_token
        self.routed_scaling = config.routed_scaling
        self.weight = nn.Parameter(torch.empty(config.num_experts, config.hidden_size))
        self.register_buffer("expert_bias", torch.zeros(config.num_experts))
        # Tokens since the last bias update; a checkpoint lies between steps, where it is zero.
        self.register_buffer("load", torch.zeros(config.num_experts, dtype=torch.int64), persistent=False)

    def forward(self, x_NC: Tensor) -> Routing:
        precision = torch.promote_types(x_NC.dtype, torch.float32)
        scores = F.linear(x_NC.to(precision), self.weight.to(precision)).sigmoid()
        chosen = (scores.detach() + self.expert_bias).topk(self.experts_per_token, dim=-1, sorted=False).indices
        weights = scores.gather(1, chosen)
        weights = weights / (weights.sum(-1, keepdim=True) + WEIGHT_SUM_FLOOR) * self.routed_scaling
        return Routing(scores, chosen, weights)

    @torch.no_grad()
    def update_bias(self, rate: float) -> Tensor:
        """Move each bias by `rate` towards the mean load; returns the load it used, int64 [E], and zeroes it."""
        load = self.load.clone()
        self.expert_bias += rate * torch.sign(load.double().mean() - load)
        self.load.zero_()
        return load

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Router":
        """Keep the bias in float32 when the model is cast to bfloat16: steps of 1e-4 would round to nothing."""
        exact = self.expert_bias
        super()._apply(fn, recurse)
        if self.expert_bias.dtype.itemsize < torch.float32.itemsize:
            self.expert_bias = exact.to(self.expert_bias.device, torch.float32)
        return self


class Experts(nn.Module):
    """All experts of a layer as two stacks of matrices."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        experts, hidden, width = config.num_experts, config.hidden_size, config.expert_intermediate_size
        self.gate_up = nn.Parameter(torch.empty(experts, 2 * width, hidden))
        self.down = nn.Parameter(torch.empty(experts, hidden, width))
        self.fused_rows: dict[str, tuple[int, ...]] = {"gate_up": (width, width)}

    def forward(self, x_RC: Tensor, ends_E: Tensor) -> Tensor:
        """Rows sorted by expert, expert e's ending before `ends_E[e]` (int32), through their experts: [R, C]."""
        gate, up = expert_product(x_RC, self.gate_up, ends_E).chunk(2, dim=-1)
        return expert_product(F.silu(gate) * up, self.down, ends_E)


class MoE(nn.Module):
    """Router, routed experts, and the shared expert every token passes through."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.router = Router(config)
        self.experts = Experts(config)
        self.shared = MLP(config.hidden_size, config.expert_intermediate_size * config.num_shared_experts)

    def forward(self, x_BTC: Tensor) -> tuple[Tensor, Routing]:
        x_NC = x_BTC.flatten(0, 1)
        routing = self.router(x_NC)
        expert_of_row = routing.experts_Nk.flatten()
        order_R = expert_of_row.argsort(stable=True)  # row in expert order -> row in token order
        inverse_R = torch.empty_like(order_R).scatter_(0, order_R, torch.arange(len(order_R), device=order_R.device))
        counts_E = torch.bincount(expert_of_row, minlength=len(self.router.expert_bias))
        ends_E = counts_E.cumsum(0).to(torch.int32)

        sorted_RC = _Dispatch.apply(x_NC, order_R, inverse_R, routing.experts_Nk.shape[1])
        y_RC = _Reorder.apply(self.experts(sorted_RC, ends_E), inverse_R, order_R)
        y_NkC = y_RC.unflatten(0, routing.experts_Nk.shape)
        routed_NC = (y_NkC * routing.weights_Nk.unsqueeze(-1)).sum(1).to(x_BTC.dtype)
        return routed_NC.view_as(x_BTC) + self.shared(x_BTC), routing


def routing_statistics(routing: Routing, valid_BT: Tensor) -> RoutingStatistics:
    """Load per expert and the sequence-level balance loss of DeepSeek-V3 (equations 17 to 20), mean over rows.

    Per row of T' tokens that are not padding: sum_e f_e P_e with f_e = E/(k T') * count_e and P_e the mean over
    tokens of s_te / sum_e' s_te'. A row here is a packed row, the unit the report's sequences are.
    """
    rows, row_tokens = valid_BT.shape
    experts, per_token = routing.scores_NE.shape[1], routing.experts_Nk.shape[1]
    row_of_token = torch.arange(rows, device=valid_BT.device).repeat_interleave(row_tokens)
    # Padding is counted under one extra row, which is then cut off.
    row_of_token = torch.where(valid_BT.flatten(), row_of_token, rows)
    cell = (row_of_token[:, None] * experts + routing.experts_Nk).flatten()
    counts_BE = torch.bincount(cell, minlength=(rows + 1) * experts).view(rows + 1, experts)[:rows]

    tokens_B1 = valid_BT.sum(1, keepdim=True).clamp(min=1)
    share_NE = routing.scores_NE / routing.scores_NE.sum(-1, keepdim=True)
    share_BTE = share_NE.view(rows, row_tokens, experts) * valid_BT.unsqueeze(-1)
    probability_BE = share_BTE.sum(1) / tokens_B1
    frequency_BE = counts_BE * (experts / per_token) / tokens_B1
    return RoutingStatistics(counts_BE.sum(0), (frequency_BE * probability_BE).sum(1).mean())


def expert_product(x_RC: Tensor, weight_EOC: Tensor, ends_E: Tensor) -> Tensor:
    """x W_e^T for each expert's rows, [R, O]: the grouped kernel, or a loop where it has none (float64)."""
    if x_RC.dtype in (torch.float32, torch.bfloat16):
        return F.grouped_mm(x_RC, weight_EOC.transpose(-2, -1), offs=ends_E)
    counts = ends_E.diff(prepend=ends_E.new_zeros(1)).tolist()
    # unbind, not indexing: the backward of `weight[e]` makes a full-size zero gradient for every expert.
    parts = zip(x_RC.split(counts), weight_EOC.unbind(0), strict=True)
    return torch.cat([F.linear(rows, weight) for rows, weight in parts])


class _Dispatch(torch.autograd.Function):
    """Copy each token's row to its k places in expert order; backward gathers and adds, without scattering."""

    @staticmethod
    def forward(ctx: Any, x_NC: Tensor, order_R: Tensor, inverse_R: Tensor, per_token: int) -> Tensor:
        ctx.save_for_backward(inverse_R)
        ctx.per_token = per_token
        return x_NC[order_R // per_token]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (inverse_R,) = ctx.saved_tensors
        return gradients[0][inverse_R].unflatten(0, (-1, ctx.per_token)).sum(1), None, None, None


class _Reorder(torch.autograd.Function):
    """rows[order] for a permutation; backward gathers with its inverse."""

    @staticmethod
    def forward(ctx: Any, rows_RC: Tensor, order_R: Tensor, inverse_R: Tensor) -> Tensor:
        ctx.save_for_backward(inverse_R)
        return rows_RC[order_R]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (inverse_R,) = ctx.saved_tensors
        return gradients[0][inverse_R], None, None
