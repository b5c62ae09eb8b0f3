"""oneDNN's float32 products against float64 definitions, whatever the shapes, on processors that go there by
themselves and on those that do not; and the rule which do."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trainer.losses import UNLABELLED, head_cross_entropy
from trainer.model import onednn
from trainer.model.onednn import WINDOW_ROWS, is_faster, multiply, serves
from trainer.model.products import expert_product, matrix_product

CLOSE = 5e-6  # relative to the whole result's length


@pytest.fixture(autouse=True, scope="module", params=["onednn", "torch"])
def route(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "onednn" and not onednn._has_both():
        pytest.skip("this torch has no oneDNN or no MKL")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onednn, "is_faster", lambda: request.param == "onednn")
        yield request.param


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def leaves(*tensors: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """The same values in float32 and in float64."""
    single = [x.clone().requires_grad_() for x in tensors]
    return single, [x.detach().double().requires_grad_() for x in single]


def with_gradients(y: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    """y, and the gradients of a fixed weighted sum of it."""
    return (y.detach(), *torch.autograd.grad(y, inputs, normal(*y.shape).to(y.dtype)))


def assert_close(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert one.dtype == torch.float32
        assert (one.double() - other).norm() <= CLOSE * (other.norm() + 1e-12)


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(1, 200), width=st.integers(1, 90), out=st.integers(1, 90))
def test_products_are_the_definition(rows: int, width: int, out: int) -> None:
    single, exact = leaves(normal(1, rows, width), normal(out, width))
    found = with_gradients(matrix_product(*single), *single)
    assert_close(found, with_gradients(F.linear(*exact), *exact))
    again = with_gradients(matrix_product(*single), *single)
    assert all(torch.equal(one, other) for one, other in zip(found, again, strict=True))


def test_inputs_lie_in_memory_in_any_order() -> None:
    single, exact = leaves(normal(96, 80), normal(96, 64))
    found, expected = (matrix_product(x.t(), w.t()) for x, w in (single, exact))
    assert_close(with_gradients(found, *single), with_gradients(expected, *exact))


def test_a_gradient_may_be_one_number_seen_many_times() -> None:
    single, exact = leaves(normal(96, 80), normal(64, 80))
    sums = [torch.autograd.grad(matrix_product(*each).sum(), each) for each in (single, exact)]
    assert_close(*sums)


@settings(max_examples=30, deadline=None)
@given(counts=st.lists(st.integers(0, 150), min_size=1, max_size=6))
def test_experts_have_their_own_rows(counts: list[int]) -> None:
    ends_E = torch.tensor(counts).cumsum(0).int()
    rows = max(int(ends_E[-1]), 1)
    single, exact = leaves(normal(rows, 64), normal(len(counts), 48, 64))
    used = int(ends_E[-1])
    found, expected = (
        with_gradients(expert_product(x[:used], w, ends_E), x, w) for x, w in (single, exact)
    )  # fmt: skip
    assert_close(found, expected)


def test_rows_of_no_expert_touch_nothing() -> None:
    """They hold whatever was in memory, and so do their gradients."""
    counts = torch.tensor([70, 0, 3, 127])
    ends_E, used = counts.cumsum(0).int(), 200
    x, weight = normal(300, 64), normal(4, 48, 64).requires_grad_()
    x[used:] = torch.nan
    x.requires_grad_()
    y = expert_product(x, weight, ends_E)
    dy = normal(300, 48)
    dy[used:] = torch.nan
    found = (y[:used].detach(), *torch.autograd.grad(y, (x, weight), dy))
    (x64, weight64) = (x.detach()[:used].double().requires_grad_(), weight.detach().double().requires_grad_())
    expected = expert_product(x64, weight64, ends_E)
    gradients = torch.autograd.grad(expected, (x64, weight64), dy[:used].double())
    assert_close((found[0], found[1][:used], found[2]), (expected.detach(), *gradients))


def test_windows_hold_their_expert_and_end_with_the_last() -> None:
    ends = [3, 3, 140, 141, 300]
    windows = list(onednn._windows(torch.tensor(ends)))
    assert len(windows) == len(ends)
    for (own, window, inside), first, last in zip(windows, [0, *ends[:-1]], ends, strict=True):
        assert (own.start, own.stop) == (first, last)
        assert 0 <= window.start <= first <= last <= window.stop <= 300
        assert (window.stop - window.start) % WINDOW_ROWS == 0
        assert range(*window.indices(300))[inside] == range(first, last)


def test_the_head_is_the_definition() -> None:
    hidden, head = normal(2, 150, 64), normal(96, 64)
    labels = torch.randint(0, 96, (2, 150), generator=torch.Generator().manual_seed(0))
    single, exact = leaves(hidden, head)
    found, expected = (
        torch.autograd.grad(head_cross_entropy(*each, labels, 0.1).total, each) for each in (single, exact)
    )
    assert_close(found, expected)


def test_the_head_makes_products_of_few_shapes(route: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """oneDNN keeps a kernel for every shape: the number of labelled positions changes with every batch."""
    shapes: set[tuple[torch.Size, torch.Size]] = set()

    def noted(x_RI: Tensor, weight_OI: Tensor) -> Tensor:
        shapes.add((x_RI.shape, weight_OI.shape))
        return multiply(x_RI, weight_OI)

    for name in ("trainer.losses.multiply", "trainer.model.onednn.multiply"):
        monkeypatch.setattr(name, noted)
    hidden, head = normal(1, 300, 32).requires_grad_(), normal(96, 32).requires_grad_()
    for labelled in range(130, 290, 9):
        labels = torch.arange(300).remainder(96)[None].masked_fill(torch.arange(300) >= labelled, UNLABELLED)
        head_cross_entropy(hidden, head, labels).total.backward()
    rows = {shape[0] for pair in shapes for shape in pair} | {shape[1] for pair in shapes for shape in pair}
    small = set(range(1, onednn.FEWEST_ROWS // 2))  # torch's on both
    assert rows - small - {32, 96} <= ({64, 128} if route == "onednn" else set(range(129)))


def test_only_float32_on_a_processor_is_served(route: str) -> None:
    assert serves(torch.empty(1)) == (route == "onednn")
    for other in (torch.empty(1, dtype=torch.float64), torch.empty(1).bfloat16(), torch.empty(1, device="meta")):
        assert not serves(other)
    double = normal(64, 64).double()
    assert torch.equal(multiply(double, double), double @ double.t())


@pytest.mark.parametrize(
    ("name", "kernels", "is_served"),
    [("znver5", "AVX512", True), ("znver6", "AVX512", True), ("znver5", "AVX2", False), ("znver4", "AVX512", False),
     ("sapphirerapids", "AVX512", False), ("generic", "DEFAULT", False)],
)  # fmt: skip
def test_the_processor_decides(monkeypatch: pytest.MonkeyPatch, name: str, kernels: str, is_served: bool) -> None:
    monkeypatch.setattr("llvmlite.binding.get_host_cpu_name", lambda: name)
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: kernels)
    onednn._zen.cache_clear()
    try:
        assert is_faster() == (is_served and onednn._has_both())
        monkeypatch.setattr(onednn, "_has_both", lambda: False)
        assert not is_faster()
    finally:
        onednn._zen.cache_clear()
