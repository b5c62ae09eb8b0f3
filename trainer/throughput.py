"""How much a step computes, how much the device could, and the memory it took.

Contract: multiplications that the model's definition asks for, forward and twice that backward; what is recomputed or
wasted on masked scores does not count, so that the share is MFU (PaLM, arXiv 2204.02311, appendix B). Peaks of
accelerators are their data sheets' dense rates; a processor's is measured with one large product.
Shapes: R rows, T tokens.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from functools import cache
from typing import NamedTuple

import numpy as np
import torch

from trainer.architecture import ModelConfig, count_parameters
from trainer.config import Precision, TrainExecution

# Dense FLOP/s in bfloat16, NVIDIA data sheets; eight-bit products have twice that from compute capability 8.9 on.
BFLOAT16_PEAKS = {"A100": 312e12, "H100": 989.4e12, "H200": 989.4e12, "B200": 2250e12}
GEMM_SIZE = 1024
_KIB = 1024


def step_flops(config: ModelConfig, vocabulary_size: int, document_ids_RT: np.ndarray) -> float:
    """Of one forward and backward pass over packed rows, padding included in the matrix products."""
    lengths = _document_lengths(document_ids_RT).astype(np.float64)
    return 3.0 * forward_flops(config, vocabulary_size, document_ids_RT.size, lengths).total


class ForwardFlops(NamedTuple):
    """Of one forward pass. A backward pass is twice as much."""

    matrices: float  # of all layers and the MTP module
    attention: float
    head: float  # logits, of the MTP module's too

    @property
    def total(self) -> float:
        return self.matrices + self.attention + self.head


def forward_flops(config: ModelConfig, vocabulary_size: int, tokens: int, document_lengths: np.ndarray) -> ForwardFlops:
    """Of `tokens` tokens, padding among them, in documents of these lengths (float64)."""
    counts = count_parameters(config, vocabulary_size)
    head = config.hidden_size * vocabulary_size
    # The MTP module's matrices: all its weights but the norms.
    norms = 5 * config.hidden_size + 2 * config.head_dim
    matrices = counts.active_per_token - head + (counts.mtp - norms if config.mtp_layers else 0)
    lengths = document_lengths
    seen_all = float((lengths * (lengths + 1) / 2).sum())
    window = np.minimum(lengths, config.window_tokens)
    seen_near = float((lengths * window - window * (window - 1) / 2).sum())
    layers = {kind: config.layer_types.count(kind) for kind in ("sliding_attention", "full_attention")}
    pairs = layers["sliding_attention"] * seen_near + (layers["full_attention"] + config.mtp_layers) * seen_all
    # A score and its part of the output: two products of head_dim each, a multiplication and an addition.
    attention = 4.0 * config.num_attention_heads * config.head_dim * pairs
    return ForwardFlops(2.0 * matrices * tokens, attention, 2.0 * head * (1 + config.mtp_layers) * tokens)


def peak_flops(device: str, precision: Precision) -> float:
    """FLOP/s of the device at best; 0 where it is not known."""
    if torch.device(device).type == "cpu":
        return _measured_peak(torch.float32 if precision == "float32" else torch.bfloat16, torch.get_num_threads())
    name = torch.cuda.get_device_name(device)
    peak = next((peak for model, peak in BFLOAT16_PEAKS.items() if model in name), 0.0)
    return 2 * peak if precision == "float8" and torch.cuda.get_device_capability(device) >= (8, 9) else peak


def available_peak_flops(execution: TrainExecution, precision: Precision) -> float:
    """Of one process: as `execution` says, or as the device here has; 0 where neither is known."""
    on_cuda = execution.device.startswith("cuda")
    if execution.peak_tflops is not None:
        if on_cuda and precision == "float32":
            return 0.0  # far from the others, and differently on each device
        return execution.peak_tflops * 1e12 * (2 if precision == "float8" and on_cuda else 1)
    return 0.0 if on_cuda and not torch.cuda.is_available() else peak_flops(execution.device, precision)


def available_memory(device: str) -> int:
    """Bytes that a process can have: the accelerator's, or its share of the machine's; 0 where it is not known."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_properties(device).total_memory if torch.cuda.is_available() else 0
    if not hasattr(os, "sysconf"):
        return 0
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return machine // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def memory_bytes(device: str) -> int:
    """The largest so far: resident size of this process, or allocated on the accelerator."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else _KIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@cache
def _measured_peak(dtype: torch.dtype, threads: int) -> float:
    del threads  # a part of the key: the rate is that of as many
    left, right = torch.ones(GEMM_SIZE, GEMM_SIZE, dtype=dtype), torch.ones(GEMM_SIZE, GEMM_SIZE, dtype=dtype)
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        torch.mm(left, right)
        seconds.append(time.perf_counter() - started)
    return 2 * GEMM_SIZE**3 / min(seconds)


def _document_lengths(document_ids_RT: np.ndarray) -> np.ndarray:
    """Lengths of the runs of equal id within rows, padding's left out."""
    starts = np.ones(document_ids_RT.shape, bool)
    starts[:, 1:] = document_ids_RT[:, 1:] != document_ids_RT[:, :-1]
    at = np.flatnonzero(starts)
    lengths = np.diff(np.append(at, document_ids_RT.size))
    return lengths[document_ids_RT.ravel()[at] >= 0]
