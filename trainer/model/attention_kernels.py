"""Attention of all documents of a batch in one call of torch's variable-length kernel, on CUDA devices that have it.

Contract: what `trainer.model.attention` computes, sliding and global layers alike, for queries and keys of one length.
Spans are given by their edges on the device; no mask exists, scores stay on the chip. A run of padding is a span like
a document: nobody reads what it gets, and it costs what a document of that length does. The kernel takes bfloat16 and
float16, heads of a multiple of 8, fewer key heads than query heads, and windows. Its backward pass adds up in changing
order, except under `torch.use_deterministic_algorithms(True)`, where each part of the sum has a place of its own.
Cost: pairs that are seen, in whole tiles; backward, sums in float32 of B T + 128 rows a span, H D each.
Source: `torch.nn.attention.varlen` (FlashAttention 2, arXiv 2307.08691); the limits are those that aten's
`mha_varlen_fwd` and `mha_varlen_bwd` check. Not run on the machine it was written on.
Shapes: B rows, T tokens, E spans + 1, H query heads, K key-value heads, D head_dim.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, _dynamo
from torch.nn.attention.varlen import varlen_attn

CAPABILITY = (8, 0)
HEAD_MULTIPLE = 8
LARGEST_HEAD = 192  # the forward pass takes 256, the backward pass of capability 8.6, 8.9 and 12.0 does not


def takes_heads(dtype: torch.dtype, head_dim: int) -> bool:
    """Whether the kernel serves such heads, on a device that has it."""
    return dtype in (torch.bfloat16, torch.float16) and head_dim % HEAD_MULTIPLE == 0 and head_dim <= LARGEST_HEAD


def takes_spans(device: torch.device, dtype: torch.dtype, head_dim: int) -> bool:
    """Whether the kernel serves such activations; what it does not serve goes by blocks and documents."""
    return (
        device.type == "cuda"
        and takes_heads(dtype, head_dim)
        and torch.cuda.get_device_capability(device) >= CAPABILITY
    )


def backward_bytes(tokens: int, spans: int, heads: int, key_value_heads: int, head_dim: int, parts: int) -> int:
    """What the backward pass of one call takes beside its gradients.

    Sums in float32 for the queries, `parts` of them (1, or as many as deterministic ones have), a float32 for each
    query of each head, and the gradients of keys and values for each query head before they are added up. Source:
    `mha_varlen_bwd`.
    """
    rounded = -(-head_dim // 32) * 32 if head_dim <= 128 else -(-head_dim // 64) * 64
    rows = tokens + 128 * spans
    expanded = 2 * 2 * tokens * heads * head_dim if key_value_heads != heads else 0
    return 4 * rows * heads * (parts * rounded + 1) + expanded


def span_edges(start_positions_N: Tensor, tokens: int) -> Tensor:
    """int32 [E]: where each span of the flattened rows starts, and where the last ends."""
    edges_E = F.pad(start_positions_N, (0, 1), value=tokens).int()
    # Compiled blocks take any number of documents; without this each number would be compiled anew.
    _dynamo.mark_dynamic(edges_E, 0)
    return edges_E


def span_attention(
    q_BTHD: Tensor, k_BTKD: Tensor, v_BTKD: Tensor, edges_E: Tensor, window_tokens: int | None
) -> Tensor:  # fmt: skip
    """Causal attention within each span, to `window_tokens` keys at most where given; returns [B,T,H,D]."""
    # No span crosses a row's end. The bound is the row's length in every batch, so that it is compiled once.
    longest = q_BTHD.shape[1]
    before = -1 if window_tokens is None else window_tokens - 1  # keys before the query's own; -1: all
    mixed = varlen_attn(
        q_BTHD.flatten(0, 1),
        k_BTKD.flatten(0, 1),
        v_BTKD.flatten(0, 1),
        edges_E,
        edges_E,
        longest,
        longest,
        window_size=(before, 0),
        enable_gqa=True,
    )
    assert isinstance(mixed, Tensor)
    return mixed.view(q_BTHD.shape)
