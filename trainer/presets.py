"""Named architectures, from a CPU toy to the published K-EXAONE-236B-A23B.

Contract: pure data, no torch. Only `k-exaone-236b` is a published model; the others are ours, of the same
family at other sizes. Weights (main + MTP) at vocabulary 8,192: tiny 2.4M, small 19M; at 65,536: medium 0.35B,
large 7.1B.
Source: released config of K-EXAONE-236B-A23B (hidden 6144, 48 layers LLLG, 128 experts top-8, window 128).
"""

from trainer.architecture import ModelConfig

PRESETS: dict[str, ModelConfig] = {
    "tiny": ModelConfig(
        hidden_size=96,
        num_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        window_tokens=64,
        intermediate_size=256,
        num_experts=8,
        experts_per_token=2,
        expert_intermediate_size=64,
        max_context_tokens=4096,
        # The report's 1e-4 moves a bias by 0.02 in a run of a few hundred steps, too little to balance
        # anything; ours for short runs.
        expert_bias_rate=1e-3,
    ),
    "small": ModelConfig(
        hidden_size=256,
        num_layers=8,
        num_attention_heads=8,
        num_key_value_heads=2,
        head_dim=32,
        window_tokens=128,
        intermediate_size=704,
        num_experts=16,
        experts_per_token=2,
        expert_intermediate_size=128,
        max_context_tokens=16_384,
        expert_bias_rate=1e-3,  # as for tiny
    ),
    "medium": ModelConfig(
        hidden_size=768,
        num_layers=12,
        num_attention_heads=12,
        num_key_value_heads=4,
        head_dim=64,
        intermediate_size=2304,
        num_experts=32,
        experts_per_token=4,
        expert_intermediate_size=256,
        max_context_tokens=65_536,
    ),
    "large": ModelConfig(
        hidden_size=2048,
        num_layers=24,
        num_attention_heads=16,
        num_key_value_heads=4,
        head_dim=128,
        intermediate_size=6144,
        num_experts=64,
        experts_per_token=6,
        expert_intermediate_size=704,
    ),
    "k-exaone-236b": ModelConfig(
        hidden_size=6144,
        num_layers=48,
        num_attention_heads=64,
        num_key_value_heads=8,
        head_dim=128,
        intermediate_size=18_432,
        num_experts=128,
        experts_per_token=8,
        expert_intermediate_size=2048,
    ),
}
