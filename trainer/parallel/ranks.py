"""The processes that train one model together, and this one's place among them.

Contract: processes stand in a grid of replica x expert x context; `data = replica * expert`. Rows are shared over data,
a row's tokens over context, a layer's experts over expert; weights other than the experts' are sharded over all. One
process is a grid like any other. Groups are made in the same order everywhere.
"""

from __future__ import annotations

import datetime
import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from pipeline.core.errors import UserError
from trainer.config import ParallelConfig
from trainer.devices import check_device
from trainer.model.exchange import ContextShare

# Long enough for the slowest process to read a checkpoint; a dead process is noticed by its launcher long before.
TIMEOUT = datetime.timedelta(minutes=30)

Made = TypeVar("Made")


@dataclass(frozen=True)
class Ranks:
    """This process's place. Groups are None where there is nothing to share."""

    config: ParallelConfig
    rank: int = 0
    experts: dist.ProcessGroup | None = None  # those that together have all experts of a layer
    copies: dist.ProcessGroup | None = None  # those that have the same experts
    share: ContextShare | None = None
    # Of all, beside the one that training uses, for what is told while a step runs; on the host.
    beside: dist.ProcessGroup | None = None
    # Of all: replicas x experts x contexts.
    grid: DeviceMesh | None = None

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    @property
    def is_alone(self) -> bool:
        return self.config.processes == 1

    @property
    def data_rank(self) -> int:
        return self.rank // self.config.context

    @property
    def expert_rank(self) -> int:
        return self.data_rank % self.config.expert

    def device(self, name: str) -> str:
        """Where this process computes: its own accelerator of the machine, where `name` is a kind of accelerator."""
        return f"{name}:{os.environ.get('LOCAL_RANK', '0')}" if name == "cuda" and not self.is_alone else name

    def wait(self) -> None:
        """Until all are here."""
        if not self.is_alone:
            dist.barrier()

    def total(self, *values: float) -> list[float]:
        """Each value summed over all processes, in float64."""
        if self.is_alone:
            return list(values)
        sums = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(sums)
        return sums.tolist()

    def largest(self, value: float) -> float:
        """Of all processes."""
        if self.is_alone:
            return value
        found = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return float(found)

    def all_say(self, here: bool) -> bool:
        """Whether it is so in every process; the answer is the same in all."""
        if self.is_alone:
            return here
        said = torch.tensor(float(here))
        dist.all_reduce(said, dist.ReduceOp.MIN)
        return bool(said)

    def first_does(self, work: Callable[[], None]) -> None:
        """The first process does `work`, such as writing a file that all share. What fails in it fails in all."""
        if self.is_alone:
            work()
            return
        failed: Exception | None = None
        if self.is_first:
            try:
                work()
            except Exception as error:
                failed = error
        if self.all_say(failed is None):
            return
        told: list[Exception | None] = [_sendable(failed)]
        dist.broadcast_object_list(told, src=0)
        error = failed or told[0]
        assert error is not None
        raise error

    def of_all(self, made: Made) -> list[Made]:
        """What each process has made, in order, in every process."""
        if self.is_alone:
            return [made]
        told: list[Any] = [None] * self.config.processes
        dist.all_gather_object(told, made, group=self.beside)
        return told

    def first_judges(self, work: Callable[[], Made], judge: Callable[[list[Made]], None]) -> None:
        """Every process does `work`; the first `judge`s what all have made. What fails in one fails in all.

        Tells through the group beside, so that it may run while training goes on.
        """
        if self.is_alone:
            judge([work()])
            return
        made: Made | Exception
        try:
            made = work()
        except Exception as error:
            made = error
        told: list[Any] | None = [None] * self.config.processes if self.is_first else None
        dist.gather_object(_sendable(made), told, dst=0, group=self.beside)
        outcome: list[Exception | None] = [None]
        if told is not None:
            try:
                judge(_all_made(told))
            except Exception as error:
                outcome = [_sendable(error)]
        dist.broadcast_object_list(outcome, src=0, group=self.beside)
        if isinstance(made, Exception):
            raise made
        if outcome[0] is not None:
            raise outcome[0]


def _all_made(told: list[Any]) -> list[Any]:
    for each in told:
        if isinstance(each, Exception):
            raise each
    return told


def _sendable(made: Made | Exception) -> Made | Exception:
    """An error as it is, or what it says where it cannot be sent."""
    if isinstance(made, Exception):
        try:
            pickle.loads(pickle.dumps(made))
        except Exception:
            return RuntimeError(repr(made))
    return made


ALONE = Ranks(ParallelConfig())


def start_ranks(config: ParallelConfig, device: str) -> Ranks:
    """Join the processes that torchrun started.

    Raises `UserError` when there are not as many as configured, or the device is not here.
    """
    check_device(device)
    if config.processes == 1 and not dist.is_initialized():
        return ALONE
    if not dist.is_initialized():
        if "RANK" not in os.environ:
            raise UserError(
                f"torchrun did not start this process, and training.parallel wants {config.processes} (data "
                f"{config.data} x context {config.context})",
                where="training.parallel",
                fix=f"torchrun --nproc-per-node {config.processes} -m pipeline.cli …; or for one process: --set "
                "training.parallel.data=1 --set training.parallel.expert=1 --set training.parallel.context=1",
            )
        _check_world(config, int(os.environ.get("WORLD_SIZE", "1")))  # before the first wait for the others
        # gloo beside nccl: hashes, counts and losses are summed on the host.
        backend = "cpu:gloo,cuda:nccl" if torch.device(device).type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=TIMEOUT)
    world = dist.get_world_size()
    _check_world(config, world)
    rank = dist.get_rank()
    replicas, experts, contexts = config.data // config.expert, config.expert, config.context
    grid = torch.arange(world).view(replicas, experts, contexts)
    rows = [grid[i, j].tolist() for i in range(replicas) for j in range(experts)]
    columns = [grid[i, :, k].tolist() for i in range(replicas) for k in range(contexts)]
    same = [grid[:, j].flatten().tolist() for j in range(experts)]
    context, expert, copies = (_own_group(members, rank) for members in (rows, columns, same))
    share = ContextShare(context, rank % contexts, contexts) if contexts > 1 else None
    beside = dist.new_group(backend="gloo", timeout=TIMEOUT)
    assert isinstance(beside, dist.ProcessGroup)
    mesh = init_device_mesh(
        torch.device(device).type, (replicas, experts, contexts), mesh_dim_names=("replica", "expert", "context")
    )
    own, same_experts = (expert, copies) if experts > 1 else (None, None)
    return Ranks(config, rank, own, same_experts, share, beside, mesh)


def _check_world(config: ParallelConfig, world: int) -> None:
    if world != config.processes:
        raise UserError(
            f"{world} processes were started, training.parallel wants {config.processes} (data {config.data} x context "
            f"{config.context})",
            where="training.parallel",
            fix=f"start torchrun with {config.processes} processes, or change data or context",
        )


def _own_group(members: list[list[int]], rank: int) -> dist.ProcessGroup:
    """Make every group; the one with `rank` in it."""
    own = None
    for ranks in members:
        group = dist.new_group(ranks)
        own = group if rank in ranks else own
    assert isinstance(own, dist.ProcessGroup)
    return own
