"""Muon against torch.optim.Muon matrix by matrix; AdamW against torch.optim.AdamW; state that resumes exactly."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.config import ModelConfig, OptimizerConfig
from trainer.losses import compute_losses
from trainer.model.model import MoEModel, build_model
from trainer.optim import build_optimizer, orthogonalize, parameter_groups

RATE = 3e-3


def set_gradients(model: MoEModel, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for weight in model.parameters():
        weight.grad = torch.randn(weight.shape, generator=generator)


def parts_by_hand(model: MoEModel, name: str) -> list[torch.Tensor]:
    """The matrices inside one weight, written out from the architecture."""
    weight = model.get_parameter(name).detach()
    config = model.config
    if name.endswith("qkv.weight"):
        key_value = config.num_key_value_heads * config.head_dim
        return list(weight.split([config.num_attention_heads * config.head_dim, key_value, key_value]))
    if name.endswith("experts.gate_up"):
        return [half for expert in weight.unbind(0) for half in expert.chunk(2)]
    if name.endswith("experts.down"):
        return list(weight.unbind(0))
    return list(weight.chunk(2)) if name.endswith("gate_up.weight") else [weight]


def test_every_matrix_moves_as_torch_muon_moves_it_alone(model: MoEModel) -> None:
    reference = copy.deepcopy(model)
    config = OptimizerConfig(weight_decay=0.1)
    ours = build_optimizer(model, config)
    names = list(parameter_groups(model)["muon"])
    alone = {name: [torch.nn.Parameter(part.clone()) for part in parts_by_hand(reference, name)] for name in names}
    every_part = [part for parts in alone.values() for part in parts]
    theirs = torch.optim.Muon(
        every_part, lr=RATE, weight_decay=0.1, momentum=0.95, nesterov=True, adjust_lr_fn="match_rms_adamw"
    )
    ours.set_learning_rate(RATE)
    for step in range(3):
        set_gradients(model, step)
        set_gradients(reference, step)
        for name in names:
            gradient_holder = reference.get_parameter(name)
            assert gradient_holder.grad is not None
            gradient_holder.data = gradient_holder.grad  # so that the same split gives gradients
            for part, gradient in zip(alone[name], parts_by_hand(reference, name), strict=True):
                part.grad = gradient.clone()
        ours.step()
        theirs.step()
    for name in names:
        for mine, other in zip(parts_by_hand(model, name), alone[name], strict=True):
            moved = 3 * RATE * 0.2 * max(mine.shape) ** 0.5
            # Both iterate in bfloat16; the order of sums differs between a batched and a single product.
            torch.testing.assert_close(mine, other.detach(), rtol=0, atol=0.03 * moved)


def test_the_rest_moves_as_adamw(model: MoEModel) -> None:
    reference = copy.deepcopy(model)
    groups = parameter_groups(reference)
    theirs = torch.optim.AdamW(
        [
            {"params": list(groups["adamw-decayed"].values()), "weight_decay": 0.1},
            {"params": list(groups["adamw-undecayed"].values()), "weight_decay": 0.0},
        ],
        lr=RATE,
        betas=(0.9, 0.95),
    )
    ours = build_optimizer(model, OptimizerConfig())
    ours.set_learning_rate(RATE)
    for step in range(3):
        set_gradients(model, step)
        set_gradients(reference, step)
        ours.step()
        theirs.step()
    for name in [*groups["adamw-decayed"], *groups["adamw-undecayed"]]:
        torch.testing.assert_close(model.get_parameter(name), reference.get_parameter(name), rtol=1e-5, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(rows=st.integers(1, 24), columns=st.integers(1, 24), seed=st.integers(0, 99))
def test_orthogonalised_matrices_keep_their_directions(rows: int, columns: int, seed: int) -> None:
    matrices = torch.randn(3, rows, columns, generator=torch.Generator().manual_seed(seed))
    values = torch.linalg.svdvals(matrices)
    out = orthogonalize(matrices, steps=5).float()
    assert out.shape == matrices.shape
    assert torch.linalg.svdvals(out).max() < 1.4
    # Five steps bring singular values above about 1% of the norm near one.
    well = values[:, -1] > 0.05 * values.norm(dim=1)
    assert (torch.linalg.svdvals(out)[well] > 0.5).all()
    assert ((out * matrices).sum((1, 2)) > 0).all()


def test_experts_do_not_mix(model: MoEModel) -> None:
    """One expert's gradient moves that expert only."""
    optimizer = build_optimizer(model, OptimizerConfig(weight_decay=0))
    optimizer.set_learning_rate(RATE)
    experts = model.sparse_layers()[2].experts
    before = experts.gate_up.detach().clone()
    experts.gate_up.grad = torch.zeros_like(experts.gate_up)
    experts.gate_up.grad[3] = torch.randn(before.shape[1:])
    optimizer.step()
    moved = (experts.gate_up.detach() - before).abs().amax((1, 2))
    assert moved.nonzero().squeeze(1).tolist() == [3]


def test_groups_cover_every_weight_once(model: MoEModel) -> None:
    rows = {row.group: row for row in build_optimizer(model, OptimizerConfig()).describe_groups()}
    assert sum(row.weights for row in rows.values()) == len(list(model.parameters()))
    assert sum(row.parameters for row in rows.values()) == sum(weight.numel() for weight in model.parameters())
    # 6 attention layers of 4, 2 dense MLPs of 3, 4 sparse layers of 6 + 1 experts of 3, the MTP projection.
    assert rows["muon"].matrices == 6 * 4 + 2 * 3 + 4 * 7 * 3 + 1
    assert rows["adamw-decayed"].weights == 2 + 4
    assert rows["adamw-undecayed"].weight_decay == 0


def train(
    model: MoEModel, optimizer_config: OptimizerConfig, steps: range, state: dict | None
) -> tuple[list[float], dict]:
    optimizer = build_optimizer(model, optimizer_config)
    if state is not None:
        optimizer.load_state_dict(state)
    losses = []
    for step in steps:
        ids = torch.randint(0, model.vocabulary_size, (2, 24), generator=torch.Generator().manual_seed(step % 3))
        out = compute_losses(model, ids, torch.zeros_like(ids), torch.ones_like(ids, dtype=torch.bool))
        optimizer.zero_grad()
        out.total.backward()
        optimizer.set_learning_rate(RATE)
        optimizer.step()
        model.update_expert_bias(model.config.expert_bias_rate)
        losses.append(out.total.item())
    return losses, copy.deepcopy(optimizer.state_dict())


def test_training_learns_and_resumes_bit_for_bit(config: ModelConfig) -> None:
    whole_model = build_model(config, 32, seed=0)
    whole, _ = train(whole_model, OptimizerConfig(), range(8), None)
    assert whole[-1] < whole[0] - 0.3
    first_model = build_model(config, 32, seed=0)
    first, state = train(first_model, OptimizerConfig(), range(4), None)
    resumed_model = build_model(config, 32, seed=1)
    resumed_model.load_state_dict(first_model.state_dict())
    second, _ = train(resumed_model, OptimizerConfig(), range(4, 8), state)
    assert first + second == whole
    for name, tensor in whole_model.state_dict().items():
        assert torch.equal(tensor, resumed_model.state_dict()[name]), name


def test_state_of_another_model_is_refused(model: MoEModel, config: ModelConfig) -> None:
    other = build_model(config.replaced(mtp_layers=0), 32, seed=0)
    state = build_optimizer(other, OptimizerConfig()).state_dict()
    with pytest.raises(KeyError, match=r"mtp\.block"):
        build_optimizer(model, OptimizerConfig()).load_state_dict(state)


def test_initial_weights_depend_on_seed_and_name_only(config: ModelConfig) -> None:
    first, again, other = (build_model(config, 64, seed=seed) for seed in (0, 0, 1))
    deeper = build_model(config.replaced(num_layers=6), 64, seed=0)
    for name, weight in first.named_parameters():
        assert torch.equal(weight, again.get_parameter(name))
        assert torch.equal(weight, deeper.get_parameter(name))
        if weight.ndim > 1:
            assert not torch.equal(weight, other.get_parameter(name))
            assert weight.std().item() == pytest.approx(0.02, rel=0.2)
        else:
            assert (weight == 1).all()
    assert all((layer.router.expert_bias == 0).all() for layer in first.sparse_layers().values())
