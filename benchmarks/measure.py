"""Measuring two sides in turn: A B A B, after a warm-up, in CPU time of this process; peak memory in processes apart.

Contract: both sides of a comparison are measured in the same run on the same input. CPU time (all threads of this
process) is robust to whatever else the machine does; children and waiting are not in it. Work on an accelerator is
timed there. Peak memory is the largest resident size of a fresh process above what it had after its imports.
"""

from __future__ import annotations

import gc
import multiprocessing
import resource
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.result import Spread

Side = Callable[[], Any]
STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")
RESET_PEAK = "5"  # Linux: sets the peak resident size back to the present one


def interleaved(
    sides: Sequence[Side], rounds: int, warm_ups: int = 1, clock: Callable[[Side], float] | None = None
) -> list[list[float]]:
    """Seconds of each side in each round, the sides taking turns; the warm-ups are not counted.

    `clock` gives the seconds of one call; by default it is `timed`.
    """
    clock = clock or timed
    for _ in range(warm_ups):
        for side in sides:
            side()
    seconds: list[list[float]] = [[] for _ in sides]
    for _ in range(rounds):
        for side, found in zip(sides, seconds, strict=True):
            found.append(clock(side))
    return seconds


def timed(side: Side) -> float:
    """CPU seconds of one call, with what earlier calls left behind collected first."""
    gc.collect()
    started = time.process_time()
    side()
    return time.process_time() - started


def device_timed(side: Side) -> float:
    """Seconds that one call keeps the CUDA device busy: between two events on its stream."""
    import torch

    gc.collect()
    started, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    started.record()
    side()
    ended.record()
    torch.cuda.synchronize()
    return started.elapsed_time(ended) / 1000  # it gives milliseconds


def peak_memory(imported: Callable[..., Callable[[], Side]], *arguments: Any) -> Spread:
    """MiB at the peak of `imported(*arguments)()()` in a fresh process. Linux only.

    `imported` is a module's function. Its call does whatever does not count, imports above all; the call of what it
    gives makes what stays in memory, which counts; the side that this gives in turn is watched for its peak.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        return Spread.of([pool.submit(_peak_above_start, imported, arguments).result()])


def _peak_above_start(imported: Callable[..., Callable[[], Side]], arguments: tuple[Any, ...]) -> float:
    prepare = imported(*arguments)
    gc.collect()
    start = _resident_mib("VmRSS")
    side = prepare()
    gc.collect()
    CLEAR.write_text(RESET_PEAK)
    side()
    return _resident_mib("VmHWM") - start


def worker_memory(imported: Callable[..., Callable[[], Side]], *arguments: Any) -> Spread:
    """MiB that a whole worker takes at its peak, imports and its own children and all; as `peak_memory` otherwise."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        return Spread.of([pool.submit(_peak_with_children, imported, arguments).result()])


def _peak_with_children(imported: Callable[..., Callable[[], Side]], arguments: tuple[Any, ...]) -> float:
    side = imported(*arguments)()
    gc.collect()
    CLEAR.write_text(RESET_PEAK)
    side()
    for child in multiprocessing.active_children():
        child.kill()
        child.join()
    return _resident_mib("VmHWM") + resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def _resident_mib(name: str) -> float:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) / 1024  # the file has KiB
