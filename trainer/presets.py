"""Named architectures, from a CPU toy to the published K-EXAONE-236B-A23B.

Contract: pure data, no torch; in order of size, each at most five times the one before. Only `k-exaone-236b` is a
published model; the others are ours, of the same family at other sizes.
Weights at the vocabulary named, router biases among them; active: one token's matrices, the head's among them.

  preset         vocabulary        main         MTP         active
  moe-1m           8,192         968,008      32,560        491,136
  tiny             8,192       2,295,160     129,568      1,175,808
  moe-7m           8,192       6,407,128     349,024      3,157,760
  small            8,192      17,777,520     836,928      6,041,600
  moe-80m          8,192      72,689,376   3,345,024     20,316,160
  medium          65,536     339,243,616   8,064,896    107,225,088
  moe-1b          65,536     908,906,192  14,161,024    192,954,368
  moe-3b          65,536   2,899,840,704  32,251,648    524,156,928
  large           65,536   7,027,402,176  56,633,600  1,123,024,896
  moe-17b        153,600  17,335,433,600  95,695,616  2,314,403,840
  moe-30b        153,600  30,194,225,024  65,022,208  3,266,576,384
  moe-90b        153,600  91,262,669,184 243,290,368  9,473,359,872
  k-exaone-236b  153,600 236,571,156,352 528,513,280 22,723,952,640

Source: released config of K-EXAONE-236B-A23B (hidden 6144, 48 layers LLLG, 128 experts top-8, window 128).
"""

from trainer.architecture import ModelConfig

PRESETS: dict[str, ModelConfig] = {
    "moe-1m": ModelConfig(
        hidden_size=48,
        num_layers=4,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        window_tokens=64,
        intermediate_size=128,
        num_experts=8,
        experts_per_token=2,
        expert_intermediate_size=32,
        max_context_tokens=4096,
        expert_bias_rate=1e-3,  # as for tiny
    ),
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
    "moe-7m": ModelConfig(
        hidden_size=160,
        num_layers=8,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=32,
        window_tokens=64,
        intermediate_size=448,
        num_experts=8,
        experts_per_token=2,
        expert_intermediate_size=96,
        max_context_tokens=8192,
        expert_bias_rate=1e-3,  # as for tiny
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
    "moe-80m": ModelConfig(
        hidden_size=512,
        num_layers=8,
        num_attention_heads=8,
        num_key_value_heads=2,
        head_dim=64,
        intermediate_size=1408,
        num_experts=32,
        experts_per_token=4,
        expert_intermediate_size=160,
        max_context_tokens=32_768,
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
    "moe-1b": ModelConfig(
        hidden_size=1024,
        num_layers=16,
        num_attention_heads=16,
        num_key_value_heads=4,
        head_dim=64,
        intermediate_size=3072,
        num_experts=48,
        experts_per_token=4,
        expert_intermediate_size=320,
        max_context_tokens=131_072,
    ),
    "moe-3b": ModelConfig(
        hidden_size=1536,
        num_layers=20,
        num_attention_heads=12,
        num_key_value_heads=4,
        head_dim=128,
        intermediate_size=4608,
        num_experts=64,
        experts_per_token=6,
        expert_intermediate_size=448,
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
    "moe-17b": ModelConfig(
        hidden_size=2560,
        num_layers=32,
        num_attention_heads=32,
        num_key_value_heads=4,
        head_dim=128,
        intermediate_size=7680,
        num_experts=128,
        experts_per_token=8,
        expert_intermediate_size=512,
    ),
    "moe-30b": ModelConfig(
        hidden_size=2048,
        num_layers=48,
        num_attention_heads=32,
        num_key_value_heads=4,
        head_dim=128,
        intermediate_size=6144,
        num_experts=128,
        experts_per_token=8,
        expert_intermediate_size=768,
    ),
    "moe-90b": ModelConfig(
        hidden_size=4096,
        num_layers=44,
        num_attention_heads=48,
        num_key_value_heads=8,
        head_dim=128,
        intermediate_size=12_288,
        num_experts=128,
        experts_per_token=8,
        expert_intermediate_size=1280,
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
