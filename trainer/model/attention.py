"""Grouped-query attention: sliding layers with RoPE in linear cost, global layers without positions.

Contract: a token sees itself and earlier tokens of its own document; a sliding layer's query sees `window_tokens`
keys, itself included. Both paths are exact and neither ever holds a T x T mask: sliding attention works on blocks
of Q = W/2 queries against 3W/2 keys, global attention loops over documents with the causal kernel. On accelerators
`trainer.model.attention_kernels` does both, where `RowLayout` says so.
Cost of a row: sliding O(T W), global O(sum of squared document lengths).
Source: K-EXAONE (arXiv 2601.01739): QK-norm before RoPE, RoPE on sliding layers only, scale head_dim**-0.5.
Shapes: B rows, T tokens, M new tokens, S cache slots or keys of a block, H query heads, K key-value heads, D head_dim,
N blocks of Q queries, W window, C model width.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from trainer.architecture import LayerType, ModelConfig
from trainer.model.attention_kernels import span_attention
from trainer.model.cache import DecodeStep, LayerCache
from trainer.model.causal import is_long_enough, tiled_causal_attention
from trainer.model.exchange import ContextShare, gather_row, halo_before
from trainer.model.fused import norm_and_turn_heads
from trainer.model.layout import DocumentPiece, RowLayout, with_previous
from trainer.model.linear import FusedLinear, Linear, RMSNorm
from trainer.model.rope import RotaryTables

PIECE_TOKENS = 512


class Attention(nn.Module):
    """One layer's attention; `layer_type` decides window and positions."""

    def __init__(self, config: ModelConfig, layer_type: LayerType) -> None:
        super().__init__()
        self.heads = (config.num_attention_heads, config.num_key_value_heads, config.num_key_value_heads)
        self.head_dim = config.head_dim
        self.window_tokens = config.window_tokens if layer_type == "sliding_attention" else None
        query_size, key_value_size = (heads * config.head_dim for heads in self.heads[:2])
        self.qkv = FusedLinear(config.hidden_size, (query_size, key_value_size, key_value_size))
        self.query_norm = RMSNorm(config.head_dim, config.rms_norm_eps)
        self.key_norm = RMSNorm(config.head_dim, config.rms_norm_eps)
        self.output = Linear(query_size, config.hidden_size)

    def forward(self, x_BTC: Tensor, layout: RowLayout) -> Tensor:
        q, k, v = self._project(x_BTC, layout.rope)
        if layout.edges_E is not None:
            mixed = span_attention(q, k, v, layout.edges_E, self.window_tokens)
        elif self.window_tokens is not None and layout.block_mask is not None:
            mixed = sliding_attention(q, k, v, layout.block_mask, self.window_tokens, layout.share)
        elif layout.share is not None:
            keys, values = (gather_row(heads, layout.share) for heads in (k, v))
            mixed = piece_attention(q, keys, values, layout.pieces, layout.share)
        else:
            mixed = _over_documents(q, k, v, layout)
        return self.output(mixed.flatten(2))

    def forward_cached(self, x_BMC: Tensor, step: DecodeStep, cache: LayerCache) -> Tensor:
        # Rows stand at different positions: as one long row, each token has its own turn.
        heads = self._project(x_BMC.flatten(0, 1)[None], step.rope)
        q, k, v = (each[0].unflatten(0, x_BMC.shape[:2]) for each in heads)
        slots = step.slots[self.window_tokens]
        keys, values = cache.append(k, v, slots)
        return self.output(_attend(q, keys, values, slots.mask_B1MS).flatten(2))

    def _project(self, x_BTC: Tensor, rope: RotaryTables) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [B,T,H,D] and keys, values [B,T,K,D], normed and turned."""
        weights = self.query_norm.weight, self.key_norm.weight
        turn = rope if self.window_tokens is not None else None
        return norm_and_turn_heads(self.qkv(x_BTC), *weights, self.query_norm.eps, self.heads, turn)


def sliding_attention(
    q_BTHD: Tensor, k_BTKD: Tensor, v_BTKD: Tensor, block_mask: Tensor, window_tokens: int,
    share: ContextShare | None = None,
) -> Tensor:  # fmt: skip
    """Attention of each block of Q queries to its own and the W tokens before it; returns [B,T,H,D].

    `block_mask` is `RowLayout.block_mask` [B*N, 1, Q, S]. With a `share` the W tokens before the first block come from
    the process before.
    """
    rows, row_tokens = q_BTHD.shape[:2]
    own = block_mask.shape[2]
    blocks = -(-row_tokens // own)
    missing = blocks * own - row_tokens

    def own_blocks(heads: Tensor) -> Tensor:  # [B, N, Q, heads, D]
        return F.pad(heads, (0, 0, 0, 0, 0, missing)).unflatten(1, (blocks, own))

    def all_keys(heads: Tensor) -> Tensor:  # [B*N, S, heads, D]
        halo = None if share is None else halo_before(heads, window_tokens, share)
        return with_previous(own_blocks(heads), window_tokens, 0, halo).flatten(0, 1)

    mixed = _attend(own_blocks(q_BTHD).flatten(0, 1), all_keys(k_BTKD), all_keys(v_BTKD), block_mask)
    return mixed.reshape(rows, blocks * own, *q_BTHD.shape[2:])[:, :row_tokens]


def document_attention(
    q_BTHD: Tensor, k_BTKD: Tensor, v_BTKD: Tensor, span_tokens: tuple[int, ...], span_is_document: tuple[bool, ...]
) -> Tensor:
    """Causal attention within each document, document by document; zeros for padding. Returns [B,T,H,D]."""
    if not any(span_is_document):
        return _nothing(q_BTHD, k_BTKD, v_BTKD)
    tokens = span_tokens[0]
    if all(span_is_document) and all(length == tokens for length in span_tokens):
        q, k, v = (heads.reshape(-1, tokens, *heads.shape[2:]) for heads in (q_BTHD, k_BTKD, v_BTKD))
        return _attend_causal(q, k, v).reshape(q_BTHD.shape)
    queries, keys, values = (heads.flatten(0, 1).split(span_tokens) for heads in (q_BTHD, k_BTKD, v_BTKD))
    mixed = [
        _attend_causal(q[None], k[None], v[None])[0] if is_document else torch.zeros_like(q)
        for q, k, v, is_document in zip(queries, keys, values, span_is_document, strict=True)
    ]
    return torch.cat(mixed).view(q_BTHD.shape)


@torch.compiler.disable()
def _over_documents(q_BTHD: Tensor, k_BTKD: Tensor, v_BTKD: Tensor, layout: RowLayout) -> Tensor:
    """Left out of compiled blocks: every batch has documents of other lengths, and would be compiled anew."""
    return document_attention(q_BTHD, k_BTKD, v_BTKD, layout.span_tokens, layout.span_is_document)


@torch.compiler.disable()
def piece_attention(
    q_BTHD: Tensor, k_BSKD: Tensor, v_BSKD: Tensor, pieces: tuple[DocumentPiece, ...], share: ContextShare
) -> Tensor:
    """Causal attention within documents for this process's queries over whole rows of keys; zeros for padding.

    Queries go PIECE_TOKENS at a time, and each piece is made again in the backward pass, so that no mask is larger than
    that times the row, and only one is there at a time.
    """
    if not pieces:
        return _nothing(q_BTHD, k_BSKD, v_BSKD)
    first = share.rank * q_BTHD.shape[1]
    mixed = torch.zeros_like(q_BTHD)
    for row, document_start, start, end in pieces:
        for begin in range(start, end, PIECE_TOKENS):
            stop = min(begin + PIECE_TOKENS, end)
            q = q_BTHD[row : row + 1, begin - first : stop - first]
            k, v = (heads[row : row + 1, document_start:stop] for heads in (k_BSKD, v_BSKD))
            attended = checkpoint(_attend_last, q, k, v, use_reentrant=False, preserve_rng_state=False)
            mixed[row, begin - first : stop - first] = attended[0]
    return mixed


def _attend_last(q_BTHD: Tensor, k_BSKD: Tensor, v_BSKD: Tensor) -> Tensor:
    """Causal attention of queries that are the last of the keys' positions."""
    positions = torch.arange(k_BSKD.shape[1], device=q_BTHD.device)
    mask = positions[None] <= positions[-q_BTHD.shape[1] :, None]
    return _attend(q_BTHD, k_BSKD, v_BSKD, mask[None, None])


def _nothing(*projected: Tensor) -> Tensor:
    """Zeros that keep their place in the graph: processes wait for each other's gradients, be they zero."""
    return projected[0] * 0 + sum(heads.sum() * 0 for heads in projected)


def _attend(q_BTHD: Tensor, k_BSKD: Tensor, v_BSKD: Tensor, mask: Tensor) -> Tensor:
    return _attention(q_BTHD, k_BSKD, v_BSKD, mask, is_causal=False)


def _attend_causal(q_BTHD: Tensor, k_BTKD: Tensor, v_BTKD: Tensor) -> Tensor:
    if is_long_enough(q_BTHD):
        return tiled_causal_attention(q_BTHD, k_BTKD, v_BTKD)
    return _attention(q_BTHD, k_BTKD, v_BTKD, None, is_causal=True)


def _attention(q_BTHD: Tensor, k_BSKD: Tensor, v_BSKD: Tensor, mask: Tensor | None, *, is_causal: bool) -> Tensor:
    q, k, v = (heads.transpose(1, 2) for heads in (q_BTHD, k_BSKD, v_BSKD))
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and torch.is_grad_enabled():
        mixed = _BackwardInFloat32.apply(q, k, v, mask, is_causal)
    else:
        if q.device.type == "cuda":
            # Some of torch's kernels take as many key heads as query heads only (float32's, those with a mask); for
            # fewer, it would hold every score.
            k, v = (heads.repeat_interleave(q.shape[1] // heads.shape[1], dim=1) for heads in (k, v))
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=is_causal, enable_gqa=True)
    return mixed.transpose(1, 2)


class _BackwardInFloat32(torch.autograd.Function):
    """The CPU's flash kernel: forward in bfloat16 (186 against 371 ms at 8,192 tokens), backward in float32, which is
    the faster there (40 against 91 ms for a sliding layer)."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, is_causal: bool) -> Tensor:
        added = None if mask is None else torch.zeros_like(mask, dtype=q.dtype).masked_fill_(~mask, -torch.inf)
        kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        mixed, log_sum_exp = kernel(q, k, v, 0.0, is_causal, attn_mask=added)
        ctx.save_for_backward(q, k, v, mixed, log_sum_exp, mask)
        ctx.is_causal = is_causal
        return mixed

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        q, k, v, mixed, log_sum_exp, mask = ctx.saved_tensors
        added = None if mask is None else torch.zeros_like(mask, dtype=torch.float32).masked_fill_(~mask, -torch.inf)
        kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
        given = (x.float() for x in (gradients[0], q, k, v, mixed))
        dq, dk, dv = kernel(*given, log_sum_exp, 0.0, ctx.is_causal, attn_mask=added)
        return dq.to(q.dtype), dk.to(q.dtype), dv.to(q.dtype), None, None
