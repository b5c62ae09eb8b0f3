"""Write checkpoints while training goes on: each process its own shards, `checkpoint.json` when all have.

Contract: `start` returns when the state is copied to the host; what follows happens in a thread of its own. At most one
save is in flight: the next waits for it. A save is written under a temporary name, read back and compared part by
part, then `checkpoint.json` is written and the folder renamed by the first process: what is killed on the way has no
final name. Old checkpoints that cannot be removed are warned of. An error of the background is raised by `check`,
`wait` or the next `start`, by all processes at the same one. All call the same functions at the same steps, and see one
folder. The same state gives the same bytes on disk.
Cost: memory for one copy of the process's part of the state, and READ_BACK_BYTES; one write, one read and two hashes.
Source: torch.distributed.checkpoint's `async_save`.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor
from torch.distributed.checkpoint import state_dict_saver
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import STATE_DICT_TYPE, Metadata, StorageMeta
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.tensor import DTensor

from pipeline.core.errors import UserError
from pipeline.core.files import PARTIAL, sync_folder, write_json
from trainer.checkpoint import (
    CHECKPOINT,
    CheckpointInfo,
    Tree,
    checkpoint_place,
    checkpoints,
    expect_no_group,
    read_info,
    read_parts,
    split_state,
)
from trainer.parallel.ranks import ALONE, Ranks
from trainer.parallel.state import RANDOM_STATE
from trainer.tensor_hash import PartHash, hash_part, join_hashes

READ_BACK_BYTES = 256 << 20  # of tensors at once, when they are read back


class SaveError(UserError):
    """A checkpoint could not be written."""


class CheckpointSaver:
    """Writes the checkpoints of one phase. Use it as a context: leaving it waits for what is in flight.

    Args:
        folder: The phase's.
        keep: How many of the newest stay, at least 1; those that end a segment always stay.
    """

    def __init__(self, folder: Path, ranks: Ranks, keep: int) -> None:
        assert keep >= 1, keep
        self._folder, self._ranks, self._keep = folder, ranks, keep
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None

    def start(self, info: CheckpointInfo, tensors: Mapping[str, Tensor], tree: Tree) -> Path:
        """Copy the state and begin to write it; returns where it will be. Waits for the save before.

        Args:
            info: `tensors`, `optimizer` and `files` are filled in here.
            tensors: By name, as this process has them.
            tree: The optimiser's, of `split_state`.
        """
        self.wait()
        place = checkpoint_place(self._folder, info.step)
        partial = place.with_name(f"{PARTIAL}{place.name}")
        self._ranks.first_does(lambda: _make_room(info, partial, place))
        stager = _Stager(StagingOptions(False, False, False, False))
        expect_no_group()
        written = state_dict_saver.async_save(
            dict(sorted(tensors.items())),
            storage_writer=_Writer(partial, sync_files=True),
            async_stager=stager,
            process_group=self._ranks.beside,
            no_dist=self._ranks.is_alone,
        )
        assert isinstance(written, Future)
        info = replace(info, optimizer=tree)
        self._pending = self._pool.submit(self._finish, written, stager, info, partial, place)
        return place

    def check(self) -> None:
        """Raise what went wrong in the background, if anything did by now: all processes at the same step."""
        if self._pending is not None and self._ranks.all_say(self._pending.done()):
            self.wait()

    def wait(self) -> None:
        """Until nothing is in flight. Raises `SaveError` or AssertionError when the save failed."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.wait()
        except Exception as also:
            if error is None:
                raise
            error.add_note(f"the last checkpoint was not written either: {also}")
        finally:
            self._pool.shutdown()

    def _finish(
        self, written: Future[Metadata], stager: _Stager, info: CheckpointInfo, partial: Path, place: Path
    ) -> None:
        """In the background: all processes' parts are written, read back, compared and made final."""

        def work() -> dict[str, PartHash]:
            try:
                written.result()
            except CheckpointException as error:
                raise _said(error, info, partial) from error
            parts = {name: hash_part(tensor) for name, tensor in stager.staged.items()}
            _assert_round_trip(partial, stager.staged, parts, self._ranks)
            return parts

        try:
            self._ranks.first_judges(work, lambda parts: self._commit(parts, info, partial, place))
        finally:
            stager.close()

    def _commit(self, parts: list[dict[str, PartHash]], info: CheckpointInfo, partial: Path, place: Path) -> None:
        """By the first process, when all are done."""
        try:
            files = {path.name: path.stat().st_size for path in partial.iterdir()}
            _check_all_there(partial, files)
            write_json(partial / CHECKPOINT, asdict(replace(info, tensors=join_hashes(parts), files=files)))
            sync_folder(partial)
            partial.rename(place)
            sync_folder(place.parent)
        except OSError as error:
            raise _not_written(info, partial, str(error)) from error
        for old in checkpoints(self._folder)[: -self._keep]:
            _remove(old)


def save(folder: Path, info: CheckpointInfo, model: Mapping[str, Tensor], optimizer: Any, *, keep: int) -> Path:
    """Write one process's whole state and wait until it is a checkpoint; returns its folder.

    Raises AssertionError when what was written does not read back bit for bit.
    """
    tensors: dict[str, Tensor] = {f"model.{name}": tensor.detach() for name, tensor in model.items()}
    tree = split_state(optimizer, "optimizer", tensors)
    tensors[RANDOM_STATE] = torch.get_rng_state()
    with CheckpointSaver(folder, ALONE, keep) as saver:
        return saver.start(info, tensors, tree)


class _Writer(FileSystemWriter):
    """DCP's writer without its random save id and absolute path, so that equal states are equal bytes."""

    def storage_meta(self) -> StorageMeta:
        return StorageMeta(checkpoint_id="", save_id="")


class _Stager(DefaultStager):
    """DCP's copy to the host, which is kept to be compared with what was written."""

    staged: Mapping[str, Tensor]

    def stage(self, state_dict: STATE_DICT_TYPE, **kwargs: Any) -> STATE_DICT_TYPE:
        staged = super().stage(state_dict, **kwargs)
        assert isinstance(staged, dict)
        self.staged = staged
        return staged

    def close(self) -> None:
        super().close()
        self.staged = {}


def _assert_round_trip(place: Path, staged: Mapping[str, Tensor], parts: Mapping[str, PartHash], ranks: Ranks) -> None:
    """What this process had written reads back. Of equal copies the first process that has one reads."""
    for names in _bounded({name: tensor for name, tensor in staged.items() if _reads_back(tensor, ranks)}):
        read = {name: torch.empty_like(staged[name]) for name in names}
        read_parts(place, read)
        wrong = [name for name, tensor in read.items() if hash_part(tensor) != parts[name]]
        assert not wrong, f"tensors did not survive the save: {', '.join(wrong[:5])}"


def _reads_back(tensor: Tensor, ranks: Ranks) -> bool:
    if not isinstance(tensor, DTensor):
        return ranks.is_first
    coordinate = tensor.device_mesh.get_coordinate()
    assert coordinate is not None
    return all(place.is_shard() or at == 0 for place, at in zip(tensor.placements, coordinate, strict=True))


def _bounded(tensors: Mapping[str, Tensor]) -> Iterator[list[str]]:
    """Names in groups of at most READ_BACK_BYTES, or one tensor."""
    names: list[str] = []
    size = 0
    for name, tensor in tensors.items():
        own = (tensor.to_local() if isinstance(tensor, DTensor) else tensor).nbytes
        if names and size + own > READ_BACK_BYTES:
            yield names
            names, size = [], 0
        names.append(name)
        size += own
    if names:
        yield names


def _make_room(info: CheckpointInfo, partial: Path, place: Path) -> None:
    """An empty folder to write to."""
    try:
        for leftover in (partial, place):  # of a killed save, or of a step that is trained again
            if leftover.exists():
                shutil.rmtree(leftover)
        partial.mkdir(parents=True)
    except OSError as error:
        raise _not_written(info, partial, str(error)) from error


def _remove(old: Path) -> None:
    """Of a checkpoint no longer kept, unless it ends a segment. What cannot be removed or read is warned of."""
    try:
        if not read_info(old).ends_segment:
            # Under another name first: what is killed half removed is no checkpoint.
            shutil.rmtree(old.rename(old.with_name(f"{PARTIAL}{old.name}")))
    except (OSError, UserError) as error:
        warnings.warn(
            f"an old checkpoint was not removed: {error}. Training goes on; remove {old}, or {PARTIAL}{old.name} "
            "beside it, by hand when it is not needed any more",
            stacklevel=2,
        )


def _check_all_there(partial: Path, files: Mapping[str, int]) -> None:
    """Every file that DCP's own metadata names is in the first process's sight."""
    storage: Mapping[Any, Any] = FileSystemReader(partial).read_metadata().storage_data or {}
    missing = sorted({stored.relative_path for stored in storage.values()} - files.keys())
    if missing:
        raise SaveError(
            f"`{missing[0]}` and {len(missing) - 1} more files of the checkpoint are not where the first process looks",
            where=str(partial),
            fix="put the store on a folder that all processes share",
        )


def _said(error: CheckpointException, info: CheckpointInfo, partial: Path) -> SaveError:
    """The first process's failure without every traceback."""
    rank, (failure, _) = min(error.failures.items())
    return _not_written(info, partial, f"process {rank}: {failure!r}")


def _not_written(info: CheckpointInfo, partial: Path, why: str) -> SaveError:
    return SaveError(
        f"the checkpoint after step {info.step} was not written: {why}",
        where=str(partial.parent),
        fix="make room or mend the disk, then train again: it goes on from the checkpoint before",
    )
