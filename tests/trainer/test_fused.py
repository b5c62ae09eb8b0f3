"""The row kernels against plain torch, forward and backward, whatever the shapes; and not a bit from threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trainer.model import fused, kernels
from trainer.model.rope import rotary_tables

TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 3e-2}  # bfloat16 has 8 bits; sums are float32 on both sides
Operation = Callable[..., Tensor | tuple[Tensor, ...]]


def compared(operation: Operation, inputs: Sequence[Tensor], dtype: torch.dtype) -> None:
    """Outputs and gradients of the kernels' precision beside those of the plain path in float64."""
    low = [x.to(dtype).requires_grad_() if x.is_floating_point() else x for x in inputs]
    exact = [x.detach().double().requires_grad_() if x.is_floating_point() else x for x in low]
    found, expected = operation(*low), operation(*exact)
    pairs = list(zip(*((value,) if isinstance(value, Tensor) else value for value in (found, expected)), strict=True))
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(one.shape, generator=generator) for one, _ in pairs]
    sum((one.float() * weight).sum() for (one, _), weight in zip(pairs, weights, strict=True)).backward()  # type: ignore[union-attr]
    sum((other * weight).sum() for (_, other), weight in zip(pairs, weights, strict=True)).backward()  # type: ignore[union-attr]
    gradients = [(one.grad, other.grad) for one, other in zip(low, exact, strict=True) if one.is_floating_point()]
    for one, other in [*pairs, *gradients]:
        assert one is not None
        assert other is not None
        assert one.dtype == dtype
        assert (one.double() - other).norm() <= TOLERANCE[dtype] * (other.norm() + 1e-6)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@settings(max_examples=8, deadline=None)
@given(rows=st.integers(1, 300), width=st.integers(4, 70))
def test_norms(dtype: torch.dtype, rows: int, width: int) -> None:
    compared(lambda x, w: fused.rms_norm(x, w, 1e-5), (normal(1, rows, width), 1 + normal(width)), dtype)
    compared(
        lambda x, u, w: fused.add_rms_norm(x, u, w, 1e-5),
        (normal(1, rows, width), normal(rows, 1, width).view(1, rows, width), 1 + normal(width)),
        dtype,
    )


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("turned", [True, False])
def test_heads(dtype: torch.dtype, turned: bool) -> None:
    rope = rotary_tables(torch.arange(37), 8, 1e4) if turned else None
    compared(
        lambda x, q, k: fused.norm_and_turn_heads(x, q, k, 1e-5, (6, 2, 2), rope),
        (normal(2, 37, 80), 1 + normal(8), 1 - normal(1, 8)[0]),
        dtype,
    )


@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_swiglu(dtype: torch.dtype) -> None:
    compared(fused.swiglu, (3 * normal(2, 50, 34),), dtype)


@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_gathering_and_combining_experts(dtype: torch.dtype) -> None:
    places = torch.randperm(60, generator=torch.Generator().manual_seed(1)).view(20, 3)
    token = torch.empty(60, dtype=torch.int64).scatter_(0, places.flatten(), torch.arange(60) // 3)
    compared(lambda x: fused.gather_tokens(x, token, places), (normal(20, 16),), dtype)
    if dtype == torch.float32:  # the weights are float32 in any precision
        compared(
            lambda base, shared, y, weights: fused.combine_experts(base, shared, y, places, weights),
            (normal(20, 16), normal(16, 20).view(20, 16), normal(60, 16), normal(20, 3)),
            dtype,
        )


def test_combining_in_bfloat16_adds_in_float32() -> None:
    places = torch.arange(40).view(10, 4)
    base, shared, y = (normal(*shape).bfloat16() for shape in ((10, 16), (16, 10), (40, 16)))
    shared, weights = shared.view(10, 16), normal(10, 4)
    exact = base.double() + shared.double() + (y.double()[places] * weights[:, :, None].double()).sum(1)
    found = fused.combine_experts(base, shared, y, places, weights)
    assert torch.equal(found, exact.bfloat16()) or (found.double() - exact).abs().max() <= exact.abs().max() * 2**-8


def test_threads_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "_ELEMENTS_WORTH_A_THREAD", 1)
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        x, weight = normal(1, 1000, 24).requires_grad_(), (1 + normal(24)).requires_grad_()
        y = fused.rms_norm(x, weight, 1e-5)
        found.append((y, *torch.autograd.grad(y, (x, weight), normal(1, 1000, 24))))
    for other in found[1:]:
        for one, another in zip(found[0], other, strict=True):
            assert torch.equal(one, another)


def test_what_is_no_number_stays_none() -> None:
    x = normal(3, 16)
    x[1, 4] = float("nan")
    for y in (fused.rms_norm(x, torch.ones(16), 1e-5), fused.rms_norm(x.bfloat16(), torch.ones(16), 1e-5)):
        assert y.isnan().any(1).tolist() == [False, True, False]
    assert fused.swiglu(x).isnan().any(1).tolist() == [False, True, False]


def test_the_exponential_is_that_of_the_library() -> None:
    x = torch.linspace(-87, 88, 100_001)
    found = torch.tensor([float(kernels.exponential(value)) for value in x.numpy()[::37]], dtype=torch.float64)
    exact = x[::37].double().exp()
    assert ((found - exact).abs() / exact).max() < 3e-7


def test_bfloat16_is_rounded_as_torch_does() -> None:
    x = normal(2000) * torch.logspace(-30, 30, 2000)
    ours = [int(kernels.bfloat16_bits(value)) for value in x.numpy()]
    assert ours == x.bfloat16().view(torch.uint16).tolist()
