"""Attention against one dense mask over the whole row."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from random_rows import Heads, random_rows
from torch import Tensor

from trainer.config import ModelConfig
from trainer.model.attention import document_attention, sliding_attention
from trainer.model.layout import RowLayout, row_layout
from trainer.model.model import MoEModel
from trainer.model.rope import rotary_tables, rotate


def dense_attention(qkv: Heads, document_ids_BT: Tensor, window_tokens: int | None) -> Tensor:
    """The definition: one T x T mask."""
    tokens = document_ids_BT.shape[1]
    distance = torch.arange(tokens)[:, None] - torch.arange(tokens)[None]
    mask = (distance >= 0) & (document_ids_BT[:, :, None] == document_ids_BT[:, None, :])
    if window_tokens is not None:
        mask = mask & (distance < window_tokens)
    q, k, v = (heads.transpose(1, 2) for heads in qkv)
    k, v = (heads.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for heads in (k, v))
    scores = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~mask[:, None], -torch.inf)
    return (scores.softmax(-1) @ v).transpose(1, 2)


def layout_of(document_ids_BT: Tensor, window_tokens: int) -> RowLayout:
    return row_layout(document_ids_BT, window_tokens, head_dim=8, rope_theta=1e4)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 999),
    rows=st.integers(1, 3),
    tokens=st.integers(2, 40),
    documents=st.integers(1, 6),
    window=st.integers(1, 12),
)
def test_both_kinds_are_the_dense_definition(seed: int, rows: int, tokens: int, documents: int, window: int) -> None:
    qkv, ids = random_rows(seed, rows, tokens, documents)
    layout = layout_of(ids, window)
    ours = [document_attention(*qkv, layout.span_tokens, layout.span_is_document)]
    theirs = [dense_attention(qkv, ids, None)]
    if layout.block_mask is not None:
        ours.append(sliding_attention(*qkv, layout.block_mask, window))
        theirs.append(dense_attention(qkv, ids, window))
    for mine, reference in zip(ours, theirs, strict=True):
        weights = torch.randn(mine.shape, dtype=torch.float64)
        torch.testing.assert_close(mine, reference)
        gradients = torch.autograd.grad(mine, qkv, weights), torch.autograd.grad(reference, qkv, weights)
        torch.testing.assert_close(*gradients)


def test_the_window_counts_the_query_itself() -> None:
    qkv, _ = random_rows(0, 1, 32, 1)
    layout = layout_of(torch.zeros(1, 32, dtype=torch.int32), 8)
    assert layout.block_mask is not None
    out = sliding_attention(*qkv, layout.block_mask, 8)
    (gradient,) = torch.autograd.grad(out[0, 20].sum(), qkv[2])
    seen = gradient[0].abs().sum((1, 2)).nonzero().squeeze(1).tolist()
    assert seen == list(range(13, 21))


def test_padding_gives_zeros_and_takes_no_gradient() -> None:
    qkv, _ = random_rows(0, 1, 12, 1)
    ids = torch.tensor([[0] * 5 + [1] * 4 + [-1] * 3])
    layout = layout_of(ids, 16)
    assert layout.span_tokens == (5, 4, 3)
    assert layout.span_is_document == (True, True, False)
    out = document_attention(*qkv, layout.span_tokens, layout.span_is_document)
    assert out[0, 9:].abs().max() == 0
    gradients = torch.autograd.grad(out, qkv, torch.ones_like(out))
    assert all(gradient[0, 9:].abs().max() == 0 for gradient in gradients)


def test_masks_grow_linearly_with_the_row() -> None:
    sizes = []
    for tokens in (256, 1024, 4096):
        layout = layout_of(torch.zeros(1, tokens, dtype=torch.int32), 32)
        assert layout.block_mask is not None
        sizes.append(layout.block_mask.numel())
    assert sizes == [256 * 48, 1024 * 48, 4096 * 48]


def test_rope_depends_on_distance_only() -> None:
    heads = torch.randn(1, 1, 2, 8, dtype=torch.float64)

    def product(first: int, second: int) -> Tensor:
        q = rotate(heads, rotary_tables(torch.tensor([first]), 8, 100.0))
        k = rotate(heads.flip(-1), rotary_tables(torch.tensor([second]), 8, 100.0))
        return (q * k).sum(-1)

    torch.testing.assert_close(product(9, 4), product(105, 100), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(product(9, 4), product(9, 5))


@pytest.mark.parametrize("tokens", [5, 8, 21])
def test_documents_of_a_row_do_not_see_each_other(model: MoEModel, config: ModelConfig, tokens: int) -> None:
    """Packed in one row, each document has the hidden states it has alone."""
    model.eval()
    generator = torch.Generator().manual_seed(3)
    lengths = [tokens, 13, 3]
    documents = [torch.randint(0, model.vocabulary_size, (1, length), generator=generator) for length in lengths]
    ids = torch.cat([torch.full((1, n), i, dtype=torch.int32) for i, n in enumerate(lengths)], dim=1)
    ids = F.pad(ids, (0, 4), value=-1)
    row = F.pad(torch.cat(documents, dim=1), (0, 4))
    packed = model(row, ids).hidden_BTC
    alone = [model(document, torch.zeros_like(document)).hidden_BTC for document in documents]
    torch.testing.assert_close(packed[:, : sum(lengths)], torch.cat(alone, dim=1), rtol=1e-4, atol=1e-5)
    assert packed.isfinite().all()
