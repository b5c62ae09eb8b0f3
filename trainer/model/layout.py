"""How the documents lie in a batch of rows: everything attention and the losses need to know about it.

Contract: built once a forward pass from `document_ids_BT`, shared by all layers; no T x T mask anywhere. Equal
neighbouring ids are one document; -1 is padding. Cost: O(B T window).
Shapes: B rows, T tokens a row, N blocks of a row, W window in tokens, Q tokens of a block, S = W + Q.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.model.rope import RotaryTables, rotary_tables

PADDING_ID = -1


@dataclass(frozen=True)
class RowLayout:
    """Documents of a batch of packed rows, with the tables its layers share."""

    valid_BT: Tensor  # bool: not padding
    span_tokens: tuple[int, ...]  # lengths of the runs of equal id, row after row; they add up to B*T
    span_is_document: tuple[bool, ...]  # False for a run of padding
    block_mask: Tensor | None  # [B*N, 1, Q, S] bool, or None where a row fits into one window
    rope: RotaryTables


def row_layout(document_ids_BT: Tensor, window_tokens: int, head_dim: int, rope_theta: float) -> RowLayout:
    """Describe the rows. `document_ids_BT` is any integer type; reads it back to the host once."""
    _, row_tokens = document_ids_BT.shape
    starts_BT = torch.ones_like(document_ids_BT, dtype=torch.bool)
    starts_BT[:, 1:] = document_ids_BT[:, 1:] != document_ids_BT[:, :-1]
    start_positions = starts_BT.flatten().nonzero().squeeze(1)
    span_is_document = document_ids_BT.flatten()[start_positions] != PADDING_ID
    edges: list[int] = [*start_positions.tolist(), document_ids_BT.numel()]
    return RowLayout(
        valid_BT=document_ids_BT != PADDING_ID,
        span_tokens=tuple(end - start for start, end in pairwise(edges)),
        span_is_document=tuple(span_is_document.tolist()),
        block_mask=_block_mask(starts_BT.cumsum(1), window_tokens) if row_tokens > window_tokens else None,
        rope=rotary_tables(torch.arange(row_tokens, device=document_ids_BT.device), head_dim, rope_theta),
    )


def block_tokens(window_tokens: int) -> int:
    """Queries of a block: half a window, so that 3/4 of the scores that are made count, against 2/3 for a whole one."""
    return window_tokens // 2 if window_tokens % 2 == 0 else window_tokens


def with_previous(blocks_BNQ: Tensor, window_tokens: int, nothing: int) -> Tensor:
    """[B, N, S, ...]: each block behind the W tokens before it, which are `nothing` before a row's beginning."""
    blocks, own = blocks_BNQ.shape[1:3]
    before = window_tokens // own
    rest = (0, 0) * (blocks_BNQ.ndim - 2)
    earlier = F.pad(blocks_BNQ, (*rest, before, 0), value=nothing)
    return torch.cat([earlier[:, i : i + blocks] for i in range(before + 1)], dim=2)


def _block_mask(run_BT: Tensor, window_tokens: int) -> Tensor:
    """Which keys, of a block's own and the window before it, each query of the block sees: near, same document.

    `run_BT` numbers the documents of a row from 1; what is before the row has number 0, which nobody has.
    """
    rows, row_tokens = run_BT.shape
    own = block_tokens(window_tokens)
    blocks = -(-row_tokens // own)
    # The last block is filled up with a run of its own, so that its queries see themselves and stay finite.
    run_BNQ = F.pad(run_BT, (0, blocks * own - row_tokens), value=-1).view(rows, blocks, own)
    key_run = with_previous(run_BNQ, window_tokens, nothing=0)
    query = torch.arange(own, device=run_BT.device)[:, None]
    key = torch.arange(window_tokens + own, device=run_BT.device)[None] - window_tokens
    band = (key <= query) & (query - key < window_tokens)
    mask = band & (run_BNQ[:, :, :, None] == key_run[:, :, None, :])
    return mask.view(rows * blocks, 1, own, window_tokens + own)
