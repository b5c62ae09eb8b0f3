"""Our architecture to and from the config.json of a transformers `exaone_moe` checkpoint.

Contract: exact both ways for what that format can say; what our trainer cannot run is an error that names the key.
Traps of the format, all handled here: layer_types must be explicit (a pattern string alone crashes), head_dim is not
a declared field, sliding_window must be a number, vLLM reads `sliding_windows` and `mtp_*`, SGLang `is_moe_layer`.
Source: transformers 5.23 configuration_exaone_moe.py; the released config.json of K-EXAONE-236B-A23B.
"""

from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from pipeline.core.errors import InputError
from trainer.architecture import ModelConfig, shortest_pattern

ARCHITECTURE = "ExaoneMoeForCausalLM"
MODEL_TYPE = "exaone_moe"

# Keys of config.json that are our fields under another name.
FIELD_OF_KEY = {
    "hidden_size": "hidden_size",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_attention_heads",
    "num_key_value_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "sliding_window": "window_tokens",
    "intermediate_size": "intermediate_size",
    "num_experts": "num_experts",
    "num_experts_per_tok": "experts_per_token",
    "num_shared_experts": "num_shared_experts",
    "moe_intermediate_size": "expert_intermediate_size",
    "routed_scaling_factor": "routed_scaling",
    "rms_norm_eps": "rms_norm_eps",
    "tie_word_embeddings": "tie_embeddings",
    "initializer_range": "initializer_range",
    "max_position_embeddings": "max_context_tokens",
    "mtp_loss_scaling_factor": "mtp_loss",
    # Nothing reads these two; they make the round trip exact.
    "router_aux_loss_coef": "balance_loss",
    "router_bias_update_rate": "expert_bias_rate",
}
# Keys of config.json that have one value in every model of ours; a checkpoint with another is refused.
FIXED = {
    "hidden_act": "silu",
    "attention_dropout": 0.0,
    "norm_topk_prob": True,
    "n_group": 1,
    "topk_group": 1,
    "scoring_func": "sigmoid",
    "topk_method": "noaux_tc",
}
REQUIRED = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "layer_types")


@dataclass(frozen=True)
class SpecialTokens:
    """Ids the format wants in its config; None where the tokenizer has no such token."""

    pad: int | None = None
    bos: int | None = None
    eos: int | None = None


def to_transformers_config(
    config: ModelConfig, vocabulary_size: int, special_tokens: SpecialTokens, dtype_name: str
) -> dict[str, Any]:
    """The content of config.json."""
    windows = [config.window_tokens if kind == "sliding_attention" else 0 for kind in config.layer_types]
    mtp = {
        "num_nextn_predict_layers": config.mtp_layers,
        "mtp_layer_types": ["full_attention"] * config.mtp_layers,
        "mtp_sliding_windows": [0] * config.mtp_layers,
        "mtp_share_layers": False,
    }
    return {
        "architectures": [ARCHITECTURE],
        "model_type": MODEL_TYPE,
        "dtype": dtype_name,
        "vocab_size": vocabulary_size,
        **{key: getattr(config, field) for key, field in FIELD_OF_KEY.items()},
        **FIXED,
        "layer_types": list(config.layer_types),
        "sliding_window_pattern": config.layer_pattern,
        "sliding_windows": windows,
        "mlp_layer_types": list(config.feed_forward_types),
        "first_k_dense_replace": config.dense_layers,
        "first_last_k_dense_replace": config.dense_layers,
        "is_moe_layer": [kind == "sparse" for kind in config.feed_forward_types],
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "use_cache": True,
        "pad_token_id": special_tokens.pad,
        "bos_token_id": special_tokens.bos,
        "eos_token_id": special_tokens.eos,
        **mtp,
    }


def from_transformers_config(content: dict[str, Any], has_mtp: bool, where: str) -> tuple[ModelConfig, int]:
    """Our config and the vocabulary size.

    `has_mtp` says whether the checkpoint holds `mtp.*` tensors: transformers drops them when it saves, and keeps the
    config's word for them. Coefficients the format does not know get our defaults. Raises InputError.
    """
    try:
        return _converted(content, has_mtp, where)
    except InputError:
        raise
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        said = f"{field}: {first['msg']}" if field else first["msg"]
        raise InputError(said, where=where, fix="only models that this trainer can run can be imported") from error
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        said = f"a value that no model has: {type(error).__name__}: {error}"
        raise InputError(said, where=where, fix="compare it with what save_pretrained or export wrote") from error


def _converted(content: dict[str, Any], has_mtp: bool, where: str) -> tuple[ModelConfig, int]:
    _check(content, where)
    layers = int(content["num_hidden_layers"])
    feed_forward_types = _feed_forward_types(content, layers)
    dense_layers = feed_forward_types.count("dense")
    if feed_forward_types != ["dense"] * dense_layers + ["sparse"] * (layers - dense_layers):
        raise InputError(
            f"mlp_layer_types {feed_forward_types} has a dense layer after a sparse one",
            where=where,
            fix="only models whose dense layers come first can be imported",
        )
    values = {field: content[key] for key, field in FIELD_OF_KEY.items() if key in content}
    # head_dim is no declared field of the format: where it is missing, heads divide the width.
    values.setdefault("head_dim", int(content["hidden_size"]) // int(content["num_attention_heads"]))
    config = ModelConfig(
        **values,
        layer_pattern=shortest_pattern(content["layer_types"]),
        dense_layers=dense_layers,
        rope_theta=float(_rope(content)["rope_theta"]),
        mtp_layers=int(has_mtp),
    )
    return config, int(content["vocab_size"])


def _check(content: dict[str, Any], where: str) -> None:
    if content.get("model_type") != MODEL_TYPE:
        raise InputError(f"model_type is {content.get('model_type')!r}", where=where, fix=f"use {MODEL_TYPE!r}")
    missing = [key for key in REQUIRED if key not in content]
    if missing:
        raise InputError(f"config.json lacks {', '.join(missing)}", where=where, fix="write them out")
    for key, value in FIXED.items():
        if content.get(key, value) != value:
            raise InputError(f"{key} is {content[key]!r}", where=where, fix=f"only {value!r} can be imported")
    rope = _rope(content)
    if rope.get("rope_type", "default") != "default":
        raise InputError(f"rope_type is {rope['rope_type']!r}", where=where, fix="only 'default' can be imported")
    if len(content["layer_types"]) != content["num_hidden_layers"]:
        raise InputError(
            f"layer_types names {len(content['layer_types'])} layers",
            where=where,
            fix=f"name num_hidden_layers = {content['num_hidden_layers']} of them",
        )


def _rope(content: dict[str, Any]) -> dict[str, Any]:
    """RoPE's parameters; older checkpoints have them as rope_theta and rope_scaling."""
    if content.get("rope_parameters"):
        return {"rope_theta": content.get("rope_theta"), **content["rope_parameters"]}
    return {"rope_theta": content.get("rope_theta", 10_000.0), **(content.get("rope_scaling") or {})}


def _feed_forward_types(content: dict[str, Any], layers: int) -> list[str]:
    """mlp_layer_types, or what its older spellings say."""
    if content.get("mlp_layer_types"):
        return list(content["mlp_layer_types"])
    dense = int(content.get("first_k_dense_replace", content.get("first_last_k_dense_replace", 1)))
    return ["dense"] * dense + ["sparse"] * (layers - dense)
