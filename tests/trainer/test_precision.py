"""Precisions: bfloat16 and eight-bit products against float32, and eight bits against torch's own cast, bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hand_plan import PHASE, lines, train
from pipeline.core.plans import Plan
from trainer.config import Precision
from trainer.losses import compute_losses
from trainer.model.float8 import (
    BLOCK,
    LARGEST,
    float8_expert_product,
    float8_matrix_product,
    power_of_two_scale,
    quantised_rows,
    quantised_tiles,
)
from trainer.model.linear import Linear
from trainer.model.model import MoEModel
from trainer.model.products import expert_product
from trainer.precision import set_precision


def cast(values: Tensor, largest: Tensor) -> Tensor:
    """By torch: scaled, clamped, cast to e4m3 and back."""
    scale = power_of_two_scale(largest)
    return ((values.float() * scale).clamp(-LARGEST, LARGEST).to(torch.float8_e4m3fn).float() / scale).bfloat16()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@settings(max_examples=25, deadline=None)
@given(rows=st.integers(1, 9), blocks=st.integers(1, 3), rest=st.integers(0, 127), power=st.integers(-60, 60))
def test_rows_are_rounded_as_torch_casts(dtype: torch.dtype, rows: int, blocks: int, rest: int, power: int) -> None:
    width = (blocks - 1) * BLOCK + max(1, rest)
    generator = torch.Generator().manual_seed(width + rows)
    spread = torch.logspace(-5, 5, width)  # below the smallest step as well
    x = (torch.randn(rows, width, generator=generator) * spread * 2.0**power).to(dtype)
    x[0, 0] = 0
    expected = [cast(part, part.float().abs().amax(1, keepdim=True)) for part in x.split(BLOCK, dim=1)]
    assert torch.equal(quantised_rows(x), torch.cat(expected, dim=1))
    plain = quantised_rows(x.double().to(torch.float64))  # the path of other devices
    assert torch.equal(plain, quantised_rows(x))


def test_a_scale_brings_the_largest_just_within_range() -> None:
    largest = torch.tensor([448.0, 448.1, 224.0, 1.0, 1e-30, 3e30, 0.0, float("inf"), float("nan")])
    scale = power_of_two_scale(largest)
    assert scale[:6].log2().frac().abs().max() == 0
    scaled = (largest * scale)[:6]
    assert (scaled <= 448).all()
    assert (scaled > 224 - 1e-3).all()
    assert scale[6:].tolist() == [1, 1, 1]


@pytest.mark.parametrize("shape", [(3, 40, 24), (2, 130, 260), (128, 128)])
def test_tiles_share_a_scale_within_their_matrix(shape: tuple[int, ...]) -> None:
    weight = torch.randn(*shape, generator=torch.Generator().manual_seed(1))
    weight.flatten()[::7] *= 100
    found = quantised_tiles(weight)
    matrices = zip(weight.reshape(-1, *shape[-2:]), found.reshape(-1, *shape[-2:]), strict=True)
    for matrix, low in matrices:
        for top in range(0, shape[-2], BLOCK):
            for left in range(0, shape[-1], BLOCK):
                tile = matrix[top : top + BLOCK, left : left + BLOCK]
                assert torch.equal(low[top : top + BLOCK, left : left + BLOCK], cast(tile, tile.abs().amax()))
    assert torch.equal(quantised_tiles(weight.double()), found)  # the path of other devices


def test_the_product_is_that_of_the_quantised_values() -> None:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(2, 30, 200, generator=generator).bfloat16().requires_grad_()
    weight = torch.randn(64, 200, generator=generator).requires_grad_()
    y = float8_matrix_product(x, weight)
    low_x, low_w = quantised_rows(x.detach().flatten(0, 1)).double(), quantised_tiles(weight).double()
    torch.testing.assert_close(y.double().flatten(0, 1), low_x @ low_w.t(), rtol=2**-8, atol=1e-2)
    dy = torch.randn(y.shape, generator=generator).bfloat16()
    dx, dweight = torch.autograd.grad(y, (x, weight), dy)
    low_dy = quantised_rows(dy.flatten(0, 1)).double()
    torch.testing.assert_close(dx.double().flatten(0, 1), low_dy @ low_w, rtol=2**-8, atol=1e-2)
    exact = dy.double().flatten(0, 1).t() @ x.detach().double().flatten(0, 1)
    torch.testing.assert_close(dweight.double(), exact, rtol=2**-7, atol=5e-2)
    assert dweight.dtype == torch.float32


def test_experts_in_eight_bits_are_near_the_plain_ones() -> None:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(60, 128, generator=generator).bfloat16().requires_grad_()
    weight = (torch.randn(4, 64, 128, generator=generator) / 11).requires_grad_()
    ends = torch.tensor([10, 10, 41, 60], dtype=torch.int32)
    dy = torch.randn(60, 64, generator=generator).bfloat16()
    results = []
    for product in (float8_expert_product, expert_product):
        y = product(x, weight, ends)
        results.append((y, *torch.autograd.grad(y, (x, weight), dy)))
    for low, plain in zip(*results, strict=True):
        assert low.dtype == plain.dtype
        error = (low.double() - plain.double()).norm() / plain.double().norm()
        assert error < 0.05  # two operands of 3 mantissa bits each
    assert (results[0][0] != results[1][0]).any()


def test_weights_and_gradients_stay_float32(model: MoEModel) -> None:
    ids = torch.randint(0, model.vocabulary_size, (2, 24))
    documents = torch.zeros_like(ids)
    exact = compute_losses(model, ids, documents, documents == 0).total
    for precision, share in (("bfloat16", 0.02), ("float8", 0.05)):
        set_precision(model, precision)  # type: ignore[arg-type]
        model.zero_grad()
        out = compute_losses(model, ids, documents, documents == 0)
        out.total.backward()
        assert model(ids, documents).hidden_BTC.dtype == torch.bfloat16
        assert abs(out.total.item() - exact.item()) < share * exact.item()
        for name, weight in model.named_parameters():
            assert weight.dtype == torch.float32, name
            assert weight.grad is not None, name
            assert weight.grad.dtype == torch.float32, name
    set_precision(model, "float32")
    assert compute_losses(model, ids, documents, documents == 0).total.item() == exact.item()


def test_eight_bits_are_for_the_layers_matrices_only(model: MoEModel) -> None:
    set_precision(model, "float8")
    low = {name for name, m in model.named_modules() if isinstance(m, Linear) and m.product is float8_matrix_product}
    assert "head" not in low
    assert "mtp.projection" not in low
    assert {"layers.0.attention.qkv", "layers.1.feed_forward.shared.down", "mtp.block.feed_forward.gate_up"} <= low


@pytest.mark.parametrize("precision", ["bfloat16", "float8"])
def test_a_phase_learns_in_any_precision(plan: Plan, whole: Path, tmp_path: Path, precision: Precision) -> None:
    train(plan, tmp_path, phase=PHASE.replaced(precision=precision))
    exact = lines(whole)
    for line, other in zip(lines(tmp_path), exact, strict=True):
        assert line["loss"] == pytest.approx(other["loss"], rel=0.03)
    assert [line["loss"] for line in lines(tmp_path)] != [line["loss"] for line in exact]
