"""Weights of a transformers `exaone_moe` folder, put into a model that may be spread over processes.

Contract: a folder with a tensor missing, unknown, of another shape or in numbers that float32 does not hold is refused
before any is read; every element of every weight comes from exactly one tensor and is compared with it once it lies in
the model. Each process reads what it has of each weight, and what fails in one fails in all. Training starts with the
weights alone: optimiser state and steps begin anew.
Cost: one read of the process's part; memory of one tensor beside the model.
Source: on-disk layout of transformers 5.23 save_pretrained (safetensors, index of shards).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from pipeline.core.errors import InputError
from trainer.architecture import ModelConfig
from trainer.model.model import MoEModel, build_model
from trainer.names import disk_tensors
from trainer.parallel.ranks import ALONE, Ranks
from trainer.parallel.state import MODEL, model_state
from trainer.transformers_folder import TransformersFolder, check_model, opened, read_folder

# As safetensors spells them: numbers that our float32 weights hold exactly.
EXACT = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


class Part(NamedTuple):
    """A tensor of the folder: the elements from `start` on of one of our weights, as they lie in memory."""

    name: str
    start: int
    shape: tuple[int, ...]


def check_tensors(
    folder: TransformersFolder, config: ModelConfig, vocabulary_size: int
) -> dict[str, list[Part]]:  # fmt: skip
    """The parts of each weight of such a model. Reads the headers of all files.

    Raises `InputError` unless the folder is of this model and has each of its tensors, and no other.
    """
    check_model(folder, config, vocabulary_size)
    parts = _parts(config, vocabulary_size)
    shapes = {part.name: part.shape for own in parts.values() for part in own}
    missing, unknown = sorted(shapes.keys() - folder.file_of_tensor), sorted(folder.file_of_tensor.keys() - shapes)
    if missing or unknown:
        raise InputError(
            f"{len(missing)} tensors are missing {missing[:3]}, {len(unknown)} are unknown {unknown[:3]}",
            where=str(folder.path),
            fix="config.json and the weights must be of the same model",
        )
    for path in folder.files:
        names = sorted(name for name, file in folder.file_of_tensor.items() if file == path.name)
        with opened(path) as file:
            absent = sorted(set(names) - set(file.keys()))
            if absent:
                what = f"{len(absent)} tensors are not in the file that the index names {absent[:3]}"
                raise InputError(what, where=str(path), fix="copy the file and the index again")
            for name in names:
                _check_form(path, name, file.get_slice(name), shapes[name])
    return parts


def load_weights(folder: Path, model: MoEModel, ranks: Ranks = ALONE) -> None:
    """Fill the weights and selection biases of `model`; all processes call it. Raises `InputError` in all of them."""

    def work() -> None:
        found = read_folder(folder)
        parts = check_tensors(found, model.config, model.vocabulary_size)
        with ExitStack() as stack, torch.no_grad():
            file_at = {path.name: stack.enter_context(opened(path, "pt")) for path in found.files}
            for name, tensor in model_state(model, ranks).items():
                _fill(tensor, parts[name.removeprefix(MODEL)], found, file_at)

    ranks.first_judges(work, lambda _: None)


def import_from_transformers(folder: Path) -> tuple[ModelConfig, MoEModel]:
    """Read a checkpoint folder into a new model on the CPU, in the dtype of its embedding.

    Warns when config.json promises MTP layers whose tensors are not there. Raises InputError naming the tensor.
    """
    found = read_folder(folder)
    if found.promises_mtp and not found.config.mtp_layers:
        warnings.warn(f"{folder} promises MTP layers but has no mtp.* tensors: importing without them", stacklevel=2)
    check_tensors(found, found.config, found.vocabulary_size)
    name = "model.embed_tokens.weight"  # of selection biases alone it may be another
    with opened(folder / found.file_of_tensor[name]) as file:
        dtype = EXACT[file.get_slice(name).get_dtype()]
    model = build_model(found.config, found.vocabulary_size, seed=0).to(dtype)
    load_weights(folder, model)
    return found.config, model


def _parts(config: ModelConfig, vocabulary_size: int) -> dict[str, list[Part]]:
    model = build_model(config, vocabulary_size, 0, "meta")
    name_of = {id(weight): name for name, weight in (*model.named_parameters(), *model.named_buffers())}
    parts: dict[str, list[Part]] = {}
    for tensor in disk_tensors(model):
        assert tensor.view.is_contiguous(), tensor.name
        part = Part(tensor.name, int(tensor.view.storage_offset()), tuple(tensor.view.shape))
        parts.setdefault(name_of[id(tensor.weight)], []).append(part)
    if config.tie_embeddings:
        parts["head.weight"] = parts["embedding.weight"]
    return parts


def _check_form(path: Path, name: str, stored: Any, shape: tuple[int, ...]) -> None:
    if tuple(stored.get_shape()) != shape:
        raise InputError(f"{name} is {tuple(stored.get_shape())}", where=str(path), fix=f"expected {shape}")
    if stored.get_dtype() not in EXACT:
        raise InputError(
            f"{name} is {stored.get_dtype()}", where=str(path), fix=f"expected one of {', '.join(EXACT)}: convert it"
        )


def _fill(tensor: Tensor, parts: Sequence[Part], folder: TransformersFolder, file_at: dict[str, Any]) -> None:
    """Of one weight what this process has: whole rows of it."""
    local, first_row = tensor, 0
    if isinstance(tensor, DTensor):
        local = tensor.to_local()
        _, offset = compute_local_shape_and_global_offset(tensor.shape, tensor.device_mesh, tensor.placements)
        first_row = offset[0]
    assert local.is_contiguous()
    start = first_row * prod(tensor.shape[1:])
    end, filled = start + local.numel(), 0
    for name, at, shape in parts:
        begin, stop = max(start, at), min(end, at + prod(shape))
        if begin >= stop:
            continue
        width = prod(shape[1:])
        assert (begin - at) % width == (stop - at) % width == 0, f"{name} is cut across rows"
        read = file_at[folder.file_of_tensor[name]].get_slice(name)[(begin - at) // width : (stop - at) // width]
        if not read.isfinite().all():
            where = str(folder.path / folder.file_of_tensor[name])
            raise InputError(f"{name} has values that are no finite numbers", where=where, fix="copy the file again")
        own = local.view(-1)[begin - start : stop - start].view(read.shape)
        own.copy_(read)
        assert torch.equal(own.cpu().to(read.dtype), read), f"{name} did not survive the import"
        filled += stop - begin
    assert filled == local.numel(), f"{local.numel() - filled} elements come from no tensor"
