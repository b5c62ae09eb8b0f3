"""The transformers format, against transformers itself: same logits, same gradients, nothing lost."""

import json
import warnings
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import ExaoneMoeConfig, ExaoneMoeForCausalLM

from pipeline.core.errors import InputError
from trainer import export
from trainer.config import PRESETS, ModelConfig
from trainer.export import export_to_transformers
from trainer.export_config import from_transformers_config
from trainer.imports import import_from_transformers
from trainer.losses import compute_losses
from trainer.model.model import MoEModel, build_model
from trainer.names import disk_tensors


def their_model(folder: Path) -> ExaoneMoeForCausalLM:
    return ExaoneMoeForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def our_logits(model: MoEModel, ids: torch.Tensor) -> torch.Tensor:
    return model.logits(model.eval()(ids, torch.zeros_like(ids)).hidden_BTC)


def token_ids(model: MoEModel, rows: int = 2, tokens: int = 45) -> torch.Tensor:
    return torch.randint(0, model.vocabulary_size, (rows, tokens), generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("is_tied", [False, True])
def test_ours_loaded_there_has_equal_logits(config: ModelConfig, tmp_path: Path, is_tied: bool) -> None:
    config = config.replaced(tie_embeddings=is_tied)
    model = build_model(config, 160, seed=0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(5 if weight.ndim > 1 else 0.8)
        for layer in model.sparse_layers().values():
            layer.router.expert_bias.normal_(0, 0.2, generator=torch.Generator().manual_seed(0))
    export_to_transformers(model, config, None, tmp_path / "out")
    theirs = their_model(tmp_path / "out")
    ids = token_ids(model)
    with torch.no_grad():
        reference = theirs(ids).logits
        assert reference.std() > 0.3
        torch.testing.assert_close(our_logits(model, ids), reference, rtol=0, atol=1e-5)


def test_gradients_are_theirs(model: MoEModel, config: ModelConfig, tmp_path: Path) -> None:
    """Plain next-token loss: transformers has neither the balance loss nor MTP."""
    export_to_transformers(model, config, None, tmp_path / "out")
    theirs = their_model(tmp_path / "out")
    ids = token_ids(model)
    out = compute_losses(model, ids, torch.zeros_like(ids), torch.ones_like(ids, dtype=torch.bool))
    out.main.backward()
    reference = theirs(ids, labels=ids).loss
    reference.backward()
    assert out.main.item() == pytest.approx(reference.item(), rel=1e-5)
    gradient = {name: weight.grad for name, weight in model.named_parameters()}
    attention = theirs.model.layers[2].self_attn
    qkv = torch.cat([attention.q_proj.weight.grad, attention.k_proj.weight.grad, attention.v_proj.weight.grad])
    pairs = [
        (gradient["layers.2.attention.qkv.weight"], qkv),
        (gradient["layers.3.feed_forward.experts.gate_up"], theirs.model.layers[3].mlp.experts.gate_up_proj.grad),
        (gradient["layers.3.feed_forward.experts.down"], theirs.model.layers[3].mlp.experts.down_proj.grad),
        (gradient["layers.1.feed_forward.router.weight"], theirs.model.layers[1].mlp.gate.weight.grad),
        (gradient["layers.0.feed_forward.down.weight"], theirs.model.layers[0].mlp.down_proj.weight.grad),
        (gradient["embedding.weight"], theirs.model.embed_tokens.weight.grad),
        (gradient["head.weight"], theirs.lm_head.weight.grad),
    ]
    for mine, other in pairs:
        assert mine is not None
        assert (mine - other).norm() / other.norm() < 1e-4


def test_theirs_loaded_here_has_equal_logits(tmp_path: Path) -> None:
    theirs_config = ExaoneMoeConfig(
        vocab_size=90,
        hidden_size=48,
        intermediate_size=40,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=16,
        sliding_window=5,
        layer_types=["sliding_attention", "full_attention", "full_attention", "sliding_attention"],
        moe_intermediate_size=24,
        num_experts=5,
        num_experts_per_tok=2,
        num_shared_experts=1,
        first_k_dense_replace=2,
        rope_parameters={"rope_type": "default", "rope_theta": 5e4},
        initializer_range=0.2,
    )
    torch.manual_seed(0)
    theirs = ExaoneMoeForCausalLM(theirs_config).eval()
    with torch.no_grad():
        for layer in theirs.model.layers[2:]:
            layer.mlp.gate.weight.normal_(0, 0.3)
            layer.mlp.gate.e_score_correction_bias.normal_(0, 0.2)
    theirs.save_pretrained(tmp_path / "theirs")
    config, model = import_from_transformers(tmp_path / "theirs")
    assert (config.layer_pattern, config.dense_layers, config.mtp_layers) == ("LGG", 2, 0)
    assert (config.rope_theta, config.window_tokens, config.head_dim) == (5e4, 5, 16)
    ids = token_ids(model)
    with torch.no_grad():
        reference = theirs(ids).logits
        assert reference.std() > 0.3
        torch.testing.assert_close(our_logits(model, ids), reference, rtol=0, atol=1e-5)


def test_every_tensor_survives_there_and_back(model: MoEModel, config: ModelConfig, tmp_path: Path) -> None:
    """Export in shards, import: the same config and bits, MTP and selection biases included."""
    export_to_transformers(model, config, None, tmp_path / "out", shard_bytes=50_000)
    shards = sorted(path.name for path in (tmp_path / "out").glob("*.safetensors"))
    assert len(shards) > 3
    assert shards[0] == f"model-00001-of-{len(shards):05d}.safetensors"
    assert all((tmp_path / "out" / name).stat().st_size < 70_000 for name in shards)
    again_config, again = import_from_transformers(tmp_path / "out")
    assert again_config == config
    assert again.state_dict().keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    names = [tensor.name for tensor in disk_tensors(model)]
    assert len(names) == len(set(names))
    assert len([name for name in names if name.startswith("mtp.")]) == 15
    # All memory of the model is in some tensor of the checkpoint: nothing is exported twice or not at all.
    held = sum(t.numel() for t in model.state_dict().values())
    assert sum(tensor.view.numel() for tensor in disk_tensors(model)) == held
    theirs = their_model(tmp_path / "out")
    assert torch.equal(
        theirs.model.layers[2].mlp.gate.e_score_correction_bias, model.sparse_layers()[2].router.expert_bias
    )


def test_a_bfloat16_model_keeps_float32_biases(model: MoEModel, config: ModelConfig, tmp_path: Path) -> None:
    model.to(torch.bfloat16)
    export_to_transformers(model, config, None, tmp_path / "out")
    stored = load_file(tmp_path / "out" / "model.safetensors")
    assert {name for name, t in stored.items() if t.dtype == torch.float32} == {
        f"model.layers.{i}.mlp.e_score_correction_bias" for i in range(1, 5)
    }
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"
    _, again = import_from_transformers(tmp_path / "out")
    assert again.embedding.weight.dtype == torch.bfloat16
    assert torch.equal(again.sparse_layers()[1].router.expert_bias, model.sparse_layers()[1].router.expert_bias)


@torch.no_grad()
def test_logits_in_bfloat16_are_as_near_to_exact_ones_as_theirs(
    model: MoEModel, config: ModelConfig, tmp_path: Path
) -> None:
    """Both ways: exported and read there, and what they save read here. Exact: float32 sums over the same weights."""
    model.to(torch.bfloat16)
    export_to_transformers(model, config, None, tmp_path / "out")
    theirs = ExaoneMoeForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.bfloat16).eval()
    theirs.save_pretrained(tmp_path / "theirs")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers keeps no MTP tensors
        _, again = import_from_transformers(tmp_path / "theirs")
    ids = token_ids(model)
    exact = their_model(tmp_path / "out")(ids).logits

    def error(logits: torch.Tensor) -> float:
        return float((logits.float() - exact).norm() / exact.norm())

    ours, ours_again = our_logits(model, ids), our_logits(again, ids)
    assert ours.dtype == theirs.dtype == again.embedding.weight.dtype == torch.bfloat16
    assert torch.equal(ours, ours_again)
    assert 0 < error(ours) <= 1.5 * error(theirs(ids).logits) < 0.1, (error(ours), error(theirs(ids).logits))


def test_saving_there_loses_mtp_and_says_so(model: MoEModel, config: ModelConfig, tmp_path: Path) -> None:
    export_to_transformers(model, config, None, tmp_path / "out")
    their_model(tmp_path / "out").save_pretrained(tmp_path / "again")
    with pytest.warns(UserWarning, match="promises MTP"):
        again_config, again = import_from_transformers(tmp_path / "again")
    assert again_config == config.replaced(mtp_layers=0)
    ids = token_ids(model)
    with torch.no_grad():
        assert torch.equal(our_logits(again, ids), our_logits(model, ids))


def test_the_published_config_has_every_key_runtimes_read() -> None:
    special = export.SpecialTokens(pad=0, bos=1, eos=53)
    content = export.to_transformers_config(PRESETS["k-exaone-236b"], 153_600, special, "bfloat16")
    published = {
        "hidden_size": 6144,
        "num_hidden_layers": 48,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "intermediate_size": 18432,
        "moe_intermediate_size": 2048,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "num_shared_experts": 1,
        "vocab_size": 153600,
        "sliding_window": 128,
        "sliding_window_pattern": "LLLG",
        "layer_types": (["sliding_attention"] * 3 + ["full_attention"]) * 12,
        "sliding_windows": [128, 128, 128, 0] * 12,
        "mlp_layer_types": ["dense"] + ["sparse"] * 47,
        "is_moe_layer": [False] + [True] * 47,
        "first_k_dense_replace": 1,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
        "max_position_embeddings": 262144,
        "rms_norm_eps": 1e-5,
        "initializer_range": 0.02,
        "tie_word_embeddings": False,
        "routed_scaling_factor": 2.5,
        "scoring_func": "sigmoid",
        "topk_method": "noaux_tc",
        "num_nextn_predict_layers": 1,
        "mtp_layer_types": ["full_attention"],
        "mtp_sliding_windows": [0],
        "eos_token_id": 53,
    }
    assert {key: content[key] for key in published} == published
    assert ExaoneMoeConfig(**content).layer_types == published["layer_types"]
    assert from_transformers_config(content, True, "here") == (PRESETS["k-exaone-236b"], 153_600)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model_type", "llama", "exaone_moe"),
        ("n_group", 4, "n_group is 4"),
        ("hidden_act", "gelu", "hidden_act"),
        ("rope_parameters", {"rope_type": "yarn", "rope_theta": 1e6}, "yarn"),
        ("layer_types", ["sliding_attention"], "num_hidden_layers = 5"),
        ("mlp_layer_types", ["sparse", "dense", "sparse", "sparse", "sparse"], "dense layers come first"),
        ("num_experts", 7, "experts.6"),
        ("hidden_size", 40, "expected"),
    ],
)
def test_what_cannot_be_imported_is_named(
    model: MoEModel, config: ModelConfig, tmp_path: Path, key: str, value: object, message: str
) -> None:
    export_to_transformers(model, config, None, tmp_path / "out")
    path = tmp_path / "out" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(InputError) as error:
        import_from_transformers(tmp_path / "out")
    assert message in str(error.value)


@pytest.mark.parametrize("lost", ["mtp.fc.weight", "model.layers.2.mlp.e_score_correction_bias"])
def test_a_lost_tensor_is_named(model: MoEModel, config: ModelConfig, tmp_path: Path, lost: str) -> None:
    export_to_transformers(model, config, None, tmp_path / "out")
    path = tmp_path / "out" / "model.safetensors"
    kept = {name: tensor for name, tensor in load_file(path).items() if name != lost}
    save_file(kept, path, {"format": "pt"})
    with pytest.raises(InputError) as error:
        import_from_transformers(tmp_path / "out")
    assert lost in str(error.value)


def test_a_failed_export_leaves_the_old_one(
    model: MoEModel, config: ModelConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_to_transformers(model, config, None, tmp_path / "out")
    before = (tmp_path / "out" / "model.safetensors").read_bytes()

    def disk_full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(export, "save_file", disk_full)
    with pytest.raises(OSError, match="No space"):
        export_to_transformers(build_model(config, 160, seed=5), config, None, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == before


def test_a_bit_lost_on_disk_is_found(
    model: MoEModel, config: ModelConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lossy_save(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str]) -> None:
        wrong = tensors["model.layers.1.mlp.experts.2.up_proj.weight"].clone()
        wrong[0, 0] += 1e-6
        save_file({**tensors, "model.layers.1.mlp.experts.2.up_proj.weight": wrong}, path, metadata)

    monkeypatch.setattr(export, "save_file", lossy_save)
    with pytest.raises(RuntimeError, match=r"experts\.2\.up_proj"):
        export_to_transformers(model, config, None, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_the_tokenizer_comes_along(model: MoEModel, config: ModelConfig, tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoTokenizer

    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1, "[UNK]": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(["<|pad|>", "<|endofturn|>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    template = "{% for message in messages %}{{ message.content }} {% endfor %}"
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    export_to_transformers(model, config, tmp_path / "tokenizer.json", tmp_path / "out")
    loaded = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert loaded("a b a")["input_ids"] == [0, 1, 0]
    assert loaded.eos_token_id == 4
    assert loaded.apply_chat_template([{"role": "user", "content": "a b"}], tokenize=False) == "a b "
    theirs = their_model(tmp_path / "out").config
    assert (theirs.eos_token_id, theirs.pad_token_id, theirs.bos_token_id) == (4, 3, None)
    with pytest.raises(InputError, match=r"tokenizer\.json"):
        export_to_transformers(model, config, tmp_path / "none.json", tmp_path / "out")


def test_the_same_greedy_text_comes_out_there(model: MoEModel, config: ModelConfig, tmp_path: Path) -> None:
    from trainer.generate import generate
    from trainer.sampling import SamplingConfig

    export_to_transformers(model, config, None, tmp_path / "out")
    theirs = their_model(tmp_path / "out")
    prompt = token_ids(model, rows=1, tokens=11)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = theirs.generate(prompt, max_new_tokens=30, do_sample=False, eos_token_id=-1)[0, 11:].tolist()
    assert generate(model, prompt.tolist(), SamplingConfig(max_new_tokens=30))[0].token_ids == expected


DAMAGES = {
    "config cut": ("config.json", lambda data: data[:30], "config.json: not JSON"),
    "config a list": ("config.json", lambda data: b"[1]", "config.json: not a JSON object"),
    "config of no model": (
        "config.json",
        lambda data: data.replace(b'"num_experts": 6', b'"num_experts": 2'),
        "experts_per_token is 3 but num_experts is 2",
    ),
    "index cut": ("model.safetensors.index.json", lambda data: data[:30], "index.json: not JSON"),
    "index empty": ("model.safetensors.index.json", lambda data: b"{}", "index.json: no weight_map"),
    "weights cut": ("model-00001-of-{n}.safetensors", lambda data: data[: len(data) // 2], "unreadable weights"),
    "weights gone": ("model-00002-of-{n}.safetensors", None, "00002-of-.*unreadable weights"),
}


@pytest.mark.parametrize("name", list(DAMAGES))
def test_a_damaged_folder_is_told_by_its_file(model: MoEModel, config: ModelConfig, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "out"
    export_to_transformers(model, config, None, folder, shard_bytes=40_000)
    count = f"{len(list(folder.glob('*.safetensors'))):05d}"
    file, damage, message = DAMAGES[name]
    path = folder / file.format(n=count)
    path.unlink() if damage is None else path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=message):
        import_from_transformers(folder)


def test_an_index_that_names_the_wrong_file(model: MoEModel, config: ModelConfig, tmp_path: Path) -> None:
    export_to_transformers(model, config, None, tmp_path / "out", shard_bytes=40_000)
    path = tmp_path / "out" / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    files = sorted(set(index["weight_map"].values()))
    index["weight_map"]["model.norm.weight"] = files[0]
    path.write_text(json.dumps(index))
    with pytest.raises(InputError, match=r"00001-of-.*1 tensors are not in the file.*model.norm.weight"):
        import_from_transformers(tmp_path / "out")


def test_an_export_without_room_says_so_and_leaves_nothing(
    model: MoEModel, config: ModelConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(export, "save_file", full)
    with pytest.raises(InputError, match="could not be written: .*No space left"):
        export_to_transformers(model, config, None, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
