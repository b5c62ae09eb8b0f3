"""The names of our weights in the transformers `exaone_moe` checkpoint format, as views of the model's memory.

Contract: one walk over the model serves export (read the views), import (where in a weight each view lies) and the
check after either; a weight that is stored fused gives one view a part. Names are those on disk, which differ from
transformers' names in memory: an expert each, and the selection bias directly under `mlp`.
Source: save_pretrained of transformers 5.23 `exaone_moe`; `mtp.*` as in the released K-EXAONE checkpoint.
"""

from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor

from trainer.model.attention import Attention
from trainer.model.block import Block
from trainer.model.linear import MLP
from trainer.model.model import MoEModel
from trainer.model.moe import MoE


class DiskTensor(NamedTuple):
    name: str
    view: Tensor  # detached, of the model's own memory: consecutive elements of `weight`
    weight: Tensor  # the model's own parameter or buffer


def disk_tensors(model: MoEModel) -> Iterator[DiskTensor]:
    """Every tensor of the checkpoint, in a fixed order. A tied head is left out, as transformers does."""
    yield _whole("model.embed_tokens.weight", model.embedding.weight)
    for index, block in enumerate(model.layers):
        assert isinstance(block, Block)
        yield from _block(f"model.layers.{index}.", block)
    yield _whole("model.norm.weight", model.norm.weight)
    if not model.config.tie_embeddings:
        yield _whole("lm_head.weight", model.head.weight)
    if model.mtp is not None:
        yield _whole("mtp.pre_fc_norm_embedding.weight", model.mtp.embedding_norm.weight)
        yield _whole("mtp.pre_fc_norm_hidden.weight", model.mtp.hidden_norm.weight)
        yield _whole("mtp.fc.weight", model.mtp.projection.weight)
        yield from _block("mtp.layers.0.", model.mtp.block)
        yield _whole("mtp.norm.weight", model.mtp.norm.weight)


def _whole(name: str, weight: Tensor) -> DiskTensor:
    return DiskTensor(name, weight.detach(), weight)


def _block(prefix: str, block: Block) -> Iterator[DiskTensor]:
    yield _whole(f"{prefix}input_layernorm.weight", block.attention_norm.weight)
    yield from _attention(f"{prefix}self_attn.", block.attention)
    yield _whole(f"{prefix}post_attention_layernorm.weight", block.feed_forward_norm.weight)
    if isinstance(block.feed_forward, MLP):
        yield from _mlp(f"{prefix}mlp.", block.feed_forward)
    else:
        yield from _moe(f"{prefix}mlp.", block.feed_forward)


def _attention(prefix: str, attention: Attention) -> Iterator[DiskTensor]:
    parts = attention.qkv.weight.detach().split(attention.qkv.fused_rows["weight"])
    for name, part in zip(("q_proj", "k_proj", "v_proj"), parts, strict=True):
        yield DiskTensor(f"{prefix}{name}.weight", part, attention.qkv.weight)
    yield _whole(f"{prefix}o_proj.weight", attention.output.weight)
    yield _whole(f"{prefix}q_norm.weight", attention.query_norm.weight)
    yield _whole(f"{prefix}k_norm.weight", attention.key_norm.weight)


def _mlp(prefix: str, mlp: MLP) -> Iterator[DiskTensor]:
    gate, up = mlp.gate_up.weight.detach().chunk(2)
    yield DiskTensor(f"{prefix}gate_proj.weight", gate, mlp.gate_up.weight)
    yield DiskTensor(f"{prefix}up_proj.weight", up, mlp.gate_up.weight)
    yield _whole(f"{prefix}down_proj.weight", mlp.down.weight)


def _moe(prefix: str, moe: MoE) -> Iterator[DiskTensor]:
    yield _whole(f"{prefix}gate.weight", moe.router.weight)
    yield _whole(f"{prefix}e_score_correction_bias", moe.router.expert_bias)
    experts = zip(moe.experts.gate_up.detach().unbind(0), moe.experts.down.detach().unbind(0), strict=True)
    for index, (gate_up, down) in enumerate(experts):
        gate, up = gate_up.chunk(2)
        yield DiskTensor(f"{prefix}experts.{index}.gate_proj.weight", gate, moe.experts.gate_up)
        yield DiskTensor(f"{prefix}experts.{index}.up_proj.weight", up, moe.experts.gate_up)
        yield DiskTensor(f"{prefix}experts.{index}.down_proj.weight", down, moe.experts.down)
    yield from _mlp(f"{prefix}shared_experts.", moe.shared)
