"""The architecture of a model as a frozen config, and its exact parameter count.

Contract: pure data and integer arithmetic, no torch. The vocabulary is not part of the config, because it
comes from the tokenizer; everything that needs it takes `vocabulary_size`.
Source: the K-EXAONE architecture (arXiv 2601.01739) as the transformers `exaone_moe` model implements it.
"""

from typing import Literal, NamedTuple, Self

from pydantic import Field, model_validator

from pipeline.core.config import Config

LayerType = Literal["sliding_attention", "full_attention"]
FeedForwardType = Literal["dense", "sparse"]

LETTER_OF_LAYER: dict[LayerType, str] = {"sliding_attention": "L", "full_attention": "G"}
ALIGNMENT = 8  # elements: grouped matrix products need strides of 16 bytes, which is 8 bfloat16 values


class ParameterCount(NamedTuple):
    """Numbers a checkpoint holds; the routers' selection biases count, as they do in the published figure."""

    main: int
    mtp: int
    active_per_token: int  # weights of matrices one token is multiplied with, head included, embedding not

    @property
    def total(self) -> int:
        return self.main + self.mtp


class ModelConfig(Config):
    """One mixture-of-experts decoder; sizes are in elements, windows and contexts in tokens."""

    hidden_size: int = Field(gt=0)
    num_layers: int = Field(gt=0)
    num_attention_heads: int = Field(gt=0)
    num_key_value_heads: int = Field(gt=0)
    head_dim: int = Field(gt=0)
    window_tokens: int = Field(default=128, gt=0)  # keys a sliding layer sees, the query's own included
    layer_pattern: str = Field(default="LLLG", pattern="^[LG]+$")  # L sliding with RoPE, G global without
    dense_layers: int = Field(default=1, ge=0)  # the first layers, which have one wide MLP and no experts
    intermediate_size: int = Field(gt=0)  # of the dense MLPs, the one of the MTP layer included
    num_experts: int = Field(gt=0)
    experts_per_token: int = Field(gt=0)
    num_shared_experts: int = Field(default=1, gt=0)
    expert_intermediate_size: int = Field(gt=0)
    routed_scaling: float = Field(default=2.5, gt=0)
    rope_theta: float = Field(default=1e6, gt=0)
    rms_norm_eps: float = Field(default=1e-5, gt=0)
    mtp_layers: int = Field(default=1, ge=0, le=1)
    tie_embeddings: bool = False
    initializer_range: float = Field(default=0.02, gt=0)
    max_context_tokens: int = Field(default=262_144, gt=0)
    # Coefficients: K-EXAONE report (arXiv 2601.01739), all fixed throughout its training.
    balance_loss: float = Field(default=1e-4, ge=0)
    expert_bias_rate: float = Field(default=1e-4, ge=0)
    mtp_loss: float = Field(default=0.05, ge=0)
    # Of the mean squared log-sum-exp of the logits (PaLM, arXiv 2204.02311, section 5: 1e-4); the report names none.
    z_loss: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def check_sizes_fit(self) -> Self:
        """Raise ValueError naming the field, what it is now and a value that would work."""
        if self.num_attention_heads % self.num_key_value_heads:
            divisors = [n for n in range(1, self.num_attention_heads + 1) if self.num_attention_heads % n == 0]
            raise ValueError(
                f"num_key_value_heads is {self.num_key_value_heads} but must divide num_attention_heads "
                f"({self.num_attention_heads}): one of {divisors}"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim is {self.head_dim} but RoPE turns pairs: use {self.head_dim + 1}")
        if self.experts_per_token > self.num_experts:
            raise ValueError(
                f"experts_per_token is {self.experts_per_token} but num_experts is {self.num_experts}: "
                f"use experts_per_token <= {self.num_experts}"
            )
        if self.dense_layers > self.num_layers:
            raise ValueError(
                f"dense_layers is {self.dense_layers} but num_layers is {self.num_layers}: "
                f"use dense_layers <= {self.num_layers}"
            )
        for field in ("hidden_size", "expert_intermediate_size"):
            size = getattr(self, field)
            if size % ALIGNMENT:
                raise ValueError(
                    f"{field} is {size} but grouped products need a multiple of {ALIGNMENT}: "
                    f"use {(size // ALIGNMENT + 1) * ALIGNMENT}"
                )
        if "sliding_attention" not in self.layer_types:
            # Runtimes disagree on what a model without sliding layers means (RoPE everywhere or nowhere).
            raise ValueError(
                f"layer_pattern {self.layer_pattern!r} over num_layers {self.num_layers} has no sliding layer, "
                "which serving runtimes read in different ways: start it with L, for example 'LLLG'"
            )
        return self

    @property
    def layer_types(self) -> tuple[LayerType, ...]:
        """The kind of attention of each layer: the pattern repeated, cut at num_layers."""
        letters = (self.layer_pattern[i % len(self.layer_pattern)] for i in range(self.num_layers))
        return tuple("sliding_attention" if letter == "L" else "full_attention" for letter in letters)

    @property
    def feed_forward_types(self) -> tuple[FeedForwardType, ...]:
        """Dense MLP or sparse experts, for each layer."""
        return tuple("dense" if i < self.dense_layers else "sparse" for i in range(self.num_layers))


def count_parameters(config: ModelConfig, vocabulary_size: int) -> ParameterCount:
    """Exact count of the numbers in `config` with that vocabulary.

    The K-EXAONE release has 236,571,156,352 + 528,513,280 (MTP) at vocabulary 153,600.
    """
    hidden = config.hidden_size
    query_size = config.num_attention_heads * config.head_dim
    key_value_size = config.num_key_value_heads * config.head_dim
    attention_matrices = hidden * (2 * query_size + 2 * key_value_size)
    layer_norms = 2 * hidden + 2 * config.head_dim
    dense = 3 * hidden * config.intermediate_size
    expert = 3 * hidden * config.expert_intermediate_size
    router = hidden * config.num_experts
    selection_bias = config.num_experts
    shared = expert * config.num_shared_experts
    sparse_layers = config.num_layers - config.dense_layers

    head = hidden * vocabulary_size
    embeddings = head if config.tie_embeddings else 2 * head
    main = (
        embeddings
        + hidden  # final norm
        + config.num_layers * (attention_matrices + layer_norms)
        + config.dense_layers * dense
        + sparse_layers * (config.num_experts * expert + shared + router + selection_bias)
    )
    mtp_layer = 2 * hidden * hidden + 3 * hidden + attention_matrices + layer_norms + dense
    active = (
        head
        + config.num_layers * attention_matrices
        + config.dense_layers * dense
        + sparse_layers * (config.experts_per_token * expert + shared + router)
    )
    return ParameterCount(main=main, mtp=config.mtp_layers * mtp_layer, active_per_token=active)


def shortest_pattern(layer_types: list[LayerType]) -> str:
    """The shortest L/G pattern whose repetition, cut to length, gives `layer_types`."""
    letters = "".join(LETTER_OF_LAYER[kind] for kind in layer_types)
    for length in range(1, len(letters)):
        if all(letters[i] == letters[i % length] for i in range(len(letters))):
            return letters[:length]
    return letters
