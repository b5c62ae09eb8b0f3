"""Experts against a loop that follows the definition; balance loss and bias update by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.config import ModelConfig
from trainer.model import moe as moe_module
from trainer.model.model import MoEModel, build_model
from trainer.model.moe import MoE, Routing, dispatch_route, routing_statistics
from trainer.model.products import expert_product


def slow_moe(moe: MoE, x_NC: Tensor) -> Tensor:
    """Token by token, expert by expert."""
    rows = []
    for x in x_NC:
        scores = (moe.router.weight @ x).sigmoid()
        chosen = sorted(range(len(scores)), key=lambda e: -(scores[e] + moe.router.expert_bias[e]).item())
        chosen = chosen[: moe.router.experts_per_token]
        total = sum(scores[e] for e in chosen)
        row = moe.shared(x)
        for e in chosen:
            gate, up = (moe.experts.gate_up[e] @ x).chunk(2)
            row = row + 2.5 * scores[e] / total * (moe.experts.down[e] @ (F.silu(gate) * up))
        rows.append(row)
    return torch.stack(rows)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_experts_are_the_definition_forward_and_backward(model: MoEModel, dtype: torch.dtype) -> None:
    moe = model.sparse_layers()[1].to(dtype)
    x = torch.randn(2, 7, 32, dtype=dtype, generator=torch.Generator().manual_seed(0), requires_grad=True)
    ours, routing = moe(x, torch.zeros_like(x))
    reference = slow_moe(moe, x.flatten(0, 1)).view_as(x)
    torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-4)
    assert routing.experts_Nk.shape == (14, 3)
    weights = torch.randn(x.shape, dtype=dtype)
    inputs = [x, *moe.parameters()]
    mine = torch.autograd.grad(ours, inputs, weights)
    theirs = torch.autograd.grad(reference, inputs, weights)
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3 * float(b.abs().max()))


def test_gradients_are_exact_in_double_precision(model: MoEModel) -> None:
    """Numerical differentiation of the whole layer, away from the points where a choice flips."""
    moe = model.sparse_layers()[1].double()
    x = torch.randn(1, 3, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(2), requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: moe(x, x)[0], (x,), fast_mode=True)


def test_an_expert_without_tokens_is_no_trouble() -> None:
    x = torch.randn(5, 8, requires_grad=True)
    weight = torch.randn(4, 16, 8, requires_grad=True)
    ends = torch.tensor([0, 3, 3, 5], dtype=torch.int32)
    out = expert_product(x, weight, ends)
    reference = expert_product(x.double(), weight.double(), ends)
    torch.testing.assert_close(out.double(), reference, rtol=1e-5, atol=1e-5)
    (gradient,) = torch.autograd.grad(out, weight, torch.ones_like(out))
    assert gradient[[0, 2]].abs().max() == 0
    assert gradient[[1, 3]].abs().min() > 0


def test_the_bias_chooses_and_nothing_else(config: ModelConfig) -> None:
    router = build_model(config, 16, seed=0).sparse_layers()[1].router
    x = torch.randn(4, 32)
    router.expert_bias.copy_(torch.tensor([9.0, 9, 9, 0, 0, 0]))
    routing = router(x)
    assert set(routing.experts_Nk.flatten().tolist()) == {0, 1, 2}
    scores = F.linear(x, router.weight).sigmoid()[:, :3]
    torch.testing.assert_close(
        routing.weights_Nk.sort().values, (2.5 * scores / scores.sum(1, keepdim=True)).sort().values
    )
    assert not router.expert_bias.requires_grad


def test_balance_loss_by_hand() -> None:
    """Two rows, the second with padding: mean over rows of sum_e f_e P_e."""
    scores = torch.tensor([[0.8, 0.2, 0.0], [0.5, 0.5, 1.0], [0.4, 0.4, 0.2], [0.9, 0.9, 0.9]], requires_grad=True)
    routing = Routing(scores, torch.tensor([[0], [2], [1], [0]]), torch.ones(4, 1))
    statistics = routing_statistics(routing, torch.tensor([[True, True], [True, False]]))
    first = 3 * (0.5 * (0.8 + 0.25) / 2 + 0.5 * (0.0 + 0.5) / 2)
    second = 3 * (1.0 * 0.4)
    assert statistics.balance_loss.item() == pytest.approx((first + second) / 2)
    assert statistics.counts_E.tolist() == [1, 1, 1]
    (gradient,) = torch.autograd.grad(statistics.balance_loss, scores)
    assert gradient[3].abs().max() == 0
    assert gradient[0].abs().max() > 0


def test_perfect_balance_costs_one() -> None:
    experts = torch.arange(12).view(6, 2) % 4
    routing = Routing(torch.full((6, 4), 0.3), experts, torch.ones(6, 2))
    assert routing_statistics(routing, torch.ones(1, 6, dtype=torch.bool)).balance_loss.item() == pytest.approx(1)


def test_the_bias_moves_against_the_load_and_survives_a_checkpoint(model: MoEModel, config: ModelConfig) -> None:
    model.train()
    before = {i: layer.router.expert_bias.clone() for i, layer in model.sparse_layers().items()}
    ids = torch.randint(0, model.vocabulary_size, (2, 20))
    documents = torch.zeros_like(ids)
    documents[1, 10:] = -1
    counts = [
        sum(n) for n in zip(*([r.counts_E for r in model(ids, documents).routing] for _ in range(2)), strict=True)
    ]
    loads = model.update_expert_bias(1e-2)
    assert list(loads) == [1, 2, 3, 4]
    for (index, load), expected in zip(loads.items(), counts, strict=True):
        assert torch.equal(load, torch.as_tensor(expected))
        assert int(load.sum()) == 2 * 30 * config.experts_per_token
        moved = model.sparse_layers()[index].router.expert_bias - before[index]
        assert torch.allclose(moved, 1e-2 * torch.sign(load.float().mean() - load), atol=1e-7)
    restored = build_model(config, model.vocabulary_size, seed=9)
    restored.load_state_dict(model.state_dict())
    for index, layer in restored.sparse_layers().items():
        assert torch.equal(layer.router.expert_bias, model.sparse_layers()[index].router.expert_bias)
    assert all(int(load.sum()) == 0 for load in model.update_expert_bias(1e-2).values())


def test_evaluation_leaves_the_load_alone(model: MoEModel) -> None:
    model.eval()
    ids = torch.randint(0, model.vocabulary_size, (1, 20))
    model(ids, torch.zeros_like(ids))
    assert all(int(load.sum()) == 0 for load in model.update_expert_bias(1e-2).values())


def test_the_bias_stays_float32_in_a_bfloat16_model(model: MoEModel) -> None:
    router = model.sparse_layers()[1].router
    exact = router.expert_bias.clone()
    model.to(torch.bfloat16)
    assert router.weight.dtype == torch.bfloat16
    assert torch.equal(router.expert_bias, exact)
    ids = torch.randint(0, model.vocabulary_size, (1, 20))
    assert model(ids, torch.zeros_like(ids)).hidden_BTC.dtype == torch.bfloat16


@pytest.mark.parametrize("multiple", [1, 8])
def test_every_token_reaches_its_experts_places(multiple: int) -> None:
    experts_Nk = torch.randint(0, 5, (40, 2), generator=torch.Generator().manual_seed(4))
    experts_Nk[experts_Nk == 3] = 2  # one expert has nothing to do
    route = dispatch_route(experts_Nk, 5, multiple)
    starts = [0, *route.ends_E.tolist()]
    for expert in range(5):
        rows = [
            place
            for place, chosen in zip(route.places_Nk.flatten(), experts_Nk.flatten(), strict=True)
            if chosen == expert
        ]
        assert len(rows) == route.counts_E[expert]
        assert (starts[expert + 1] - starts[expert]) % multiple == 0
        assert sorted(int(row) for row in rows) == list(range(starts[expert], starts[expert] + len(rows)))
    tokens = torch.arange(40)[:, None].expand(40, 2)
    assert torch.equal(route.token_R[route.places_Nk], tokens)


def test_filled_up_places_change_no_sum(model: MoEModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """bfloat16 rows are filled up to a multiple; the values and gradients are those without."""
    layer = model.sparse_layers()[1]
    x = torch.randn(2, 64, 32, generator=torch.Generator().manual_seed(5)).bfloat16().requires_grad_()
    results = []
    for multiple in (1, 16):
        monkeypatch.setattr(moe_module, "ROW_MULTIPLE", multiple)
        y, _ = layer(x, x)
        results.append((y, *torch.autograd.grad(y, (x, *layer.parameters()), torch.ones_like(y))))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=2e-2, atol=2e-2 * float(one.detach().abs().max()))
