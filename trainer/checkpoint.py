"""Checkpoints: everything a phase needs to go on as if it had never stopped (contract 4, version 1).

`FOLDER/checkpoints/step-00000042/`
  `.metadata`, `*.distcp`   a torch DCP directory: `model.NAME`, `optimizer.PATH` and `rng.cpu` tensors
  `checkpoint.json`         written last: `CheckpointInfo`, with the tree of what is not a tensor and a hash per tensor

Contract: written under a temporary name, read back and compared tensor by tensor, fsynced, then renamed; a folder
under a final name is whole. The same state gives the same bytes on disk. Nothing in it is unpickled but DCP's own
metadata. Cost: one write and one read of the state, memory for one copy of it.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import xxhash
from torch import Tensor
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import StorageMeta, TensorStorageMetadata

from pipeline.core.errors import InputError
from pipeline.core.files import PARTIAL, read_json, sync_folder, write_json
from pipeline.core.plans import Plan

CHECKPOINT_VERSION = 1
CHECKPOINT = "checkpoint.json"
CHECKPOINTS = "checkpoints"
STEP_NAME = "step-{step:08d}"

Tree = dict[str, Any] | list[Any] | str | int | float | bool | None


@dataclass(frozen=True)
class CheckpointInfo:
    """Where the run stands. Counts run over the whole curriculum unless they say otherwise."""

    phase: str
    step: int  # updates done in this phase
    position: int  # plan rows consumed
    tokens: int  # real tokens consumed
    plan: str  # fingerprint of the segment consumed last
    seed: int
    model: Mapping[str, Any]  # ModelConfig
    vocabulary_size: int
    tokenizer: str  # fingerprint
    parent: str  # identity of the checkpoint this phase began with, empty for the first phase
    ends_segment: bool = False  # the segment's last row is consumed
    optimizer: Tree = None  # the optimiser's state with every tensor replaced by its place in the DCP directory
    tensors: Mapping[str, str] = field(default_factory=dict)  # name -> xxh3-128 of dtype, shape and bytes
    version: int = CHECKPOINT_VERSION

    @property
    def identity(self) -> str:
        """Equal for equal state: a hash over all tensors and the place in the plan."""
        digest = xxhash.xxh3_128(f"{self.plan} {self.position} {self.step}".encode())
        for name in sorted(self.tensors):
            digest.update(f"{name} {self.tensors[name]}".encode())
        return digest.hexdigest()

    def started(self, phase: str) -> CheckpointInfo:
        """The same place at the start of the next phase."""
        return replace(self, phase=phase, step=0, parent=self.identity, ends_segment=False)

    def advanced(self, rows: int, tokens: int, plan: str, end: int) -> CheckpointInfo:
        """After one more update of a segment that ends before row `end`."""
        position = self.position + rows
        assert position <= end, (position, end)
        return replace(
            self, step=self.step + 1, position=position, tokens=self.tokens + tokens, plan=plan,
            ends_segment=position == end,
        )  # fmt: skip


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint."""

    info: CheckpointInfo
    model: dict[str, Tensor]
    optimizer: Any  # as the optimiser's state_dict gave it
    rng: Tensor


class _Writer(FileSystemWriter):
    """DCP's writer without its random save id and absolute path, so that equal states are equal bytes."""

    def storage_meta(self) -> StorageMeta:
        return StorageMeta(checkpoint_id="", save_id="")


def save(folder: Path, info: CheckpointInfo, model: Mapping[str, Tensor], optimizer: Any, *, keep: int) -> Path:
    """Write the checkpoint of `info.step` below `folder`, then remove the older ones.

    Args:
        folder: The phase's folder.
        info: `tensors` and `optimizer` are filled in here.
        model: Named weights and persistent buffers: experts, selection biases and MTP included.
        optimizer: A `state_dict` of dicts, lists, plain values and tensors.
        keep: How many of the newest stay, at least 1; those that end a segment always stay.

    Returns its folder. Raises AssertionError when what was written does not read back bit for bit.
    """
    assert keep >= 1, keep
    tensors: dict[str, Tensor] = {f"model.{name}": tensor.detach() for name, tensor in model.items()}
    tree = _split(optimizer, "optimizer", tensors)
    tensors["rng.cpu"] = torch.get_rng_state()
    place = checkpoint_place(folder, info.step)
    partial = place.with_name(f"{PARTIAL}{place.name}")
    for leftover in (partial, place):  # of a killed save, or of a step that is trained again
        shutil.rmtree(leftover, ignore_errors=True)
    partial.mkdir(parents=True)
    writer = _Writer(partial, sync_files=True)
    with _without_group():
        state_dict_saver.save(dict(sorted(tensors.items())), storage_writer=writer, no_dist=True)
    hashes = {name: tensor_hash(tensor) for name, tensor in tensors.items()}
    _assert_round_trip(partial, hashes)
    write_json(partial / CHECKPOINT, asdict(replace(info, optimizer=tree, tensors=hashes)))
    sync_folder(partial)
    partial.rename(place)
    sync_folder(place.parent)
    for old in checkpoints(folder)[:-keep]:
        if not read_info(old).ends_segment:
            shutil.rmtree(old)
    return place


def checkpoint_place(folder: Path, step: int) -> Path:
    """Where the checkpoint after `step` is."""
    return folder / CHECKPOINTS / STEP_NAME.format(step=step)


def checkpoints(folder: Path) -> list[Path]:
    """The finished checkpoints of a phase, oldest first."""
    found = (folder / CHECKPOINTS).glob("step-*")
    return sorted(path for path in found if (path / CHECKPOINT).is_file())


def latest(folder: Path) -> Path | None:
    """The newest finished checkpoint of a phase."""
    found = checkpoints(folder)
    return found[-1] if found else None


def read_info(place: Path) -> CheckpointInfo:
    """Raises `InputError` when there is no finished checkpoint or it has another version."""
    path = place / CHECKPOINT
    if not path.is_file():
        raise InputError("not a checkpoint: no checkpoint.json", where=str(place), fix="name a step-… folder")
    stored = read_json(path)
    if stored.get("version") != CHECKPOINT_VERSION:
        raise InputError(
            f"checkpoint version {stored.get('version')}, this program reads {CHECKPOINT_VERSION}", where=str(path)
        )
    return CheckpointInfo(**stored)


def load(place: Path) -> Checkpoint:
    """Read a whole checkpoint. Raises `InputError` when a file is missing or a tensor is not what was saved."""
    info = read_info(place)
    tensors = _read_tensors(place)
    for name, expected in sorted(info.tensors.items()):
        if name not in tensors or tensor_hash(tensors[name]) != expected:
            state = "changed" if name in tensors else "missing"
            raise InputError(
                f"tensor `{name}` is {state}", where=str(place), fix="remove this folder to go on from an older one"
            )
    prefix = "model."
    model = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    return Checkpoint(info, model, _join(info.optimizer, tensors), tensors["rng.cpu"])


def check_fits(info: CheckpointInfo, where: Path, plan: Plan, run: CheckpointInfo) -> None:
    """Raises `InputError` naming the field in which the checkpoint and this run differ.

    `run` is what the run would start with: its tokenizer, vocabulary and model are compared.
    """
    if info.tokenizer != run.tokenizer:
        raise InputError(
            f"`tokenizer` differs: the checkpoint was trained with {info.tokenizer[:8]}, "
            f"this run has {run.tokenizer[:8]}",
            where=str(where),
            fix="use the checkpoint's tokenizer or start from another checkpoint",
        )
    if info.vocabulary_size != run.vocabulary_size:
        raise InputError(
            f"`vocabulary_size` differs: {info.vocabulary_size} in the checkpoint, {run.vocabulary_size} in this run",
            where=str(where),
            fix=f"use a tokenizer of {info.vocabulary_size} ids",
        )
    for name in sorted(run.model.keys() | info.model.keys()):
        if run.model.get(name) != info.model.get(name):
            raise InputError(
                f"`model.{name}` differs: {info.model.get(name)!r} in the checkpoint, {run.model.get(name)!r} in this "
                "run",
                where=str(where),
                fix=f"set model.{name} to {info.model.get(name)!r} or start from another checkpoint",
            )
    if not plan.holds(info.plan):
        chain = ", ".join(f"{segment.name} {segment.fingerprint[:8]}" for segment in plan.segments)
        raise InputError(
            f"`plan` differs: the checkpoint consumed {info.plan[:8]}, this run's chain is {chain}",
            where=str(where),
            fix="use the mix the checkpoint was trained on, extended if need be, or start from another checkpoint",
        )
    (consumed,) = (segment for segment in plan.segments if segment.fingerprint == info.plan)
    if not consumed.first_row < info.position <= consumed.first_row + consumed.rows:
        raise InputError(
            f"`position` {info.position} is outside segment `{consumed.name}`: rows {consumed.first_row} to "
            f"{consumed.first_row + consumed.rows}",
            where=str(where),
            fix="start from another checkpoint",
        )


def assert_restored(info: CheckpointInfo, model: Mapping[str, Tensor], optimizer: Any) -> None:
    """Raises AssertionError unless the live state is, bit for bit, what `info` was saved with."""
    live: dict[str, Tensor] = {f"model.{name}": tensor for name, tensor in model.items()}
    _split(optimizer, "optimizer", live)
    live["rng.cpu"] = torch.get_rng_state()
    hashes = {name: tensor_hash(tensor) for name, tensor in live.items()}
    wrong = sorted(name for name in hashes.keys() | info.tensors.keys() if hashes.get(name) != info.tensors.get(name))
    assert not wrong, f"tensors were not restored: {', '.join(wrong[:5])}"


def remove_partial(folder: Path) -> None:
    """Clear what a killed save left behind."""
    for path in sorted((folder / CHECKPOINTS).glob(f"{PARTIAL}*")):
        shutil.rmtree(path)


def tensor_hash(tensor: Tensor) -> str:
    """xxh3-128 of dtype, shape and bytes."""
    data = tensor.detach().cpu().contiguous()
    digest = xxhash.xxh3_128(f"{data.dtype} {tuple(data.shape)}".encode())
    digest.update(data.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


@contextmanager
def _without_group() -> Generator[None]:
    """One process saves and loads: DCP's warning that there is no process group says what is meant."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


def _read_tensors(place: Path) -> dict[str, Tensor]:
    """Every tensor of a DCP directory, allocated from what its metadata says."""
    try:
        metadata = FileSystemReader(place).read_metadata()
        tensors: dict[str, Tensor] = {}
        for name, stored in metadata.state_dict_metadata.items():
            assert isinstance(stored, TensorStorageMetadata), f"{name} is not a tensor"
            tensors[name] = torch.empty(stored.size, dtype=stored.properties.dtype)
        with _without_group():
            state_dict_loader.load(tensors, storage_reader=FileSystemReader(place), no_dist=True)
    except (OSError, EOFError, RuntimeError, CheckpointException) as error:
        raise InputError(
            f"unreadable checkpoint: {error}", where=str(place), fix="remove this folder to go on from an older one"
        ) from error
    return tensors


def _assert_round_trip(place: Path, hashes: Mapping[str, str]) -> None:
    read = {name: tensor_hash(tensor) for name, tensor in _read_tensors(place).items()}
    wrong = sorted(name for name in hashes.keys() | read.keys() if hashes.get(name) != read.get(name))
    assert not wrong, f"tensors did not survive the save: {', '.join(wrong[:5])}"


def _split(value: Any, path: str, tensors: dict[str, Tensor]) -> Tree:
    """Move tensors into `tensors`, under their path; what is left is JSON."""
    if isinstance(value, Tensor):
        assert path not in tensors, path
        tensors[path] = value.detach()
        return {"tensor": path}
    if isinstance(value, Mapping):
        # Pairs, since JSON would turn the optimiser's integer keys into text.
        return {"pairs": [[key, _split(child, f"{path}.{key}", tensors)] for key, child in value.items()]}
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_split(child, f"{path}.{index}", tensors) for index, child in enumerate(value)]}
    assert value is None or isinstance(value, bool | int | float | str), f"{path} is a {type(value).__name__}"
    return value


def _join(tree: Tree, tensors: Mapping[str, Tensor]) -> Any:
    """The inverse of `_split`."""
    if not isinstance(tree, dict):
        return tree
    ((kind, inner),) = tree.items()
    if kind == "tensor":
        return tensors[inner]
    if kind == "pairs":
        return {key: _join(child, tensors) for key, child in inner}
    joined = [_join(child, tensors) for child in inner]
    return joined if kind == "list" else tuple(joined)
