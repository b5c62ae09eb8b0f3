"""Routing analysis: information by hand, choices that cannot be missed, and a model left as it was."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hand_plan import MODEL, VOCABULARY
from pipeline.core.plans import Plan
from trainer.data import BatchReader
from trainer.evals.routing import can_miss_one, layer_use, loss_without, specialisation
from trainer.model.model import build_model


def test_specialisation_by_hand() -> None:
    apart = np.array([[1000, 0], [0, 1000]])  # one bit: the group says the expert
    assert specialisation(apart) == pytest.approx(1.0, abs=1e-3)
    alike = np.array([[500, 500], [500, 500]])
    assert specialisation(alike) == pytest.approx(0.0, abs=1e-3)
    assert specialisation(np.zeros((2, 2))) == 0.0


def test_shuffled_groups_show_nothing() -> None:
    generator = np.random.default_rng(0)
    found = [specialisation(generator.multinomial(200, np.full(16, 1 / 16), size=3)) for _ in range(300)]
    assert abs(np.mean(found)) < 0.005  # without the correction 0.036


@pytest.mark.parametrize("kind", ["languages", "domains", "sources"])
def test_use_adds_up_and_changes_nothing(plan: Plan, kind: str) -> None:
    model = build_model(MODEL, VOCABULARY, seed=0)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    batches = [BatchReader(plan, "cpu").batch(at, 4) for at in (0, 4)]
    names, layers = layer_use(model, batches, kind)
    assert names == sorted(names)
    assert [each.layer for each in layers] == [1, 2, 3]
    for each in layers:
        assert each.share_GE.shape == (2, MODEL.num_experts)
        assert each.share_GE.sum(1) == pytest.approx(np.ones(2))
        assert each.low <= each.high
        assert np.diag(each.together_EE) == pytest.approx(np.ones(MODEL.num_experts))
        # Each token has two experts: whoever chose one chose exactly one other.
        assert each.together_EE.sum(1) == pytest.approx(np.full(MODEL.num_experts, 2.0))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(int(load.sum()) == 0 for load in model.update_expert_bias(0.0).values())


def test_an_expert_that_does_nothing_is_worth_less(plan: Plan) -> None:
    """An expert nobody can choose anyway is worth nothing."""
    model = build_model(MODEL, VOCABULARY, seed=0)
    batches = [BatchReader(plan, "cpu").batch(0, 4)]
    model.sparse_layers()[2].router.expert_bias[3] = -torch.inf
    rises = loss_without(model, batches, 2)
    assert rises.shape == (MODEL.num_experts,)
    assert rises[3] == 0
    assert (rises[:3] != 0).all()


def test_a_model_whose_tokens_need_every_expert(plan: Plan) -> None:
    """With one taken out too few are left, and a bias of -inf would choose it all the same: a rise of 0, which is wrong."""
    config = MODEL.replaced(experts_per_token=MODEL.num_experts)
    model = build_model(config, VOCABULARY, seed=0)
    batches = [BatchReader(plan, "cpu").batch(0, 4)]
    assert can_miss_one(MODEL)
    assert not can_miss_one(config)
    with pytest.raises(ValueError, match="needs all 4 experts"):
        loss_without(model, batches, 2)
    _, layers = layer_use(model, batches, "languages")
    assert all(each.share_GE == pytest.approx(np.full((2, 4), 0.25)) for each in layers)
    assert [each.specialisation for each in layers] == pytest.approx([0.0] * 3, abs=1e-2)
