"""Sparse feed-forward: sigmoid router with a selection-only bias, dropless experts, an ungated shared expert.

Contract: every token reaches its experts_per_token experts, whatever the load. The bias decides who is chosen and
never touches the output or a gradient. The layer keeps no count of its own: it returns what it routed, so that
recomputing it in the backward pass cannot count twice.
Cost: one grouped matrix product for all experts; rows are only ever gathered, forward and backward.
Source: DeepSeek-V3 (arXiv 2412.19437, sections 2.1.2 and 2.1.3) as used by K-EXAONE (arXiv 2601.01739).
Shapes: B rows, T tokens a row, N = B*T tokens, k experts per token, R = N*k routed rows, E experts, C width.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.architecture import ModelConfig
from trainer.model.exchange import ContextShare, exchange_rows
from trainer.model.fused import combine_experts, gather_tokens, swiglu
from trainer.model.linear import MLP
from trainer.model.products import expert_product

ROW_MULTIPLE = 64
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
    entropy: Tensor  # scalar, detached: of the normalised scores, mean over tokens, 1 when they are all alike


class Route(NamedTuple):
    """How rows of tokens become rows of experts."""

    token_R: Tensor  # int64: the token of each row in expert order, 0 for rows of no token
    places_Nk: Tensor  # int64: where a token's rows are in expert order
    counts_E: Tensor  # int64
    ends_E: Tensor  # int32: expert e's rows end before this


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
        self.product = expert_product
        # Of the processes that have a share of the experts each; None: all are here.
        self.group: dist.ProcessGroup | None = None

    def forward(self, x_RC: Tensor, ends_E: Tensor) -> Tensor:
        """Rows sorted by expert, expert e's ending before `ends_E[e]` (int32), through their experts: [R, C]."""
        if self.group is None:
            return self.product(swiglu(self.product(x_RC, self.gate_up, ends_E)), self.down, ends_E)
        return self._exchanged(x_RC, ends_E, self.group)

    def _exchanged(self, x_RC: Tensor, ends_E: Tensor, group: dist.ProcessGroup) -> Tensor:
        """Rows to the processes that have their experts, and what became of them back."""
        size = dist.get_world_size(group)
        sent_SE = ends_E.diff(prepend=ends_E.new_zeros(1)).to(torch.int64).view(size, -1)  # to process, its experts
        received_SE = torch.empty_like(sent_SE)
        dist.all_to_all_single(received_SE, sent_SE, group=group)
        sent, received = sent_SE.sum(1).tolist(), received_SE.sum(1).tolist()
        arrived_RC = exchange_rows(x_RC, sent, received, group)
        # They arrive by sender, then by expert; the product wants them by expert.
        local_E = torch.arange(sent_SE.shape[1], device=x_RC.device).repeat(size)
        expert_R = local_E.repeat_interleave(received_SE.flatten())
        route = dispatch_route(expert_R[:, None], sent_SE.shape[1])
        ordered_RC = gather_tokens(arrived_RC, route.token_R, route.places_Nk)
        y_RC = self.product(swiglu(self.product(ordered_RC, self.gate_up, route.ends_E)), self.down, route.ends_E)
        back_RC = gather_tokens(y_RC, route.places_Nk[:, 0], route.token_R[:, None])
        return exchange_rows(back_RC, received, sent, group)


class MoE(nn.Module):
    """Router, routed experts, and the shared expert every token passes through."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.router = Router(config)
        self.experts = Experts(config)
        self.shared = MLP(config.hidden_size, config.expert_intermediate_size * config.num_shared_experts)

    def forward(self, x_BTC: Tensor, residual_BTC: Tensor) -> tuple[Tensor, Routing]:
        """residual + what the experts make of x, and who was sent where."""
        x_NC = x_BTC.flatten(0, 1)
        routing = self.router(x_NC)
        experts = len(self.router.expert_bias)
        is_shared = self.experts.group is not None  # rows that belong to no token are not sent
        multiple = 1 if is_shared else row_multiple(routing.experts_Nk.numel(), experts, x_NC.dtype)
        route = dispatch_route(routing.experts_Nk, experts, multiple)
        rows_RC = gather_tokens(x_NC, route.token_R, route.places_Nk)
        y_RC = self.experts(rows_RC, route.ends_E)
        shared_NC = self.shared(x_NC)
        out_NC = combine_experts(residual_BTC.flatten(0, 1), shared_NC, y_RC, route.places_Nk, routing.weights_Nk)
        return out_NC.view_as(x_BTC), routing


def dispatch_route(experts_Nk: Tensor, experts: int, multiple: int = 1) -> Route:
    """Rows in order of expert, of equal experts in order of token; each expert's place is a `multiple` of rows.

    With a multiple above 1 there are rows that belong to no token: they hold token 0, and nobody reads what becomes of
    them. How many rows there are does not depend on the choices, so that an accelerator need not be waited for.
    """
    expert_of_row = experts_Nk.flatten()
    order_R = expert_of_row.argsort(stable=True)  # row in expert order -> row in token order
    counts_E = _counted(expert_of_row, experts)
    room_E = (counts_E + multiple - 1) // multiple * multiple
    ends_E = room_E.cumsum(0)
    # A row moves by what was left empty before its expert.
    shift_E = (ends_E - room_E) - (counts_E.cumsum(0) - counts_E)
    place_of_sorted = torch.arange(len(order_R), device=order_R.device) + shift_E[expert_of_row[order_R]]
    places = torch.empty_like(order_R).scatter_(0, order_R, place_of_sorted)
    rows = len(order_R) + experts * (multiple - 1)
    token_R = order_R.new_zeros(rows).scatter_(0, place_of_sorted, order_R // experts_Nk.shape[1])
    return Route(token_R, places.view_as(experts_Nk), counts_E, ends_E.to(torch.int32))


def _counted(values: Tensor, size: int) -> Tensor:
    """How often each of 0 to size - 1 occurs, int64; the compiler knows no bincount, whose size depends on the data."""
    if not torch.compiler.is_compiling():
        return torch.bincount(values, minlength=size)
    return values.new_zeros(size).scatter_add_(0, values, torch.ones_like(values))


def row_multiple(rows: int, experts: int, dtype: torch.dtype) -> int:
    """Rows an expert's place is a multiple of.

    oneDNN makes a kernel for every new shape of a bfloat16 product, at the cost of a few products; and eight-bit
    products want multiples of 16. Where experts get few rows, as in generation, filling up would cost more.
    """
    return ROW_MULTIPLE if dtype == torch.bfloat16 and rows >= ROW_MULTIPLE * experts else 1


def routing_statistics(routing: Routing, valid_BT: Tensor, share: ContextShare | None = None) -> RoutingStatistics:
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
    counts_BE = _counted(cell, (rows + 1) * experts).view(rows + 1, experts)[:rows]

    tokens_B1, row_counts_BE = valid_BT.sum(1, keepdim=True), counts_BE
    if share is not None:
        # Frequencies are of whole rows. The loss is linear in the shares, so that each process's part adds up to it.
        tokens_B1, row_counts_BE = tokens_B1.clone(), counts_BE.clone()
        for total in (tokens_B1, row_counts_BE):
            dist.all_reduce(total, group=share.group)
    tokens_B1 = tokens_B1.clamp(min=1)
    share_NE = routing.scores_NE / routing.scores_NE.sum(-1, keepdim=True)
    share_BTE = share_NE.view(rows, row_tokens, experts) * valid_BT.unsqueeze(-1)
    probability_BE = share_BTE.sum(1) / tokens_B1
    frequency_BE = row_counts_BE.to(share_NE.dtype) * (experts / per_token) / tokens_B1
    balance_loss = (frequency_BE * probability_BE).sum(1).mean()
    return RoutingStatistics(counts_BE.sum(0), balance_loss, _entropy(share_NE.detach(), valid_BT))


def _entropy(share_NE: Tensor, valid_BT: Tensor) -> Tensor:
    """Mean entropy of the rows over that of equal shares."""
    experts = share_NE.shape[1]
    if experts == 1:
        return share_NE.new_ones(())
    nats_N = torch.special.entr(share_NE).sum(-1) / math.log(experts)
    return (nats_N * valid_BT.flatten()).sum() / valid_BT.sum().clamp(min=1)
