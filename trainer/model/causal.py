"""Causal attention of long documents on processors with fast float32 products: tiles of scores, softmax by row kernels.

Contract: exact attention with scale D**-0.5 in float32 whatever the storage; never more than one tile of scores in
memory, forward or backward. The backward pass makes the scores again from the rows' log-sum-exp.
Cost: two products a tile forward, five backward, each of `QUERY_TOKENS` positions' heads against `KEY_TOKENS` keys;
only tiles with visible keys are made. Against torch's kernel on one core of a Zen 5, 8 heads on 2, forward and
backward: 1.5 times as fast at 1,024 tokens and heads of 32, 1.8 times at heads of 64.
Source: FlashAttention-2 (arXiv 2307.08691), algorithms 1 and 2, with tiles for a cache instead of shared memory.
Shapes: B rows, T tokens, H query heads, K key-value heads, G = H/K heads that share one, D head_dim; R = tokens * G
rows of a tile (heads beside each other in a token), n keys of a tile.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.model import tile_kernels
from trainer.model.fused import over_rows
from trainer.model.onednn import is_faster, multiply

QUERY_TOKENS, KEY_TOKENS = 128, 1024  # of 4 heads: 512 x 1,024 scores, 2 MiB
FEWEST_TOKENS = 256  # shorter documents go to torch's kernel: calls outweigh what the products save
WHOLE_TOKENS = 64  # documents are filled up to a multiple, since every new shape costs its kernel


def is_long_enough(q_BTHD: Tensor) -> bool:
    """Whether these documents are better off here than with torch's kernel."""
    is_ours = q_BTHD.device.type == "cpu" and q_BTHD.dtype in (torch.float32, torch.bfloat16)
    return is_ours and q_BTHD.shape[1] >= FEWEST_TOKENS and is_faster()


def tiled_causal_attention(q_BTHD: Tensor, k_BTKD: Tensor, v_BTKD: Tensor) -> Tensor:
    """Attention of each row's tokens to themselves and those before them; returns [B,T,H,D].

    Tokens that fill a row up come last, where no other sees them.
    """
    tokens = q_BTHD.shape[1]
    filled = (F.pad(x, (0, 0, 0, 0, 0, -tokens % WHOLE_TOKENS)) for x in (q_BTHD, k_BTKD, v_BTKD))
    return _Causal.apply(*filled)[:, :tokens]


class _Tile(NamedTuple):
    keys: slice
    ahead: int  # the first query's position less the first key's


class _Causal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q_BTHD: Tensor, k_BTKD: Tensor, v_BTKD: Tensor) -> Tensor:
        rows, tokens, heads, size = q_BTHD.shape
        groups = k_BTKD.shape[2]
        group = heads // groups
        mixed_BTHD = torch.empty_like(q_BTHD, memory_format=torch.contiguous_format)
        log_sum_exp = torch.empty(rows, groups, tokens * group)
        for row in range(rows):
            for g in range(groups):
                k_TD, v_TD = (_floats(heads_BTKD[row, :, g]) for heads_BTKD in (k_BTKD, v_BTKD))
                for queries in _query_blocks(tokens):
                    q_RD = _rows(q_BTHD, row, queries, g, group) * size**-0.5
                    mixed_RD, log_sum_exp_R = _forward_block(q_RD, k_TD, v_TD, queries, group)
                    at = slice(queries.start * group, queries.stop * group)
                    log_sum_exp[row, g, at] = log_sum_exp_R
                    mixed_BTHD[row, queries, g * group : (g + 1) * group] = mixed_RD.view(-1, group, size)
        ctx.save_for_backward(q_BTHD, k_BTKD, v_BTKD, mixed_BTHD, log_sum_exp)
        return mixed_BTHD

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q_BTHD, k_BTKD, v_BTKD, mixed_BTHD, log_sum_exp = ctx.saved_tensors
        rows, tokens, heads, size = q_BTHD.shape
        groups = k_BTKD.shape[2]
        group = heads // groups
        dq, dk, dv = (torch.empty(x.shape, dtype=x.dtype) for x in (q_BTHD, k_BTKD, v_BTKD))
        for row in range(rows):
            for g in range(groups):
                k_TD, v_TD = (_floats(heads_BTKD[row, :, g]) for heads_BTKD in (k_BTKD, v_BTKD))
                dk_DT, dv_DT = torch.zeros(size, tokens), torch.zeros(size, tokens)
                for queries in _query_blocks(tokens):
                    q_RD = _rows(q_BTHD, row, queries, g, group) * size**-0.5
                    dmixed_RD, mixed_RD = (_rows(x, row, queries, g, group) for x in (gradients[0], mixed_BTHD))
                    at = slice(queries.start * group, queries.stop * group)
                    dq_RD = _backward_block(
                        q_RD, k_TD, v_TD, dmixed_RD, (dmixed_RD * mixed_RD).sum(1), log_sum_exp[row, g, at],
                        dk_DT, dv_DT, queries, group,
                    )  # fmt: skip
                    dq[row, queries, g * group : (g + 1) * group] = (dq_RD * size**-0.5).view(-1, group, size)
                dk[row, :, g], dv[row, :, g] = dk_DT.t(), dv_DT.t()
        return dq, dk, dv


def _forward_block(
    q_RD: Tensor, k_TD: Tensor, v_TD: Tensor, queries: slice, group: int
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The block's mixture of values and its rows' log-sum-exp."""
    rows = len(q_RD)
    mixed_RD, highest_R, sums_R = torch.zeros_like(q_RD), torch.full((rows,), -torch.inf), torch.zeros(rows)
    kept_R = torch.empty(rows)
    for keys, ahead in _tiles(queries):
        scores_Rn = multiply(q_RD, k_TD[keys])
        state = (each.numpy() for each in (highest_R, sums_R, kept_R))
        over_rows(
            tile_kernels.softmax_forward, scores_Rn.numpy(), group, ahead, *state, rows=rows, width=scores_Rn.shape[1]
        )
        mixed_RD.mul_(kept_R[:, None]).add_(multiply(scores_Rn, v_TD[keys].t()))
    return mixed_RD.div_(sums_R[:, None]), highest_R + sums_R.log()


def _backward_block(
    q_RD: Tensor, k_TD: Tensor, v_TD: Tensor, dmixed_RD: Tensor, along_R: Tensor, log_sum_exp_R: Tensor, dk_DT: Tensor,
    dv_DT: Tensor, queries: slice, group: int,
) -> Tensor:  # fmt: skip
    """Gradient of the block's scaled queries; those of keys and values are added up in `dk_DT`, `dv_DT`."""
    dq_RD, q_DR, dmixed_DR = torch.zeros_like(q_RD), q_RD.t().contiguous(), dmixed_RD.t().contiguous()
    for keys, ahead in _tiles(queries):
        weights_Rn, dweights_Rn = multiply(q_RD, k_TD[keys]), multiply(dmixed_RD, v_TD[keys])
        over_rows(
            tile_kernels.softmax_backward, weights_Rn.numpy(), dweights_Rn.numpy(), group, ahead,
            log_sum_exp_R.numpy(), along_R.numpy(), rows=len(q_RD), width=weights_Rn.shape[1],
        )  # fmt: skip
        dv_DT[:, keys] += multiply(dmixed_DR, weights_Rn.t())
        dk_DT[:, keys] += multiply(q_DR, dweights_Rn.t())
        dq_RD += multiply(dweights_Rn, k_TD[keys].t())
    return dq_RD


def _query_blocks(tokens: int) -> Iterator[slice]:
    for first in range(0, tokens, QUERY_TOKENS):
        yield slice(first, min(first + QUERY_TOKENS, tokens))


def _tiles(queries: slice) -> Iterator[_Tile]:
    """Of keys up to the last query."""
    for first in range(0, queries.stop, KEY_TOKENS):
        yield _Tile(slice(first, min(first + KEY_TOKENS, queries.stop)), queries.start - first)


def _rows(heads_BTHD: Tensor, row: int, queries: slice, g: int, group: int) -> Tensor:
    """[R, D] float32 of the heads that share key-value head `g`."""
    return _floats(heads_BTHD[row, queries, g * group : (g + 1) * group]).view(-1, heads_BTHD.shape[3])


def _floats(x: Tensor) -> Tensor:
    return x.to(torch.float32, memory_format=torch.contiguous_format).contiguous()
