"""Write a model as a transformers `exaone_moe` checkpoint; `trainer.imports` reads one.

Contract: the folder appears under its name only when it is complete and every tensor in it has been read back and
found bit-equal; an existing folder is replaced. Multi-token-prediction weights and float32 selection biases are
included.
Cost: memory of one shard beside the model.
Source: on-disk layout of transformers 5.23 save_pretrained (safetensors, index of shards).
"""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from pipeline.core.chat import BOS, EOS, PAD
from pipeline.core.errors import InputError
from pipeline.core.files import PARTIAL, atomic_path, read_json, sync_folder, write_bytes, write_json
from trainer.architecture import ModelConfig
from trainer.export_config import SpecialTokens, to_transformers_config
from trainer.model.model import MoEModel
from trainer.names import DiskTensor, disk_tensors
from trainer.transformers_folder import INDEX_NAME, SINGLE_NAME, opened, read_folder

TOKENIZER_SETTINGS = "tokenizer_config.json"
DEFAULT_SHARD_BYTES = 5_000_000_000
METADATA = {"format": "pt"}  # transformers refuses files without it
SPECIAL_TOKENS = {"pad": PAD, "bos": BOS, "eos": EOS}


def export_to_transformers(
    model: MoEModel,
    config: ModelConfig,
    tokenizer_path: Path | None,
    out_dir: Path,
    shard_bytes: int = DEFAULT_SHARD_BYTES,
) -> None:
    """Write config.json, safetensors and, given a tokenizer.json, the tokenizer files to `out_dir`.

    Weights keep the model's dtype, selection biases float32. Raises InputError when `tokenizer_path` is missing or
    `config` is not the model's.
    """
    if config != model.config:
        raise InputError("the config is not that of the model", where=str(out_dir), fix="export with the model's own")
    if tokenizer_path is not None and not tokenizer_path.is_file():
        raise InputError("no such tokenizer", where=str(tokenizer_path), fix="name a tokenizer.json")
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    partial = out_dir.with_name(f"{PARTIAL}{out_dir.name}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        special_tokens = _write_tokenizer(tokenizer_path, config.max_context_tokens, partial)
        dtype_name = str(model.embedding.weight.dtype).removeprefix("torch.")
        content = to_transformers_config(config, model.vocabulary_size, special_tokens, dtype_name)
        write_json(partial / "config.json", content)
        generation = {"pad": special_tokens.pad, "bos": special_tokens.bos, "eos": special_tokens.eos}
        write_json(
            partial / "generation_config.json", {f"{k}_token_id": v for k, v in generation.items() if v is not None}
        )
        _write_weights(model, partial, shard_bytes)
        _check_round_trip(model, partial)
        sync_folder(partial)
        shutil.rmtree(out_dir, ignore_errors=True)
        partial.rename(out_dir)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    sync_folder(out_dir.parent)


def _write_weights(model: MoEModel, folder: Path, shard_bytes: int) -> None:
    """One safetensors file, or numbered shards with an index when the weights are larger than `shard_bytes`."""
    shards = _shards(model, shard_bytes)
    names = (
        [SINGLE_NAME]
        if len(shards) == 1
        else [f"model-{number:05d}-of-{len(shards):05d}.safetensors" for number in range(1, len(shards) + 1)]
    )
    weight_map: dict[str, str] = {}
    total_bytes = 0
    for file_name, shard in zip(names, shards, strict=True):
        with atomic_path(folder / file_name) as whole:
            _save(whole, shard)
        weight_map |= {tensor.name: file_name for tensor in shard}
        total_bytes += sum(tensor.view.nbytes for tensor in shard)
    if len(shards) > 1:
        write_json(folder / INDEX_NAME, {"metadata": {"total_size": total_bytes}, "weight_map": weight_map})


def _save(path: Path, shard: list[DiskTensor]) -> None:
    """Raises `InputError` when there is no room: the library's own error hides what the system said."""
    try:
        save_file({tensor.name: tensor.view.cpu().contiguous() for tensor in shard}, path, METADATA)
    except SafetensorError as error:
        raise InputError(
            f"weights could not be written: {error}",
            where=str(path.parent),
            fix="make room or mend the disk, then export again",
        ) from error


def _shards(model: MoEModel, shard_bytes: int) -> list[list[DiskTensor]]:
    """Tensors in order, as many to a shard as fit; one larger than a shard has its own."""
    shards: list[list[DiskTensor]] = [[]]
    used_bytes = 0
    for tensor in disk_tensors(model):
        if shards[-1] and used_bytes + tensor.view.nbytes > shard_bytes:
            shards.append([])
            used_bytes = 0
        shards[-1].append(tensor)
        used_bytes += tensor.view.nbytes
    return shards


def _check_round_trip(model: MoEModel, folder: Path) -> None:
    """Read every tensor back and compare its bits. Raises RuntimeError: a mismatch is never the user's doing."""
    views = {tensor.name: tensor.view for tensor in disk_tensors(model)}
    written = read_folder(folder)
    if views.keys() != written.file_of_tensor.keys():
        raise RuntimeError(f"{folder}: tensors differ: {sorted(views.keys() ^ written.file_of_tensor.keys())[:5]}")
    for path in written.files:
        with opened(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 - no mapping
                if not torch.equal(file.get_tensor(name), views[name].cpu()):
                    raise RuntimeError(f"{folder}: {name} did not survive the round trip")


def _write_tokenizer(tokenizer_path: Path | None, max_context_tokens: int, folder: Path) -> SpecialTokens:
    """Copy tokenizer.json, describe it for AutoTokenizer as the settings beside it do, and return its special ids."""
    if tokenizer_path is None:
        return SpecialTokens()
    write_bytes(folder / "tokenizer.json", tokenizer_path.read_bytes())
    added: list[dict[str, Any]] = json.loads(tokenizer_path.read_text(encoding="utf-8")).get("added_tokens", [])
    id_of = {token["content"]: int(token["id"]) for token in added}
    found = {role: token for role, token in SPECIAL_TOKENS.items() if token in id_of}
    beside = tokenizer_path.with_name(TOKENIZER_SETTINGS)  # it holds the chat template, which servers need
    settings: dict[str, Any] = {
        **(read_json(beside) if beside.is_file() else {}),
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_context_tokens,
        "clean_up_tokenization_spaces": False,
        **{f"{role}_token": token for role, token in found.items()},
    }
    write_json(folder / TOKENIZER_SETTINGS, settings)
    return SpecialTokens(**{role: id_of[token] for role, token in found.items()})
