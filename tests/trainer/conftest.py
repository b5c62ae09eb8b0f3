"""Shared by the trainer's tests: one thread, and a model small enough for milliseconds."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from hand_plan import make_segment, train, write_tokens
from pipeline.core.plans import Plan
from trainer.checkpoint import checkpoints
from trainer.config import ModelConfig
from trainer.model.model import MoEModel, build_model

VOCABULARY = 160


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def config() -> ModelConfig:
    """Five layers ending in a sliding one, a query size that is not the width, three experts of six."""
    return ModelConfig(
        hidden_size=32,
        num_layers=5,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=8,
        window_tokens=8,
        intermediate_size=48,
        num_experts=6,
        experts_per_token=3,
        num_shared_experts=2,
        expert_intermediate_size=16,
        max_context_tokens=512,
    )


@pytest.fixture
def model(config: ModelConfig) -> MoEModel:
    """Weights large enough that every path matters, norms and selection biases away from their start."""
    return scrambled(build_model(config, VOCABULARY, seed=0))


@torch.no_grad()
def scrambled(model: MoEModel) -> MoEModel:
    generator = torch.Generator().manual_seed(1)
    for weight in model.parameters():
        if weight.ndim == 1:
            weight.copy_(1 + 0.3 * torch.randn(weight.shape, generator=generator))
        else:
            weight.mul_(10)
    for layer in model.sparse_layers().values():
        layer.router.expert_bias.copy_(0.2 * torch.randn(layer.router.expert_bias.shape, generator=generator))
    return model


@pytest.fixture(scope="session")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    store = tmp_path_factory.mktemp("store")
    write_tokens(store, "alpha", "en", [7, 12, 9, 15, 4, 11, 8], masked=False)
    write_tokens(store, "beta", "ko", [10, 6, 13, 5, 9], masked=True)
    return make_segment(store, "p", None)


@pytest.fixture(scope="session")
def whole(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The phase's folder after an uninterrupted run."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("whole")
    place = train(plan, folder)
    assert place == checkpoints(folder)[-1]
    return folder
