"""Configs: the published size exactly, presets that build, errors that say what would work."""

from itertools import pairwise

import pytest
from pydantic import ValidationError

from trainer import presets
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


# Vocabulary, main and MTP weights, weights active for a token: as the presets' page has them.
WRITTEN = {
    "moe-1m": (8_192, 968_008, 32_560, 491_136),
    "tiny": (8_192, 2_295_160, 129_568, 1_175_808),
    "moe-7m": (8_192, 6_407_128, 349_024, 3_157_760),
    "small": (8_192, 17_777_520, 836_928, 6_041_600),
    "moe-80m": (8_192, 72_689_376, 3_345_024, 20_316_160),
    "medium": (65_536, 339_243_616, 8_064_896, 107_225_088),
    "moe-1b": (65_536, 908_906_192, 14_161_024, 192_954_368),
    "moe-3b": (65_536, 2_899_840_704, 32_251_648, 524_156_928),
    "large": (65_536, 7_027_402_176, 56_633_600, 1_123_024_896),
    "moe-17b": (153_600, 17_335_433_600, 95_695_616, 2_314_403_840),
    "moe-30b": (153_600, 30_194_225_024, 65_022_208, 3_266_576_384),
    "moe-90b": (153_600, 91_262_669_184, 243_290_368, 9_473_359_872),
    "k-exaone-236b": (153_600, 236_571_156_352, 528_513_280, 22_723_952_640),
}


def closed_form(config: ModelConfig, vocabulary: int) -> tuple[int, int, int]:
    """Main, MTP and active weights of a model without tied embeddings, weight by weight of a published checkpoint."""
    width, head = config.hidden_size, config.head_dim
    projections = {"q": config.num_attention_heads, "k": config.num_key_value_heads, "v": config.num_key_value_heads}
    attention = sum(heads * head * width for heads in projections.values()) + width * config.num_attention_heads * head
    norms = width + width + head + head  # before attention and feed-forward; of queries and of keys
    gate_up_down = 3 * width
    experts, active_experts = (
        (number + config.num_shared_experts) * gate_up_down * config.expert_intermediate_size
        for number in (config.num_experts, config.experts_per_token)
    )
    router, bias = config.num_experts * width, config.num_experts
    sparse = config.num_layers - config.dense_layers
    dense = gate_up_down * config.intermediate_size
    ends = 2 * vocabulary * width + width
    main = (
        ends
        + config.num_layers * (attention + norms)
        + config.dense_layers * dense
        + sparse * (experts + router + bias)
    )
    mtp = width * (2 * width) + width + width + (attention + norms + dense) + width
    unused = vocabulary * width + width + config.num_layers * norms + sparse * (experts - active_experts + bias)
    return main, mtp, main - unused


def test_every_preset_has_its_written_numbers() -> None:
    assert {
        name: (WRITTEN[name][0], *closed_form(config, WRITTEN[name][0])) for name, config in PRESETS.items()
    } == WRITTEN
    rows = {row.split()[0]: row.split()[1:] for row in (presets.__doc__ or "").splitlines() if row.startswith("  ")}
    for name, numbers in WRITTEN.items():
        assert rows[name] == [f"{number:,}" for number in numbers], name


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_builds_with_the_written_size(name: str) -> None:
    vocabulary, main, mtp, active = WRITTEN[name]
    model = build_model(PRESETS[name], vocabulary, seed=0, device="meta")
    biases = {key: buffer.numel() for key, buffer in model.named_buffers() if key.endswith("expert_bias")}
    held = {key: weight.numel() for key, weight in model.named_parameters()} | biases
    assert sum(size for key, size in held.items() if key.startswith("mtp.")) == mtp
    assert sum(size for key, size in held.items() if not key.startswith("mtp.")) == main
    assert count_parameters(PRESETS[name], vocabulary) == (main, mtp, active)


@pytest.mark.parametrize("vocabulary", [8192, 65_536, 153_600])
def test_no_size_is_far_from_the_next(vocabulary: int) -> None:
    sizes = [count_parameters(config, vocabulary).total for config in PRESETS.values()]
    assert all(1 < larger / smaller <= 5 for smaller, larger in pairwise(sizes))
    assert count_parameters(PRESETS["moe-1m"], 8192).total == 1_000_568


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_of_the_family(name: str) -> None:
    config = PRESETS[name]
    assert config.layer_pattern == "LLLG"
    assert config.num_layers % 4 == 0
    assert (config.dense_layers, config.num_shared_experts, config.mtp_layers) == (1, 1, 1)
    if count_parameters(config, 153_600).total > 10**10:
        assert (config.head_dim, config.num_experts, config.experts_per_token) == (128, 128, 8)


def test_tied_embeddings_count_once(config: ModelConfig) -> None:
    tied = config.replaced(tie_embeddings=True)
    assert count_parameters(config, 100).main - count_parameters(tied, 100).main == 100 * config.hidden_size


def test_a_choice_overrides_its_preset() -> None:
    chosen = ModelChoice(preset="tiny", num_layers=6, layer_pattern="LG").resolve()
    assert chosen == PRESETS["tiny"].replaced(num_layers=6, layer_pattern="LG")


def test_a_choice_offers_every_field_of_a_model() -> None:
    assert set(ModelChoice.model_fields) - {"preset", "from_"} == set(ModelConfig.model_fields)


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
