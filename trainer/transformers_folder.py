"""A transformers `exaone_moe` folder, as far as it can be told without torch: what it is of, and where its tensors lie.

Contract: reads config.json, the index of shards and tokenizer.json, no weights, and no torch, so that a curriculum that
starts from such a folder is planned as quickly as any. Everything that does not fit is an `InputError` that names the
file and both values.
Source: on-disk layout of transformers 5.23 save_pretrained.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tokenizers
from safetensors import SafetensorError, safe_open

from pipeline.core.errors import InputError
from pipeline.core.files import list_files, read_json
from trainer.architecture import ModelConfig
from trainer.export_config import from_transformers_config

CONFIG_NAME = "config.json"
TOKENIZER_NAME = "tokenizer.json"
INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"
# Fields that no weight knows of: a curriculum may give others than the folder's.
FREE_FIELDS = frozenset(
    {"initializer_range", "max_context_tokens", "balance_loss", "expert_bias_rate", "mtp_loss", "z_loss"}
)


@dataclass(frozen=True)
class TransformersFolder:
    """What a folder says of itself."""

    path: Path
    config: ModelConfig  # without an MTP layer where there are no tensors of one
    vocabulary_size: int
    file_of_tensor: Mapping[str, str]
    promises_mtp: bool  # config.json names MTP layers, whether or not they are there

    @property
    def promised(self) -> ModelConfig:
        """What config.json says, whether or not the tensors of an MTP layer are there."""
        return self.config.replaced(mtp_layers=int(self.promises_mtp or self.config.mtp_layers))

    @property
    def files(self) -> list[Path]:
        """Those that hold tensors, by name."""
        return [self.path / name for name in sorted(set(self.file_of_tensor.values()))]


def read_folder(path: Path) -> TransformersFolder:
    """Raises `InputError` when it is no folder of a model that this trainer can run."""
    config_path = path / CONFIG_NAME
    if not config_path.is_file():
        raise InputError(
            "no config.json", where=str(path), fix="name a folder on this machine that save_pretrained or export wrote"
        )
    content = _read_object(config_path)
    file_of_tensor = _file_of_tensor(path)
    has_mtp = any(name.startswith("mtp.") for name in file_of_tensor)
    config, vocabulary_size = from_transformers_config(content, has_mtp, str(config_path))
    return TransformersFolder(
        path, config, vocabulary_size, file_of_tensor, bool(content.get("num_nextn_predict_layers", 0))
    )


def check_model(folder: TransformersFolder, config: ModelConfig, vocabulary_size: int) -> None:
    """Raises `InputError` unless the weights are those of `config` at this vocabulary.

    A folder that has lost its MTP tensors, as transformers' own save_pretrained does, is taken only for a model that
    is meant to have none.
    """
    where = str(folder.path / CONFIG_NAME)
    if folder.vocabulary_size != vocabulary_size:
        raise InputError(
            f"`vocab_size` is {folder.vocabulary_size:,}, the tokenizer has {vocabulary_size:,} tokens",
            where=where,
            fix="use the tokenizer that the model was trained with",
        )
    names = [name for name in ModelConfig.model_fields if name not in FREE_FIELDS | {"layer_pattern"}]
    for name in [*names, "layer_types"]:  # of patterns, those that give the same layers are the same
        there, here = getattr(folder.config, name), getattr(config, name)
        if there == here:
            continue
        if here and name == "mtp_layers":
            found = "config.json promises it, but the folder" if folder.promises_mtp else "the folder"
            raise InputError(
                f"the model has an MTP layer, {found} has no mtp.* tensors",
                where=where,
                fix="set model.mtp_layers to 0, or use a folder with them: transformers drops them when it saves",
            )
        raise InputError(
            f"`{name}` is {there!r} in this folder, {here!r} in the curriculum's model",
            where=where,
            fix=f"leave out model.{'layer_pattern' if name == 'layer_types' else name}: the folder has its own",
        )


def check_tokenizer(folder: TransformersFolder, path: Path) -> None:
    """Raises `InputError` unless the tokenizer at `path` is the folder's own, where it has one.

    Compared are ids, merges, and how text is normalised and cut.
    """
    own = folder.path / TOKENIZER_NAME
    if not own.is_file() or own.read_bytes() == path.read_bytes():
        return
    there, here = _tokenizer(own), _tokenizer(path)
    token_at = [{at: token for token, at in each.get_vocab(with_added_tokens=True).items()} for each in (there, here)]
    what = ""
    for at in sorted(token_at[0].keys() | token_at[1].keys()):
        if token_at[0].get(at) != token_at[1].get(at):
            what = f"token {at} is {token_at[1].get(at)!r}, in {own} it is {token_at[0].get(at)!r}"
            break
    else:
        parts = [json.loads(each.to_str()) for each in (there, here)]
        merges = [part["model"].get("merges") for part in parts]
        what = f"the merges are not those of {own}" if merges[0] != merges[1] else ""
        for name in ("normalizer", "pre_tokenizer"):
            if parts[0].get(name) != parts[1].get(name):
                what = f"the {name} is not that of {own}"
    if what:
        raise InputError(what, where=str(path), fix=f"set tokenizer.path to {own}")


@contextmanager
def opened(path: Path, framework: Literal["pt", "np"] = "np") -> Generator[Any]:
    """A safetensors file; "np" reads names and shapes without torch.

    Raises `InputError` where there is none, or it is cut or damaged.
    """
    try:
        with safe_open(path, framework=framework) as file:
            yield file
    except (OSError, SafetensorError) as error:
        raise InputError(f"unreadable weights: {error}", where=str(path), fix="copy the file again") from error


def _tokenizer(path: Path) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception
        raise InputError(f"not a tokenizer.json: {error}", where=str(path), fix="copy the file again") from None


def _file_of_tensor(folder: Path) -> dict[str, str]:
    """Tensor name -> file name, from the single file or from the index: transformers looks in this order."""
    if (folder / SINGLE_NAME).is_file():
        with opened(folder / SINGLE_NAME) as file:
            return dict.fromkeys(file.keys(), SINGLE_NAME)
    if (folder / INDEX_NAME).is_file():
        found = _read_object(folder / INDEX_NAME).get("weight_map")
        if not isinstance(found, dict):
            raise InputError("no weight_map", where=str(folder / INDEX_NAME), fix="copy the index again")
        absent = [name for name in sorted({str(file) for file in found.values()}) if not (folder / name).is_file()]
        if absent:
            raise InputError(
                "unreadable weights: the index names it, there is none", where=str(folder / absent[0]), fix="copy it"
            )
        return {str(name): str(file) for name, file in found.items()}
    there = [path.name for path in list_files(folder)]
    raise InputError(f"neither {SINGLE_NAME} nor {INDEX_NAME}", where=str(folder), fix=f"found only {there}")


def _read_object(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path)
    except ValueError as error:
        raise InputError(f"not JSON: {error}", where=str(path), fix="copy the file again") from error
    if not isinstance(content, dict):
        raise InputError("not a JSON object", where=str(path), fix="copy the file again")
    return content
