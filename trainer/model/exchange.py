"""What processes that share one model's work tell each other inside a forward and backward pass.

Contract: every function is differentiable, and its backward pass sends the gradients back the way the values came. All
processes of the group call it at the same place.
Cost at window W: a halo is W tokens of keys and values a layer and process, where gathering is the whole row.
Source: neighbour exchange for windowed attention as in Megatron-LM's halo proposal (pull request 5597); all-to-all
expert dispatch of GShard (arXiv 2006.16668).
Shapes: B rows, T tokens of this process, W window, S tokens of the row, X anything, R routed rows, C width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class ContextShare:
    """Which stretch of every row this process has."""

    group: dist.ProcessGroup
    rank: int
    size: int

    def part(self, values_BS: Tensor) -> Tensor:
        """This process's stretch of something known for whole rows."""
        return values_BS.chunk(self.size, dim=1)[self.rank]


def halo_before(values_BTX: Tensor, window_tokens: int, share: ContextShare) -> Tensor:
    """[B, W, ...]: the last W tokens of the process before; zeros for the first."""
    return _Halo.apply(values_BTX, window_tokens, share)


def gather_row(values_BTX: Tensor, share: ContextShare) -> Tensor:
    """[B, S, ...]: the stretches of all processes, in order."""
    return _GatherRow.apply(values_BTX, share)


def exchange_rows(rows_RC: Tensor, sent: list[int], received: list[int], group: dist.ProcessGroup) -> Tensor:
    """Send `sent[i]` rows to process i, in order; returns what all sent here, `received[i]` rows of process i."""
    return _ExchangeRows.apply(rows_RC, sent, received, group)


class _Halo(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, window_tokens: int, share: ContextShare) -> Tensor:
        ctx.share, ctx.shape = share, values.shape
        mine = values[:, -window_tokens:].contiguous()
        return _shifted(mine, share, by=1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        returned = _shifted(gradients[0].contiguous(), ctx.share, by=-1)
        whole = returned.new_zeros(ctx.shape)
        whole[:, -returned.shape[1] :] = returned
        return whole, None, None


def _shifted(mine: Tensor, share: ContextShare, by: int) -> Tensor:
    """What the process `by` places before has; zeros where there is none."""
    received = torch.zeros_like(mine)
    to, source = share.rank + by, share.rank - by
    waiting = []
    if 0 <= to < share.size:
        peer = dist.get_global_rank(share.group, to)
        waiting.append(dist.P2POp(dist.isend, mine, peer, share.group))
    if 0 <= source < share.size:
        peer = dist.get_global_rank(share.group, source)
        waiting.append(dist.P2POp(dist.irecv, received, peer, share.group))
    for each in dist.batch_isend_irecv(waiting) if waiting else []:
        each.wait()
    return received


class _GatherRow(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, share: ContextShare) -> Tensor:
        ctx.share = share
        parts = [torch.empty_like(values, memory_format=torch.contiguous_format) for _ in range(share.size)]
        dist.all_gather(parts, values.contiguous(), group=share.group)
        return torch.cat(parts, dim=1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total, group=ctx.share.group)
        return ctx.share.part(total).contiguous(), None


class _ExchangeRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, sent: list[int], received: list[int], group: dist.ProcessGroup) -> Tensor:
        ctx.sent, ctx.received, ctx.group = sent, received, group
        return _all_to_all(rows, sent, received, group)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        return _all_to_all(gradients[0], ctx.received, ctx.sent, ctx.group), None, None, None


def _all_to_all(rows: Tensor, sent: list[int], received: list[int], group: dist.ProcessGroup) -> Tensor:
    arrived = rows.new_empty(sum(received), *rows.shape[1:])
    dist.all_to_all_single(arrived, rows.contiguous(), received, sent, group=group)
    return arrived
