"""Norms, head turns, SwiGLU and the experts' sum as single operations: row kernels on processors, torch elsewhere.

Contract: the same mathematics on every device; a processor's float32 and bfloat16 go through `trainer.model.kernels`,
everything else (float64, accelerators, the meta device) through plain torch, which the tests compare the kernels with.
Rows are shared out over torch's threads; the result does not depend on how many there are.
Shapes: N tokens, C width, H query heads, K key-value heads, D head_dim, R routed rows, k experts a token.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.model import kernels
from trainer.model.kernels import ROWS_PER_PART
from trainer.model.rope import RotaryTables, rotate

_ELEMENTS_WORTH_A_THREAD = 1 << 18  # below this, handing rows to another thread costs more than it saves


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / rms(x) * weight over the last axis."""
    if _has_kernels(x):
        return _Norm.apply(x, weight, eps)
    return F.rms_norm(x, (x.shape[-1],), weight.to(x.dtype), eps)


def add_rms_norm(x: Tensor, update: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """(x + update, its norm)."""
    if _has_kernels(x):
        return _AddNorm.apply(x, update, weight, eps)
    total = x + update
    return total, F.rms_norm(total, (x.shape[-1],), weight.to(x.dtype), eps)


def norm_and_turn_heads(
    qkv_BTX: Tensor, query_weight: Tensor, key_weight: Tensor, eps: float, heads: tuple[int, int, int],
    rope: RotaryTables | None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Queries [B,T,H,D] and keys [B,T,K,D], normed and turned by `rope` where there is one, and values [B,T,K,D].

    `qkv_BTX` is their fused projection, `heads` how many of each it holds.
    """
    if _has_kernels(qkv_BTX):
        return _Heads.apply(qkv_BTX, query_weight, key_weight, eps, heads, rope)
    size = len(query_weight)
    q, k, v = qkv_BTX.unflatten(-1, (sum(heads), size)).split(heads, dim=2)
    q, k = (F.rms_norm(x, (size,), w.to(x.dtype), eps) for x, w in ((q, query_weight), (k, key_weight)))
    if rope is not None:
        q, k = rotate(q, rope), rotate(k, rope)
    return q, k, v


def swiglu(gate_up: Tensor) -> Tensor:
    """silu(gate) * up of the two halves of the last axis."""
    if _has_kernels(gate_up):
        return _SwiGLU.apply(gate_up)
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate) * up


def gather_tokens(x_NC: Tensor, token_R: Tensor, places_Nk: Tensor) -> Tensor:
    """x[token] [R,C]; `places` says where in R each token's k copies are, so that backward only gathers."""
    return _Gather.apply(x_NC, token_R, places_Nk)


def combine_experts(base_NC: Tensor, shared_NC: Tensor, y_RC: Tensor, places_Nk: Tensor, weights_Nk: Tensor) -> Tensor:
    """base + shared + the weighted sum of each token's rows of `y_RC`; sums in at least float32."""
    if _has_kernels(base_NC):
        return _Combine.apply(base_NC, shared_NC, y_RC, places_Nk, weights_Nk)
    y_NkC = _Reorder.apply(y_RC, places_Nk)
    routed_NC = (y_NkC * weights_Nk.unsqueeze(-1)).sum(1)
    return base_NC + (shared_NC + routed_NC.to(base_NC.dtype))


def _has_kernels(x: Tensor) -> bool:
    """Compiled blocks get plain torch, which the compiler fuses itself."""
    is_ours = x.device.type == "cpu" and x.dtype in (torch.float32, torch.bfloat16)
    return is_ours and not torch.compiler.is_compiling()


def bits_of(x: Tensor) -> np.ndarray:
    """The tensor's memory [rows, last axis] as the kernels want it; the tensor must outlive the array."""
    flat = x.detach().reshape(-1, x.shape[-1])
    return (flat.view(torch.uint16) if x.dtype == torch.bfloat16 else flat).numpy()


def _floats(x: Tensor) -> np.ndarray:
    """A copy: FSDP2 frees gathered weights by resizing them, which memory that numpy has seen does not allow."""
    return x.detach().to(torch.float32, copy=True, memory_format=torch.contiguous_format).numpy()


def over_rows(kernel: Callable[..., None], *arguments: Any, rows: int, width: int) -> None:
    """Run `kernel` over all rows, whole parts of them to a thread."""
    threads = min(torch.get_num_threads(), rows * width // _ELEMENTS_WORTH_A_THREAD)
    if threads <= 1:
        kernel(*arguments, 0, rows)
        return
    parts = -(-rows // ROWS_PER_PART)
    edges = [min(rows, parts * i // threads * ROWS_PER_PART) for i in range(threads + 1)]
    done = [_pool(threads).submit(kernel, *arguments, edges[i], edges[i + 1]) for i in range(threads)]
    for each in done:
        each.result()


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="rows")


def _parts(rows: int, *shape: int) -> np.ndarray:
    return np.zeros((-(-rows // ROWS_PER_PART), *shape), np.float32)


def _for_rows(rows_RC: Tensor, places_Nk: Tensor) -> Tensor:
    """Memory for all rows; zero where there are rows that no place names."""
    return torch.empty_like(rows_RC) if len(rows_RC) == places_Nk.numel() else torch.zeros_like(rows_RC)


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        x = x.contiguous()
        y, rows, width = torch.empty_like(x), x.numel() // x.shape[-1], x.shape[-1]
        scale = torch.empty(rows)
        over_rows(
            kernels.norm_forward, bits_of(x), _floats(weight), np.float32(eps), bits_of(y), scale.numpy(),
            rows=rows, width=width,
        )  # fmt: skip
        ctx.save_for_backward(x, weight, scale)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, scale = ctx.saved_tensors
        dy, dx, rows, width = gradients[0].contiguous(), torch.empty_like(x), len(scale), x.shape[-1]
        parts = _parts(rows, width)
        over_rows(
            kernels.norm_backward, bits_of(dy), bits_of(x), _floats(weight), scale.numpy(), bits_of(dx), parts,
            rows=rows, width=width,
        )  # fmt: skip
        return dx, torch.from_numpy(parts.sum(0)).to(weight.dtype), None


class _AddNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, update: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        x, update = x.contiguous(), update.contiguous()
        total, y, rows, width = torch.empty_like(x), torch.empty_like(x), x.numel() // x.shape[-1], x.shape[-1]
        scale = torch.empty(rows)
        over_rows(
            kernels.add_norm_forward, bits_of(x), bits_of(update), _floats(weight), np.float32(eps), bits_of(total),
            bits_of(y), scale.numpy(), rows=rows, width=width,
        )  # fmt: skip
        ctx.save_for_backward(total, weight, scale)
        return total, y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        total, weight, scale = ctx.saved_tensors
        dtotal, dy = (gradient.contiguous() for gradient in gradients)
        dx, rows, width = torch.empty_like(total), len(scale), total.shape[-1]
        parts = _parts(rows, width)
        over_rows(
            kernels.add_norm_backward, bits_of(dtotal), bits_of(dy), bits_of(total), _floats(weight), scale.numpy(),
            bits_of(dx), parts, rows=rows, width=width,
        )  # fmt: skip
        return dx, dx, torch.from_numpy(parts.sum(0)).to(weight.dtype), None


class _Heads(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, qkv_BTX: Tensor, query_weight: Tensor, key_weight: Tensor, eps: float, heads: tuple[int, int, int],
        rope: RotaryTables | None,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        qkv_BTX = qkv_BTX.contiguous()
        queries, keys, _ = heads
        size, rows = len(query_weight), qkv_BTX.shape[0] * qkv_BTX.shape[1]
        weight = np.concatenate([np.tile(_floats(w), (n, 1)) for w, n in ((query_weight, queries), (key_weight, keys))])
        cos, sin = (np.empty((0, size // 2), np.float32),) * 2 if rope is None else (_floats(t) for t in rope)
        turned = qkv_BTX.new_empty(*qkv_BTX.shape[:2], queries + keys, size)
        scale = torch.empty(rows, queries + keys)
        over_rows(
            kernels.heads_forward, bits_of(qkv_BTX), weight, np.float32(eps), cos, sin, bits_of(turned.flatten(2)),
            scale.numpy(), rows=rows, width=qkv_BTX.shape[2],
        )  # fmt: skip
        ctx.save_for_backward(qkv_BTX, scale)
        ctx.weight, ctx.tables, ctx.heads, ctx.dtype = weight, (cos, sin), heads, query_weight.dtype
        v = qkv_BTX.unflatten(-1, (sum(heads), size))[:, :, queries + keys :].clone()
        return turned[:, :, :queries], turned[:, :, queries:], v

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None, None]:
        qkv_BTX, scale = ctx.saved_tensors
        queries, keys, _ = ctx.heads
        size, rows = ctx.weight.shape[1], len(scale)
        dqkv = torch.empty_like(qkv_BTX)
        parts = _parts(rows, queries + keys, size)
        for first_head, gradient in zip((0, queries), gradients[:2], strict=True):
            flat = gradient.contiguous().flatten(2)
            over_rows(
                kernels.heads_backward, bits_of(flat), bits_of(qkv_BTX), ctx.weight, scale.numpy(), *ctx.tables,
                bits_of(dqkv), parts, first_head, rows=rows, width=flat.shape[2],
            )  # fmt: skip
        dqkv.unflatten(-1, (-1, size))[:, :, queries + keys :] = gradients[2]
        dweight = torch.from_numpy(parts.sum(0)).to(ctx.dtype)
        return dqkv, dweight[:queries].sum(0), dweight[queries:].sum(0), None, None, None


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        gate_up = gate_up.contiguous()
        size = gate_up.shape[-1] // 2
        y = gate_up.new_empty(*gate_up.shape[:-1], size)
        over_rows(
            kernels.swiglu_forward, bits_of(gate_up), bits_of(y), rows=gate_up.numel() // (2 * size), width=2 * size
        )
        ctx.save_for_backward(gate_up)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (gate_up,) = ctx.saved_tensors
        dy, dx, width = gradients[0].contiguous(), torch.empty_like(gate_up), gate_up.shape[-1]
        over_rows(
            kernels.swiglu_backward,
            bits_of(dy),
            bits_of(gate_up),
            bits_of(dx),
            rows=gate_up.numel() // width,
            width=width,
        )
        return dx


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_NC: Tensor, token_R: Tensor, places_Nk: Tensor) -> Tensor:
        ctx.save_for_backward(places_Nk)
        return x_NC.index_select(0, token_R)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (places_Nk,) = ctx.saved_tensors
        rows_RC = gradients[0]
        if not _has_kernels(rows_RC):
            return rows_RC[places_Nk].sum(1), None, None
        rows_RC, tokens = rows_RC.contiguous(), len(places_Nk)
        dx_NC = rows_RC.new_empty(tokens, rows_RC.shape[1])
        over_rows(
            kernels.gather_sum, bits_of(rows_RC), places_Nk.numpy(), bits_of(dx_NC), rows=tokens, width=rows_RC.shape[1]
        )
        return dx_NC, None, None


class _Reorder(torch.autograd.Function):
    """rows[places] for places that name each row once; backward writes instead of adding."""

    @staticmethod
    def forward(ctx: Any, rows_RC: Tensor, places_Nk: Tensor) -> Tensor:
        ctx.save_for_backward(places_Nk)
        ctx.rows = len(rows_RC)
        return rows_RC[places_Nk]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (places_Nk,) = ctx.saved_tensors
        drows = gradients[0].new_zeros(ctx.rows, gradients[0].shape[2])
        drows[places_Nk.flatten()] = gradients[0].flatten(0, 1)
        return drows, None


class _Combine(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, base_NC: Tensor, shared_NC: Tensor, y_RC: Tensor, places_Nk: Tensor, weights_Nk: Tensor
    ) -> Tensor:
        base_NC, shared_NC, y_RC = base_NC.contiguous(), shared_NC.contiguous(), y_RC.contiguous()
        out_NC = torch.empty_like(base_NC)
        over_rows(
            kernels.combine_forward, bits_of(base_NC), bits_of(shared_NC), bits_of(y_RC), places_Nk.numpy(),
            _floats(weights_Nk), bits_of(out_NC), rows=len(places_Nk), width=out_NC.shape[1],
        )  # fmt: skip
        ctx.save_for_backward(y_RC, places_Nk, weights_Nk)
        return out_NC

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None, Tensor]:
        y_RC, places_Nk, weights_Nk = ctx.saved_tensors
        dout_NC, dy_RC = gradients[0].contiguous(), _for_rows(y_RC, places_Nk)
        dweights_Nk = torch.empty(places_Nk.shape)
        over_rows(
            kernels.combine_backward, bits_of(dout_NC), bits_of(y_RC), places_Nk.numpy(), _floats(weights_Nk),
            bits_of(dy_RC), dweights_Nk.numpy(), rows=len(places_Nk), width=dout_NC.shape[1],
        )  # fmt: skip
        return dout_NC, dout_NC, dy_RC, None, dweights_Nk.to(weights_Nk.dtype)
