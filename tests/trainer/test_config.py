"""Configs: the published size exactly, presets that build, errors that say what would work."""

import pytest
from pydantic import ValidationError

from trainer.architecture import shortest_pattern
from trainer.config import PRESETS, LearningRate, ModelChoice, ModelConfig, PhaseConfig, count_parameters
from trainer.model.model import build_model


def test_the_published_model_has_exactly_the_published_parameters() -> None:
    config = PRESETS["k-exaone-236b"]
    counts = count_parameters(config, 153_600)
    assert (counts.main, counts.mtp) == (236_571_156_352, 528_513_280)
    assert counts.active_per_token == 22_723_952_640
    assert config.layer_types.count("full_attention") == 12
    assert [i for i, kind in enumerate(config.layer_types) if kind == "full_attention"] == list(range(3, 48, 4))
    assert config.feed_forward_types == ("dense",) + ("sparse",) * 47


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_builds_with_the_counted_size(name: str) -> None:
    model = build_model(PRESETS[name], 153_600, seed=0, device="meta")
    biases = sum(buffer.numel() for key, buffer in model.named_buffers() if key.endswith("expert_bias"))
    held = sum(weight.numel() for weight in model.parameters()) + biases
    assert held == count_parameters(PRESETS[name], 153_600).total


def test_tied_embeddings_count_once(config: ModelConfig) -> None:
    tied = config.replaced(tie_embeddings=True)
    assert count_parameters(config, 100).main - count_parameters(tied, 100).main == 100 * config.hidden_size


def test_a_choice_overrides_its_preset() -> None:
    chosen = ModelChoice(preset="tiny", num_layers=6, layer_pattern="LG").resolve()
    assert chosen == PRESETS["tiny"].replaced(num_layers=6, layer_pattern="LG")


def test_a_choice_offers_every_field_of_a_model() -> None:
    assert set(ModelChoice.model_fields) - {"preset"} == set(ModelConfig.model_fields)


@pytest.mark.parametrize(
    ("changes", "named", "works"),
    [
        ({"num_key_value_heads": 3}, "num_key_value_heads", "[1, 2, 4]"),
        ({"head_dim": 31}, "head_dim", "use 32"),
        ({"experts_per_token": 9}, "experts_per_token", "<= 8"),
        ({"dense_layers": 5}, "dense_layers", "<= 4"),
        ({"hidden_size": 97}, "hidden_size", "use 104"),
        ({"expert_intermediate_size": 60}, "expert_intermediate_size", "use 64"),
        ({"layer_pattern": "G"}, "layer_pattern", "'LLLG'"),
        ({"window_tokens": 0}, "window_tokens", "greater than 0"),
        ({"preset": "tony"}, "tony", "'tiny'"),
    ],
)
def test_an_impossible_model_is_told_what_would_work(changes: dict[str, object], named: str, works: str) -> None:
    with pytest.raises(ValidationError) as error:
        ModelChoice.model_validate({"preset": "tiny", **changes})
    assert named in str(error.value)
    assert works in str(error.value)


def test_a_phase_too_small_for_one_step_says_how_much_is_needed() -> None:
    with pytest.raises(ValidationError, match="budget_tokens >= 2,048"):
        PhaseConfig(name="p", mix="m", context_tokens=256, budget_tokens=2047, rows_per_batch=8)
    phase = PhaseConfig(name="p", mix="m", context_tokens=256, budget_tokens=5000, rows_per_batch=8)
    assert (phase.tokens_per_step, phase.total_steps) == (2048, 2)


def test_warmup_is_given_once() -> None:
    with pytest.raises(ValidationError, match="keep one"):
        LearningRate(warmup_steps=3, warmup_fraction=0.1)
    with pytest.raises(ValidationError, match="decay_fraction <= 0.6"):
        LearningRate(warmup_fraction=0.4, decay_fraction=0.7)


@pytest.mark.parametrize("pattern", ["L", "LLLG", "GL", "LLGLG"])
def test_a_pattern_is_found_again_in_its_layers(config: ModelConfig, pattern: str) -> None:
    layer_types = list(config.replaced(layer_pattern=pattern, num_layers=12).layer_types)
    assert shortest_pattern(layer_types) == pattern
