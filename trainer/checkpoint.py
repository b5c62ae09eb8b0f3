"""Checkpoints: everything a phase needs to go on as if it had never stopped (contract 4, version 2).

`FOLDER/checkpoints/step-00000042/`
  `.metadata`, `*.distcp`   a torch DCP directory: `model.NAME`, `optimizer.PATH` and `rng.cpu` tensors, each process's
                            shards in its own files
  `checkpoint.json`         written last: `CheckpointInfo`, with the tree of what is not a tensor, a hash per tensor and
                            the size of every other file

Contract: a folder under a final name is whole; `trainer.saving` writes it. This file reads: whole tensors, whatever
grid wrote them, or each process's own parts in place (`load_parts`). Both compare every tensor with what was saved. The
same state gives the same hashes on any grid, and the same bytes on disk on the same one. Nothing in it is unpickled but
DCP's own metadata. Cost: one read and one hash of what is asked for.
"""

from __future__ import annotations

import pickle
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
import xxhash
from torch import Tensor
from torch.distributed.checkpoint import state_dict_loader
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from pipeline.core.errors import InputError
from pipeline.core.files import PARTIAL, read_json
from pipeline.core.plans import Plan
from trainer.parallel.ranks import Ranks
from trainer.tensor_hash import PartHash, hash_part, hash_tensor, join_hashes

CHECKPOINT_VERSION = 2
CHECKPOINT = "checkpoint.json"
CHECKPOINTS = "checkpoints"
STEP_NAME = "step-{step:08d}"
_OLDER = "remove this folder to go on from an older one; of a finished phase, remove the phase's and train it again"
# What DCP raises for damaged files: its metadata is a pickle, of which any byte may be changed.
UNREADABLE = (
    OSError, EOFError, RuntimeError, CheckpointException, pickle.UnpicklingError, AttributeError, ImportError,
    IndexError, KeyError, TypeError, ValueError,
)  # fmt: skip

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
    tensors: Mapping[str, str] = field(default_factory=dict)  # name -> hash of dtype, shape and bytes
    files: Mapping[str, int] = field(default_factory=dict)  # name -> bytes, of every file but checkpoint.json
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
    """Raises `InputError` when there is no finished checkpoint, it is damaged, or it has another version."""
    path = place / CHECKPOINT
    if not path.is_file():
        raise InputError("not a checkpoint: no checkpoint.json", where=str(place), fix="name a step-… folder")
    try:
        stored = read_json(path)
    except OSError as error:
        raise InputError(f"unreadable checkpoint: {error}", where=str(path), fix=_OLDER) from error
    except ValueError as error:  # of its encoding too
        raise InputError(f"unreadable checkpoint: not JSON: {error}", where=str(path), fix=_OLDER) from error
    version = stored.get("version") if isinstance(stored, dict) else None
    if version != CHECKPOINT_VERSION:
        raise InputError(
            f"checkpoint version {version}, this program reads {CHECKPOINT_VERSION}",
            where=str(path),
            fix=f"{_OLDER}, or use the program that wrote it",
        )
    names = {each.name: each.default is MISSING and each.default_factory is MISSING for each in fields(CheckpointInfo)}
    wrong = sorted((stored.keys() - names.keys()) | {name for name, needed in names.items() if needed} - stored.keys())
    if wrong:
        raise InputError(f"unreadable checkpoint: `{wrong[0]}` is missing or not known", where=str(path), fix=_OLDER)
    return CheckpointInfo(**stored)


def load(place: Path) -> Checkpoint:
    """Read a whole checkpoint. Raises `InputError` when a file is missing or a tensor is not what was saved."""
    info = read_info(place)
    check_files(place, info)
    tensors = _read_tensors(place)
    _check_tensors(place, info, {name: hash_tensor(tensor) for name, tensor in tensors.items()})
    prefix = "model."
    model = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    return Checkpoint(info, model, join_state(info.optimizer, tensors), tensors["rng.cpu"])


def load_parts(
    place: Path, info: CheckpointInfo, tensors: Mapping[str, Tensor], ranks: Ranks, prefix: str = ""
) -> None:
    """Read into `tensors`, all whose names begin with `prefix`, what this process has of each; all processes call it.

    Raises `InputError` in all of them when a file is missing, or a tensor of any process is not what was saved.
    """
    expected = replace(info, tensors={name: hashed for name, hashed in info.tensors.items() if name.startswith(prefix)})

    def read() -> dict[str, PartHash]:
        check_files(place, info)
        if tensors.keys() != expected.tensors.keys():
            names = ", ".join(sorted(tensors.keys() ^ expected.tensors.keys())[:5])
            raise InputError(f"tensors of another model: {names}", where=str(place), fix="use the model it is of")
        read_parts(place, tensors)
        return {name: hash_part(tensor) for name, tensor in tensors.items()}

    ranks.first_judges(read, lambda parts: _check_tensors(place, expected, join_hashes(parts)))


def read_parts(place: Path, tensors: Mapping[str, Tensor]) -> None:
    """Fill `tensors` in place. Each process reads for itself. Raises `InputError` for what cannot be read."""
    try:
        expect_no_group()
        with torch.no_grad():
            state_dict_loader.load(dict(tensors), storage_reader=FileSystemReader(place), no_dist=True)
    except UNREADABLE as error:
        raise _unreadable(place, error) from error


def check_files(place: Path, info: CheckpointInfo) -> None:
    """Raises `InputError` naming a file that is not there as it was written."""
    for name, size in sorted(info.files.items()):
        path = place / name
        found = path.stat().st_size if path.is_file() else None
        if found != size:
            what = "is missing" if found is None else f"has {found:,} bytes of {size:,}"
            raise InputError(f"unreadable checkpoint: `{name}` {what}", where=str(place), fix=_OLDER)


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


def remove_partial(folder: Path) -> None:
    """Clear what a killed save left behind. What cannot be removed is warned of: nothing reads it."""
    for path in sorted((folder / CHECKPOINTS).glob(f"{PARTIAL}*")):
        try:
            shutil.rmtree(path)
        except OSError as error:
            warnings.warn(
                f"what is left of a save was not removed: {error}. Training goes on; remove {path} by hand",
                stacklevel=2,
            )


def expect_no_group() -> None:
    """A process reads or writes for itself: DCP's warning that there is no process group says what is meant."""
    warnings.filterwarnings("ignore", message="torch.distributed is disabled")


def _read_tensors(place: Path) -> dict[str, Tensor]:
    """Every tensor of a DCP directory, allocated from what its metadata says."""
    try:
        metadata = FileSystemReader(place).read_metadata()
        tensors: dict[str, Tensor] = {}
        for name, stored in metadata.state_dict_metadata.items():
            if not isinstance(stored, TensorStorageMetadata):
                raise TypeError(f"{name} is not a tensor")
            tensors[name] = torch.empty(stored.size, dtype=stored.properties.dtype)
    except UNREADABLE as error:
        raise _unreadable(place, error) from error
    read_parts(place, tensors)
    return tensors


def _check_tensors(place: Path, info: CheckpointInfo, hashes: Mapping[str, str]) -> None:
    for name, expected in sorted(info.tensors.items()):
        if hashes.get(name) != expected:
            state = "changed" if name in hashes else "missing"
            raise InputError(f"tensor `{name}` is {state}", where=str(place), fix=_OLDER)


def _unreadable(place: Path, error: BaseException) -> InputError:
    why = str(error)
    if isinstance(error, CheckpointException):  # its own words are the whole traceback of every process
        _, (failure, _) = min(error.failures.items())
        why = f"{type(failure).__name__}: {failure}"
    return InputError(f"unreadable checkpoint: {why}", where=str(place), fix=_OLDER)


def split_state(value: Any, path: str, tensors: dict[str, Tensor]) -> Tree:
    """Move tensors into `tensors`, under their path; what is left is JSON."""
    if isinstance(value, Tensor):
        assert path not in tensors, path
        tensors[path] = value.detach()
        return {"tensor": path}
    if isinstance(value, Mapping):
        # Pairs, since JSON would turn the optimiser's integer keys into text.
        return {"pairs": [[key, split_state(child, f"{path}.{key}", tensors)] for key, child in value.items()]}
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [split_state(child, f"{path}.{index}", tensors) for index, child in enumerate(value)]}
    assert value is None or isinstance(value, bool | int | float | str), f"{path} is a {type(value).__name__}"
    return value


def join_state(tree: Tree, tensors: Mapping[str, Tensor]) -> Any:
    """The inverse of `split_state`."""
    if not isinstance(tree, dict):
        return tree
    ((kind, inner),) = tree.items()
    if kind == "tensor":
        return tensors[inner]
    if kind == "pairs":
        return {key: join_state(child, tensors) for key, child in inner}
    joined = [join_state(child, tensors) for child in inner]
    return joined if kind == "list" else tuple(joined)
