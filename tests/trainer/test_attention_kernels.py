"""Attention by spans in the variable-length kernel, against blocks and documents.

Without an accelerator, what is replaced is aten's flash kernel alone (`aten::_flash_attention_forward` and its
backward), by its definition span by span: torch's `varlen_attn`, its schemas, its autograd and all of ours are run.
Tests marked `gpu` run the kernel itself.
Shapes: N tokens of all rows, H query heads, K key-value heads, D head_dim, S tokens of a span, G queries of a key.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_rows import Heads, random_rows
from torch import Tensor
from torch._dynamo.testing import CompileCounter
from torch._subclasses.fake_tensor import FakeTensorMode

from trainer.architecture import LayerType
from trainer.config import PRESETS, ModelConfig, PhaseConfig, TrainExecution
from trainer.estimate import estimate_phase
from trainer.losses import compute_losses
from trainer.model import layout as layouts
from trainer.model.attention import Attention, document_attention, sliding_attention
from trainer.model.attention_kernels import span_attention, span_edges, takes_spans
from trainer.model.layout import RowLayout, row_layout
from trainer.model.model import MoEModel, Recompute, build_model
from trainer.model.rope import rotary_tables
from trainer.precision import set_precision

WINDOW = 8
PACKED = torch.tensor([[0] * 21 + [1] * 3 + [2] * 8, [3] * 1 + [4] * 19 + [-1] * 12])


def seen(tokens: int, is_causal: bool, left: int, right: int) -> Tensor:
    """[S, S]: FlashAttention's windows, -1 being open, for queries and keys of one length."""
    distance = torch.arange(tokens)[:, None] - torch.arange(tokens)[None]
    mask = torch.ones(tokens, tokens, dtype=torch.bool)
    if left >= 0:
        mask &= distance <= left
    if right >= 0 or is_causal:
        mask &= -distance <= (0 if is_causal else right)
    return mask


def probabilities(q_SHD: Tensor, k_SHD: Tensor, mask: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """(softmax [H,S,S], log-sum-exp [H,S])."""
    scores = torch.einsum("shd,thd->hst", q_SHD, k_SHD).mul(scale).masked_fill(~mask, -torch.inf)
    return scores.softmax(-1), scores.logsumexp(-1)


def checked_spans(q: Tensor, k: Tensor, v: Tensor, edges: tuple[Tensor, Tensor], longest: tuple[int, int]) -> list[int]:
    """Lengths; asserts what `mha_varlen_fwd` checks, but for the dtype, and what it relies on."""
    for each in (q, k, v):
        assert each.ndim == 3
        assert each.stride(-1) == 1
        assert each.shape[2] == q.shape[2]
        assert each.stride(0) % 8 == 0
    assert q.shape[1] % k.shape[1] == 0
    assert q.shape[2] % 8 == 0
    assert q.shape[2] <= 192
    for each in edges:
        assert each.dtype == torch.int32
        assert each.is_contiguous()
    assert torch.equal(*edges)
    lengths = edges[0].diff().tolist()
    assert edges[0][0] == 0
    assert sum(lengths) == len(q) == len(k) == len(v)
    assert 0 < min(lengths) <= max(lengths) <= min(longest)
    return lengths


def flash_forward(
    query: Tensor, key: Tensor, value: Tensor, cum_seq_q: Tensor, cum_seq_k: Tensor, max_q: int, max_k: int,
    dropout_p: float, is_causal: bool, return_debug_mask: bool, *, scale: float | None = None,
    window_size_left: int | None = None, window_size_right: int | None = None, seqused_k: Tensor | None = None,
    alibi_slopes: Tensor | None = None, block_table: Tensor | None = None, num_splits: int | None = None,
) -> tuple[Tensor, ...]:  # fmt: skip
    assert (dropout_p, seqused_k, alibi_slopes, block_table, num_splits) == (0.0, None, None, None, None)
    assert not return_debug_mask
    assert window_size_left is not None
    assert window_size_right is not None
    lengths = checked_spans(query, key, value, (cum_seq_q, cum_seq_k), (max_q, max_k))
    group = query.shape[1] // key.shape[1]
    mixed, sums = [], []
    for q, k, v in zip(*(heads.split(lengths) for heads in (query, key, value)), strict=True):
        wide = torch.float64 if q.dtype == torch.float64 else torch.float32
        k, v = (heads.repeat_interleave(group, dim=1).to(wide) for heads in (k, v))
        mask = seen(len(q), is_causal, window_size_left, window_size_right)
        p, log_sum = probabilities(q.to(wide), k, mask, scale or q.shape[-1] ** -0.5)
        mixed.append(torch.einsum("hst,thd->shd", p, v))
        sums.append(log_sum)
    nothing = torch.zeros(2, dtype=torch.uint64)
    return torch.cat(mixed).to(query.dtype), torch.cat(sums, 1).float(), nothing, nothing.clone(), query.new_empty(0)


def flash_backward(
    grad_out: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, logsumexp: Tensor, cum_seq_q: Tensor,
    cum_seq_k: Tensor, max_q: int, max_k: int, dropout_p: float, is_causal: bool, rng_state: Tensor, unused: Tensor,
    *, scale: float | None = None, window_size_left: int | None = None, window_size_right: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """By hand: dS = P (dP - sum(dO O))."""
    assert dropout_p == 0.0
    assert window_size_left is not None
    assert window_size_right is not None
    assert logsumexp.shape == (query.shape[1], len(query))
    lengths = checked_spans(query, key, value, (cum_seq_q, cum_seq_k), (max_q, max_k))
    group = query.shape[1] // key.shape[1]
    factor = scale or query.shape[-1] ** -0.5
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for q, k, v, o, do in zip(*(x.split(lengths) for x in (query, key, value, out, grad_out)), strict=True):
        wide = torch.float64 if q.dtype == torch.float64 else torch.float32
        q, o, do = (heads.to(wide) for heads in (q, o, do))
        k, v = (heads.repeat_interleave(group, dim=1).to(wide) for heads in (k, v))
        p, _ = probabilities(q, k, seen(len(q), is_causal, window_size_left, window_size_right), factor)
        ds = p * (torch.einsum("shd,thd->hst", do, v) - (do * o).sum(-1).T[..., None])
        dq = torch.einsum("hst,thd->shd", ds, k) * factor
        dk = torch.einsum("hst,shd->thd", ds, q) * factor
        dv = torch.einsum("hst,shd->thd", p, do)
        dk, dv = (heads.unflatten(1, (-1, group)).sum(2) for heads in (dk, dv))
        found.append((dq, dk, dv))
    dq, dk, dv = (torch.cat(parts).to(query.dtype) for parts in zip(*found, strict=True))
    return dq, dk, dv


@pytest.fixture(scope="module")
def flash_kernel() -> Iterator[None]:
    """aten's flash kernel on the processor, where it has none."""
    library = torch.library.Library("aten", "IMPL")
    library.impl("_flash_attention_forward", flash_forward, "CPU")
    library.impl("_flash_attention_backward", flash_backward, "CPU")
    yield
    library._destroy()  # pyright: ignore[reportPrivateUsage]


@pytest.fixture
def by_spans(flash_kernel: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """From here on layouts are made for the kernel."""
    with monkeypatch.context() as patched:
        patched.setattr(layouts, "takes_spans", lambda _device, _dtype, head_dim: head_dim % 8 == 0)
        yield patched


def test_who_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    capability = (9, 0)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
    cuda = torch.device("cuda", 0)
    assert takes_spans(cuda, torch.bfloat16, 128)
    assert takes_spans(cuda, torch.float16, 192)
    assert not takes_spans(cuda, torch.float32, 128)
    assert not takes_spans(cuda, torch.bfloat16, 100)
    assert not takes_spans(cuda, torch.bfloat16, 256)
    assert not takes_spans(torch.device("cpu"), torch.bfloat16, 128)
    capability = (7, 5)
    assert not takes_spans(cuda, torch.bfloat16, 128)


def test_a_processor_keeps_blocks() -> None:
    layout = row_layout(PACKED, WINDOW, 8, 1e4, torch.bfloat16)
    assert layout.edges_E is None
    assert layout.block_mask is not None


def test_a_layout_by_spans_has_edges_and_no_mask(by_spans: pytest.MonkeyPatch) -> None:
    layout = row_layout(PACKED, WINDOW, 8, 1e4)
    assert layout.block_mask is None
    assert layout.edges_E is not None
    assert layout.edges_E.dtype == torch.int32
    assert layout.edges_E.tolist() == [0, 21, 24, 32, 33, 52, 64]


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 999),
    rows=st.integers(1, 3),
    tokens=st.integers(2, 40),
    documents=st.integers(1, 6),
    window=st.integers(1, 12),
    heads=st.sampled_from([(4, 2), (4, 4), (6, 1)]),
)
def test_spans_are_blocks_and_documents(
    flash_kernel: None, seed: int, rows: int, tokens: int, documents: int, window: int, heads: tuple[int, int]
) -> None:
    (q, k, v), ids = random_rows(seed, rows, tokens, documents, *heads)
    layout = row_layout(ids, window, 8, 1e4)
    starts = torch.tensor(layout.span_tokens).cumsum(0) - torch.tensor(layout.span_tokens)
    edges = span_edges(starts, rows * tokens)
    ours = [span_attention(q, k, v, edges, None)]
    others = [document_attention(q, k, v, layout.span_tokens, layout.span_is_document)]
    if layout.block_mask is not None:
        ours.append(span_attention(q, k, v, edges, window))
        others.append(sliding_attention(q, k, v, layout.block_mask, window))
    for mine, other in zip(ours, others, strict=True):
        torch.testing.assert_close(mine, other)
        weights = torch.randn(mine.shape, dtype=torch.float64)
        gradients = (torch.autograd.grad(mixed, (q, k, v), weights) for mixed in (mine, other))
        torch.testing.assert_close(*gradients)


def losses_and_gradients(model: MoEModel, ids: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    losses = compute_losses(model, ids, PACKED, PACKED >= 0)
    losses.total.backward()
    found = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    return {"loss": losses.total.detach(), **found}


@pytest.mark.parametrize("recompute", ["none", "blocks"])
def test_the_whole_model_is_the_same(model: MoEModel, by_spans: pytest.MonkeyPatch, recompute: Recompute) -> None:
    """The loss, MTP's in it, and every gradient of packed rows with padding; activations kept or made again."""
    ids = torch.randint(0, model.vocabulary_size, PACKED.shape, generator=torch.Generator().manual_seed(0))
    model.train()
    model.recompute = recompute
    spans = losses_and_gradients(model, ids)
    by_spans.undo()
    blocks = losses_and_gradients(model, ids)
    assert spans.keys() == blocks.keys()
    for name, value in blocks.items():
        assert (spans[name] - value).norm() <= 2e-5 * value.norm() + 1e-9, name


def test_in_bfloat16_the_rounding_is_all_that_differs(model: MoEModel, by_spans: pytest.MonkeyPatch) -> None:
    ids = torch.randint(0, model.vocabulary_size, PACKED.shape, generator=torch.Generator().manual_seed(0))
    exact = losses_and_gradients(model, ids)["loss"]
    set_precision(model, "bfloat16")
    spans = losses_and_gradients(model, ids)["loss"]
    by_spans.undo()
    blocks = losses_and_gradients(model, ids)["loss"]
    assert abs(spans - exact) <= 2 * abs(blocks - exact) + 1e-3 * exact


@pytest.mark.parametrize("recompute", ["none", "sparse"])
@pytest.mark.parametrize("preset", ["tiny", "small"])
def test_the_estimate_knows_what_is_kept(by_spans: pytest.MonkeyPatch, preset: str, recompute: Recompute) -> None:
    """On an accelerator in bfloat16: what autograd holds between the passes, one document a row; no masks, no blocks."""
    config, rows, tokens, vocabulary = PRESETS[preset], 2, 512, 64
    phase = PhaseConfig(
        name="p", mix="m", context_tokens=tokens, budget_tokens=10**6, rows_per_batch=rows, precision="bfloat16"
    )
    model = build_model(config, vocabulary, 0)
    set_precision(model, "bfloat16")
    model.recompute = recompute
    ids = torch.randint(0, vocabulary, (rows, tokens), generator=torch.Generator().manual_seed(0))

    def kept() -> int:
        weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
        held: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                held[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            losses = compute_losses(model, ids, torch.zeros_like(ids), torch.ones_like(ids, dtype=torch.bool))
        del losses
        return sum(held.values())

    def estimated(device: str) -> int:
        execution = TrainExecution(device=device, recompute=recompute)
        memory = estimate_phase(config, vocabulary, phase, execution, 0.0).memory
        heads = 2 * (4 * vocabulary * config.hidden_size + 2 * rows * tokens * config.hidden_size)
        return memory.activations + memory.casts + heads

    spans = kept()
    by_spans.undo()
    blocks = kept()
    if recompute == "none":
        assert estimated("cuda") == pytest.approx(spans, rel=0.08)
        floats = 4 * rows * tokens * config.window_tokens * 3 // 2  # of the mask, in its use: not between the passes
        assert estimated("cpu") - floats - estimated("cuda") == pytest.approx(blocks - spans, rel=0.01)
    else:  # the estimate has one layer's activations more, those that are made again
        assert spans < estimated("cuda") < estimated("cpu")


def layout_by_spans(device: str, tokens: int, edges: list[int]) -> RowLayout:
    with torch.device(device):
        return RowLayout(
            valid_BT=torch.ones(1, tokens, dtype=torch.bool),
            span_tokens=(),
            span_is_document=(),
            block_mask=None,
            rope=rotary_tables(torch.arange(tokens), 8, 1e4),
            edges_E=torch.tensor(edges, dtype=torch.int32),
        )


@pytest.mark.parametrize("window_tokens", [None, WINDOW])
def test_torch_takes_the_call_on_an_accelerator(window_tokens: int | None) -> None:
    """Pretended CUDA tensors, which a build without CUDA can have in the forward pass only."""
    with FakeTensorMode(), torch.device("cuda"), torch.no_grad():
        q, k, v = (torch.empty(2, 32, heads, 64, dtype=torch.bfloat16) for heads in (8, 2, 2))
        mixed = span_attention(q, k, v, torch.empty(4, dtype=torch.int32), window_tokens)
    assert (mixed.shape, mixed.dtype, mixed.device.type) == (q.shape, torch.bfloat16, "cuda")


@pytest.mark.parametrize("layer_type", ["sliding_attention", "full_attention"])
def test_torch_takes_a_layers_call_and_its_gradient(config: ModelConfig, layer_type: LayerType) -> None:
    """Shapes and types of both passes, without memory."""
    with torch.device("meta"):
        x_BTC = torch.empty(1, 32, config.hidden_size, dtype=torch.bfloat16, requires_grad=True)
        mixed = Attention(config, layer_type)(x_BTC, layout_by_spans("meta", 32, [0, 20, 32]))
    assert (mixed.shape, mixed.dtype) == (x_BTC.shape, torch.bfloat16)
    (gradient,) = torch.autograd.grad(mixed.sum(), x_BTC)
    assert (gradient.shape, gradient.dtype) == (x_BTC.shape, torch.bfloat16)


@pytest.mark.parametrize("layer_type", ["sliding_attention", "full_attention"])
def test_compiled_once_for_any_number_of_documents(
    config: ModelConfig, flash_kernel: None, layer_type: LayerType
) -> None:
    torch.compiler.reset()
    attention = Attention(config, layer_type).double()
    for weight in attention.parameters():
        torch.nn.init.ones_(weight) if weight.ndim == 1 else torch.nn.init.normal_(weight)
    counter = CompileCounter()
    compiled = torch.compile(attention, backend=counter, dynamic=False, fullgraph=True)
    x_BTC = torch.randn(1, 32, config.hidden_size, dtype=torch.float64)
    for starts in ([0], [0, 20], [0, 3, 4, 9], [0, 1, 2, 3, 4, 5, 31]):
        layout = replace(layout_by_spans("cpu", 32, [0, 32]), edges_E=span_edges(torch.tensor(starts), 32))
        torch.testing.assert_close(compiled(x_BTC, layout), attention(x_BTC, layout))
    assert counter.frame_count == 1


def heads_and_ids() -> tuple[Heads, Tensor]:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 1024, n, 64, generator=generator, dtype=torch.float64) for n in (8, 2, 2))
    return (q, k, v), torch.tensor([[0] * 700 + [1] * 3 + [2] * 321, [3] * 1000 + [-1] * 24])


def outcome(device: str, dtype: torch.dtype, window_tokens: int | None) -> list[Tensor]:
    """The documents' attention and the gradients, as the device and precision have it."""
    (q, k, v), ids = heads_and_ids()
    q, k, v = (each.to(device, dtype).requires_grad_() for each in (q, k, v))
    is_document = (ids >= 0).to(device)
    layout = row_layout(ids.to(device), window_tokens or 1024, 64, 1e4, dtype)
    if layout.edges_E is not None:
        mixed = span_attention(q, k, v, layout.edges_E, window_tokens)
    elif layout.block_mask is not None and window_tokens is not None:
        mixed = sliding_attention(q, k, v, layout.block_mask, window_tokens)
    else:
        mixed = document_attention(q, k, v, layout.span_tokens, layout.span_is_document)
    gradients = torch.autograd.grad(mixed[is_document].square().sum(), (q, k, v))
    return [each.detach().cpu() for each in (mixed[is_document], *gradients)]


@pytest.mark.gpu
@pytest.mark.parametrize("window_tokens", [None, 128])
@pytest.mark.parametrize(("dtype", "close"), [(torch.bfloat16, 2e-2), (torch.float32, 5e-3)])
def test_the_accelerator_computes_the_same_every_time(
    window_tokens: int | None, dtype: torch.dtype, close: float
) -> None:
    """bfloat16 by spans, float32 by blocks and documents (products in TF32 at worst); deterministic when asked to."""
    torch.use_deterministic_algorithms(True)
    try:
        first, second = (outcome("cuda", dtype, window_tokens) for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(False)
    exact = outcome("cpu", torch.float64, window_tokens)
    for mine, again, reference in zip(first, second, exact, strict=True):
        assert torch.equal(mine, again)
        assert (mine.double() - reference).norm() <= close * reference.norm()


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_no_score_is_kept_on_the_accelerator(config: ModelConfig, dtype: torch.dtype) -> None:
    """One document of 16,384 tokens: its scores of six heads would take 3 GiB in bfloat16, all else far below one."""
    attention = Attention(config, "full_attention").to("cuda")
    x_BTC = torch.randn(1, 16_384, config.hidden_size, device="cuda", dtype=dtype, requires_grad=True)
    layout = row_layout(torch.zeros(1, 16_384, dtype=torch.int32, device="cuda"), 128, config.head_dim, 1e4, dtype)
    torch.cuda.reset_peak_memory_stats()
    attention(x_BTC, layout).sum().backward()
    assert torch.cuda.max_memory_allocated() < 1 << 30


@pytest.mark.gpu
def test_the_model_learns_the_same_on_the_accelerator() -> None:
    """Loss and gradient norm of the tiny preset in bfloat16, by spans there and by blocks here."""
    ids = torch.randint(0, 512, PACKED.shape, generator=torch.Generator().manual_seed(0))
    found: list[tuple[float, float]] = []
    for device in ("cuda", "cpu"):
        model = build_model(PRESETS["tiny"], 512, 0, device).train()
        set_precision(model, "bfloat16")
        losses = compute_losses(model, ids.to(device), PACKED.to(device), (PACKED >= 0).to(device))
        losses.total.backward()
        norms = torch.stack([weight.grad.norm() for weight in model.parameters() if weight.grad is not None])
        found.append((losses.total.item(), norms.norm().item()))
    assert found[0] == pytest.approx(found[1], rel=2e-2)
