"""How the documents lie in a batch of rows: everything attention and the losses need to know about it.

Contract: built once a forward pass from `document_ids_BT`, shared by all layers; no T x T mask anywhere. Equal
neighbouring ids are one document; -1 is padding. Here it is decided, by device and precision, how whole rows attend:
by spans in one kernel call, or by blocks and documents. Cost: O(B T window), by spans O(B T).
Shapes: B rows, T tokens a row, N blocks of a row, W window in tokens, Q tokens of a block, S = W + Q,
E spans + 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.model.attention_kernels import span_edges, takes_spans
from trainer.model.exchange import ContextShare
from trainer.model.rope import RotaryTables, rotary_tables

PADDING_ID = -1


@dataclass(frozen=True)
class RowLayout:
    """Documents of a batch of packed rows, with the tables its layers share."""

    valid_BT: Tensor  # bool: not padding
    span_tokens: tuple[int, ...]  # lengths of the runs of equal id, row after row; they add up to B*T
    span_is_document: tuple[bool, ...]  # False for a run of padding
    block_mask: Tensor | None  # [B*N, 1, Q, S] bool, or None where a row fits into one window, or by spans
    rope: RotaryTables
    edges_E: Tensor | None = None  # int32, on the device: the spans' edges where a kernel takes them; None: blocks
    # Where processes share rows, every field above is about this process's stretch of them, and:
    share: ContextShare | None = None
    pieces: tuple[DocumentPiece, ...] = ()


class DocumentPiece(NamedTuple):
    """The part of a document that lies in this process's stretch; positions count over the whole row."""

    row: int
    document_start: int
    start: int
    end: int


def row_layout(
    document_ids_BT: Tensor, window_tokens: int, head_dim: int, rope_theta: float, dtype: torch.dtype = torch.float32
) -> RowLayout:
    """Describe the rows, whose activations are of `dtype`.

    `document_ids_BT` is any integer type; reads it back to the host once.
    """
    _, row_tokens = document_ids_BT.shape
    starts_BT = torch.ones_like(document_ids_BT, dtype=torch.bool)
    starts_BT[:, 1:] = document_ids_BT[:, 1:] != document_ids_BT[:, :-1]
    start_positions = starts_BT.flatten().nonzero().squeeze(1)
    span_is_document = document_ids_BT.flatten()[start_positions] != PADDING_ID
    edges: list[int] = [*start_positions.tolist(), document_ids_BT.numel()]
    by_spans = takes_spans(document_ids_BT.device, dtype, head_dim)
    needs_blocks = row_tokens > window_tokens and not by_spans
    return RowLayout(
        valid_BT=document_ids_BT != PADDING_ID,
        span_tokens=tuple(end - start for start, end in pairwise(edges)),
        span_is_document=tuple(span_is_document.tolist()),
        block_mask=_block_mask(starts_BT.cumsum(1), window_tokens) if needs_blocks else None,
        rope=rotary_tables(torch.arange(row_tokens, device=document_ids_BT.device), head_dim, rope_theta),
        edges_E=span_edges(start_positions, document_ids_BT.numel()) if by_spans else None,
    )


def shared_row_layout(
    document_ids_BS: Tensor, window_tokens: int, head_dim: int, rope_theta: float, share: ContextShare
) -> RowLayout:
    """The same for this process's stretch of the rows, given the document ids of whole rows.

    Asserts that the stretch is a whole number of windows, so that a halo comes from one neighbour.
    """
    row_tokens = document_ids_BS.shape[1]
    tokens = row_tokens // share.size
    assert tokens * share.size == row_tokens, (row_tokens, share.size)
    assert tokens % window_tokens == 0, f"a stretch of {tokens} tokens is no multiple of the window {window_tokens}"
    first, last = share.rank * tokens, (share.rank + 1) * tokens
    whole = row_layout(document_ids_BS, window_tokens, head_dim, rope_theta)
    starts = torch.ones_like(document_ids_BS, dtype=torch.bool)
    starts[:, 1:] = document_ids_BS[:, 1:] != document_ids_BS[:, :-1]
    positions = torch.arange(first, last, device=document_ids_BS.device)
    return RowLayout(
        valid_BT=whole.valid_BT[:, first:last],
        span_tokens=(),
        span_is_document=(),
        block_mask=_block_mask(starts.cumsum(1), window_tokens, first, last),
        rope=rotary_tables(positions, head_dim, rope_theta),
        share=share,
        pieces=tuple(_pieces(whole, row_tokens, first, last)),
    )


def _pieces(whole: RowLayout, row_tokens: int, first: int, last: int) -> Iterator[DocumentPiece]:
    at = 0
    for tokens, is_document in zip(whole.span_tokens, whole.span_is_document, strict=True):
        row, start = divmod(at, row_tokens)
        end = min(start + tokens, last)
        if is_document and max(start, first) < end:
            yield DocumentPiece(row, start, max(start, first), end)
        at += tokens


def block_tokens(window_tokens: int) -> int:
    """Queries of a block: half a window, so that 3/4 of the scores that are made count, against 2/3 for a whole one."""
    return window_tokens // 2 if window_tokens % 2 == 0 else window_tokens


def with_previous(blocks_BNQ: Tensor, window_tokens: int, nothing: int, halo_BW: Tensor | None = None) -> Tensor:
    """[B, N, S, ...]: each block behind the W tokens before it.

    Before the first block those are `halo_BW`, or `nothing`.
    """
    blocks, own = blocks_BNQ.shape[1:3]
    before = window_tokens // own
    if halo_BW is None:
        rest = (0, 0) * (blocks_BNQ.ndim - 2)
        earlier = F.pad(blocks_BNQ, (*rest, before, 0), value=nothing)
    else:
        earlier = torch.cat([halo_BW.unflatten(1, (before, own)), blocks_BNQ], dim=1)
    return torch.cat([earlier[:, i : i + blocks] for i in range(before + 1)], dim=2)


def _block_mask(run_BT: Tensor, window_tokens: int, first: int = 0, last: int | None = None) -> Tensor:
    """Which keys, of a block's own and the window before it, each query of the block sees: near, same document.

    `run_BT` numbers the documents of whole rows from 1; what is before a row has number 0, which nobody has. The
    blocks are those of the tokens from `first` to `last`, which are whole blocks where they are not the whole row.
    """
    rows, row_tokens = run_BT.shape
    own = block_tokens(window_tokens)
    blocks = -(-row_tokens // own)
    # The last block is filled up with a run of its own, so that its queries see themselves and stay finite.
    run_BNQ = F.pad(run_BT, (0, blocks * own - row_tokens), value=-1).view(rows, blocks, own)
    chosen = slice(first // own, blocks if last is None else last // own)
    key_run = with_previous(run_BNQ, window_tokens, nothing=0)[:, chosen]
    run_BNQ = run_BNQ[:, chosen]
    query = torch.arange(own, device=run_BT.device)[:, None]
    key = torch.arange(window_tokens + own, device=run_BT.device)[None] - window_tokens
    band = (key <= query) & (query - key < window_tokens)
    mask = band & (run_BNQ[:, :, :, None] == key_run[:, :, None, :])
    return mask.view(rows * run_BNQ.shape[1], 1, own, window_tokens + own)
