"""Causal attention in tiles against a float64 definition, for any lengths and tile sizes; its bits repeat."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.model import attention, causal, onednn
from trainer.model.attention import document_attention
from trainer.model.causal import FEWEST_TOKENS, is_long_enough, tiled_causal_attention

CLOSE = {torch.float32: 5e-6, torch.bfloat16: 2e-2}  # relative to the whole result's length; bfloat16 has 8 bits


@pytest.fixture(autouse=True, params=["onednn", "torch"])
def route(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The products of tiles, on processors with and without faster ones."""
    if request.param == "onednn" and not onednn._has_both():
        pytest.skip("this torch has no oneDNN or no MKL")
    monkeypatch.setattr(onednn, "is_faster", lambda: request.param == "onednn")
    monkeypatch.setattr(causal, "is_faster", lambda: True)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def drawn(rows: int, tokens: int, heads: int, groups: int, size: int, dtype: torch.dtype) -> tuple[list[Tensor], ...]:
    """Queries, keys and values in `dtype`, and the same in float64."""
    shapes = (rows, tokens, heads, size), (rows, tokens, groups, size), (rows, tokens, groups, size)
    low = [normal(*shape).to(dtype).requires_grad_() for shape in shapes]
    return low, [x.detach().double().requires_grad_() for x in low]


def with_gradients(y: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    """y, and the gradients of a fixed weighted sum of it."""
    return (y.detach(), *torch.autograd.grad(y, inputs, normal(*y.shape).to(y.dtype)))


def assert_close(found: tuple[Tensor, ...], expected: tuple[Tensor, ...], close: float) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert (one.double() - other).norm() <= close * other.norm()


def dense(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    heads = [x.transpose(1, 2) for x in (q, k, v)]
    return F.scaled_dot_product_attention(*heads, is_causal=True, enable_gqa=True).transpose(1, 2)


@pytest.mark.parametrize("dtype", list(CLOSE))
@pytest.mark.parametrize(("query_tokens", "key_tokens"), [(128, 1024), (16, 32), (24, 7)])
@pytest.mark.parametrize(("rows", "tokens", "heads", "groups", "size"), [(2, 130, 4, 2, 32), (1, 77, 3, 1, 16)])
def test_tiles_are_the_definition(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, query_tokens: int, key_tokens: int, rows: int, tokens: int,
    heads: int, groups: int, size: int,
) -> None:  # fmt: skip
    monkeypatch.setattr(causal, "QUERY_TOKENS", query_tokens)
    monkeypatch.setattr(causal, "KEY_TOKENS", key_tokens)
    low, exact = drawn(rows, tokens, heads, groups, size, dtype)
    found = with_gradients(tiled_causal_attention(*low), *low)
    assert all(x.dtype == dtype for x in found)
    assert_close(found, with_gradients(dense(*exact), *exact), CLOSE[dtype])
    again = with_gradients(tiled_causal_attention(*low), *low)
    assert all(torch.equal(one, other) for one, other in zip(found, again, strict=True))


def test_more_keys_than_a_tile_holds() -> None:
    low, exact = drawn(1, 1100, 4, 2, 16, torch.float32)
    found = with_gradients(tiled_causal_attention(*low), *low)
    assert_close(found, with_gradients(dense(*exact), *exact), CLOSE[torch.float32])


def test_large_scores_do_not_overflow() -> None:
    """Scores of ten thousands, where each query's largest decides alone."""
    q, k, v = (100 * normal(1, 300, 2, 16) for _ in range(3))
    assert_close((tiled_causal_attention(q, k, v),), (dense(q.double(), k.double(), v.double()),), 1e-3)


def test_what_is_no_number_stays_none() -> None:
    q, k, v = (normal(1, 300, 2, 16) for _ in range(3))
    k[0, 200, 0] = torch.nan
    mixed = tiled_causal_attention(q, k, v)
    assert mixed[0, 200:, 0].isnan().all()
    assert mixed[0, :200].isfinite().all()
    assert mixed[0, :, 1].isfinite().all()


def test_long_documents_of_a_row_go_in_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between a short one and padding; each sees itself alone."""
    sizes: list[int] = []

    def watched(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        sizes.append(q.shape[1])
        return tiled_causal_attention(q, k, v)

    monkeypatch.setattr(attention, "tiled_causal_attention", watched)
    spans = (FEWEST_TOKENS + 44, 60, FEWEST_TOKENS, 40)
    low, exact = drawn(1, sum(spans), 4, 2, 16, torch.float32)
    is_document = (True, True, True, False)
    found = with_gradients(document_attention(*low, spans, is_document), *low)
    assert sizes == [FEWEST_TOKENS + 44, FEWEST_TOKENS]
    expected = with_gradients(document_attention(*exact, spans, is_document), *exact)
    assert len(sizes) == 2  # float64 stays with torch
    assert_close(found, expected, CLOSE[torch.float32])


def test_elsewhere_torch_attends(monkeypatch: pytest.MonkeyPatch) -> None:
    q = torch.empty(1, FEWEST_TOKENS, 1, 8)
    assert is_long_enough(q)
    assert not is_long_enough(q[:, 1:])
    assert not is_long_enough(q.double())
    assert not is_long_enough(q.to("meta"))
    monkeypatch.setattr(causal, "is_faster", lambda: False)
    assert not is_long_enough(q)
