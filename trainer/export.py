"""Write a model as a transformers `exaone_moe` checkpoint, and read one.

Contract: the folder appears under its name only when it is complete and every tensor in it has been read back and
found bit-equal; an existing folder is replaced. Multi-token-prediction weights and float32 selection biases are
included. Import refuses a checkpoint with a tensor missing, unknown or of another shape.
Cost: memory of one shard beside the model.
Source: on-disk layout of transformers 5.23 save_pretrained (safetensors, index of shards).
"""

import json
import shutil
import warnings
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pipeline.core.chat import BOS, EOS, PAD
from pipeline.core.errors import InputError
from pipeline.core.files import PARTIAL, atomic_path, list_files, read_json, sync_folder, write_bytes, write_json
from trainer.architecture import ModelConfig
from trainer.export_config import SpecialTokens, from_transformers_config, to_transformers_config
from trainer.model.model import MoEModel, build_model
from trainer.names import DiskTensor, disk_tensors

TOKENIZER_SETTINGS = "tokenizer_config.json"
INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"
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


def import_from_transformers(folder: Path) -> tuple[ModelConfig, MoEModel]:
    """Read a checkpoint folder into a new model on the CPU, in the dtype of its weights.

    Warns when config.json promises MTP layers whose tensors are not there. Raises InputError naming the tensor.
    """
    config_path = folder / "config.json"
    if not config_path.is_file():
        raise InputError("no config.json", where=str(folder), fix="name a folder that save_pretrained wrote")
    content = _read_object(config_path)
    file_of_tensor = _file_of_tensor(folder)
    has_mtp = any(name.startswith("mtp.") for name in file_of_tensor)
    config, vocabulary_size = from_transformers_config(content, has_mtp, str(config_path))
    if content.get("num_nextn_predict_layers", 0) and not has_mtp:
        warnings.warn(f"{folder} promises MTP layers but has no mtp.* tensors: importing without them", stacklevel=2)
    model = build_model(config, vocabulary_size, seed=0)
    model.to(_dtype_of(folder, file_of_tensor))
    expected = {tensor.name: tensor.view for tensor in disk_tensors(model)}
    missing, unknown = sorted(expected.keys() - file_of_tensor.keys()), sorted(file_of_tensor.keys() - expected.keys())
    if missing or unknown:
        raise InputError(
            f"{len(missing)} tensors are missing {missing[:3]}, {len(unknown)} are unknown {unknown[:3]}",
            where=str(folder),
            fix="config.json and the weights must be of the same model",
        )
    with torch.no_grad():
        for name, tensor in _read_tensors(folder, file_of_tensor):
            if tensor.shape != expected[name].shape:
                raise InputError(
                    f"{name} is {tuple(tensor.shape)}", where=str(folder), fix=f"expected {tuple(expected[name].shape)}"
                )
            expected[name].copy_(tensor)
    _check_round_trip(model, folder)
    return config, model


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
    file_of_tensor = _file_of_tensor(folder)
    if views.keys() != file_of_tensor.keys():
        raise RuntimeError(f"{folder}: tensors differ: {sorted(views.keys() ^ file_of_tensor.keys())[:5]}")
    for name, tensor in _read_tensors(folder, file_of_tensor):
        if not torch.equal(tensor.to(views[name].dtype), views[name].cpu()):
            raise RuntimeError(f"{folder}: {name} did not survive the round trip")


def _file_of_tensor(folder: Path) -> dict[str, str]:
    """Tensor name -> file name, from the index or from the single file."""
    if (folder / INDEX_NAME).is_file():
        found = _read_object(folder / INDEX_NAME).get("weight_map")
        if not isinstance(found, dict):
            raise InputError("no weight_map", where=str(folder / INDEX_NAME), fix="copy the index again")
        return {str(name): str(file) for name, file in found.items()}
    if not (folder / SINGLE_NAME).is_file():
        found = [path.name for path in list_files(folder)] if folder.is_dir() else []
        raise InputError(f"neither {SINGLE_NAME} nor {INDEX_NAME}", where=str(folder), fix=f"found only {found}")
    with _opened(folder / SINGLE_NAME) as file:
        return dict.fromkeys(file.keys(), SINGLE_NAME)


def _read_tensors(folder: Path, file_of_tensor: dict[str, str]) -> Iterator[tuple[str, Tensor]]:
    for file_name in sorted(set(file_of_tensor.values())):
        with _opened(folder / file_name) as file:
            names = sorted(name for name, where in file_of_tensor.items() if where == file_name)
            missing = sorted(set(names) - set(file.keys()))
            if missing:
                what = f"{len(missing)} tensors are not in the file that the index names {missing[:3]}"
                raise InputError(what, where=str(folder / file_name), fix="copy the file and the index again")
            for name in names:
                yield name, file.get_tensor(name)


def _read_object(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path)
    except ValueError as error:
        raise InputError(f"not JSON: {error}", where=str(path), fix="copy the file again") from error
    if not isinstance(content, dict):
        raise InputError("not a JSON object", where=str(path), fix="copy the file again")
    return content


@contextmanager
def _opened(path: Path) -> Generator[Any]:
    """A safetensors file. Raises `InputError` where there is none, or it is cut or damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (FileNotFoundError, SafetensorError) as error:
        raise InputError(f"unreadable weights: {error}", where=str(path), fix="copy the file again") from error


def _dtype_of(folder: Path, file_of_tensor: dict[str, str]) -> torch.dtype:
    """The dtype of the embedding, which every weight but the selection biases shares."""
    name = "model.embed_tokens.weight"
    if name not in file_of_tensor:
        raise InputError(f"{name} is missing", where=str(folder), fix="export the whole model")
    with _opened(folder / file_of_tensor[name]) as file:
        if name not in file.keys():  # noqa: SIM118 - no mapping
            raise InputError(f"{name} is missing", where=str(folder), fix="export the whole model")
        return file.get_tensor(name).dtype


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
