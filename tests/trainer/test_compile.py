"""Compiled blocks: the same losses and gradients within rounding, and never called deterministic."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hand_plan import PHASE, train
from pipeline.core.errors import UserError
from pipeline.core.plans import Plan
from trainer.config import PRESETS, Precision, TrainExecution
from trainer.losses import compute_losses
from trainer.model.model import MoEModel, build_model
from trainer.precision import set_precision

VOCABULARY = 512


def measured(model: MoEModel) -> list[tuple[float, dict[str, torch.Tensor], dict[int, torch.Tensor]]]:
    """Loss, gradients and loads of two batches with other documents."""
    found = []
    generator = torch.Generator().manual_seed(0)
    for first in (40, 90):
        ids = torch.randint(0, VOCABULARY, (2, 128), generator=generator)
        documents = (torch.arange(128) >= first).int().expand(2, -1).contiguous()
        model.zero_grad()
        losses = compute_losses(model, ids, documents, documents >= 0)
        losses.total.backward()
        gradients = {name: weight.grad.clone() for name, weight in model.named_parameters()}
        found.append((losses.total.item(), gradients, model.update_expert_bias(0.0)))
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "close"), [("float32", 1e-5), ("bfloat16", 2e-2)])
def test_compiled_blocks_compute_the_same(precision: Precision, close: float) -> None:
    """float32: sums in another order. bfloat16: fewer roundings between operations that became one."""
    model = build_model(PRESETS["tiny"], VOCABULARY, 0).train()
    set_precision(model, precision)
    plain = measured(model)
    model.compile_blocks()
    compiled = measured(model)
    for (loss, gradients, loads), (other_loss, others, other_loads) in zip(plain, compiled, strict=True):
        assert other_loss == pytest.approx(loss, rel=close)
        for name, gradient in gradients.items():
            assert (others[name] - gradient).norm() <= 10 * close * gradient.norm(), name
        if precision == "float32":
            assert all(torch.equal(loads[layer], other_loads[layer]) for layer in loads)


def test_compiled_is_not_deterministic() -> None:
    with pytest.raises((ValueError, UserError), match="use algorithms 'fastest', or compile 'none'"):
        TrainExecution(compile="blocks")
    assert TrainExecution(compile="blocks", algorithms="fastest").compile == "blocks"


def test_emulated_eight_bits_are_not_compiled(plan: Plan, tmp_path: Path) -> None:
    execution = TrainExecution(compile="blocks", algorithms="fastest")
    with pytest.raises(UserError, match="compiled blocks have no eight-bit products on a processor"):
        train(plan, tmp_path, phase=PHASE.replaced(precision="float8"), execution=execution)
    assert not (tmp_path / "train.jsonl").exists()
