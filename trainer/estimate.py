"""Before launch: what a phase takes of each process's memory, how much it computes, and how long that lasts.

Contract: arithmetic over the shapes that the code makes; weights, gradients and state are exact, activations are the
tensors that autograd keeps, at even expert load and with one document a row. Not counted: the allocator's gaps, the
libraries' own memory, and, in the time, communication and loading. The tests compare with torch's own counts.
Cost: the model's shapes on the meta device; milliseconds to a second.
Shapes in comments: N tokens of a micro-batch in one process, C width, V vocabulary.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cache

import numpy as np
import torch

from trainer.architecture import ModelConfig
from trainer.config import ParallelConfig, PhaseConfig, TrainExecution
from trainer.losses import CHUNK_ROWS
from trainer.model.attention import PIECE_TOKENS
from trainer.model.attention_kernels import backward_bytes, takes_heads, takes_spans
from trainer.model.model import build_model
from trainer.model.moe import row_multiple
from trainer.optim import ELEMENTS_PER_BATCH, parameter_groups
from trainer.parallel.sharding import EXPERT_WEIGHTS
from trainer.throughput import forward_flops

FLOAT32, BFLOAT16 = 4, 2  # bytes
GIB = 1 << 30
SECONDS_PER_DAY = 86_400
MULTIPROCESSORS = 148  # of a B200, the most of the devices in `trainer.throughput`; H100 and H200 have 132


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes of one process, the one with the most."""

    weights: int  # float32 masters
    gradients: int
    optimizer: int  # Muon's momentum, AdamW's two moments
    gathered: int  # blocks that FSDP2 puts together, with their gradients; embedding and head all the time
    casts: int  # weights in the precision of the products, kept for the backward pass
    activations: int  # kept for the backward pass, and one block's that are made again
    attention_sums: int  # of one layer's backward pass, where attention is by spans
    losses: int  # the head's gradients of both losses, and a chunk of logits
    update: int  # a batch of Muon's matrices, AdamW's changes; when activations are gone
    host_copy: int  # of the state, while a checkpoint is written; on the host

    @property
    def device_peak(self) -> int:
        """Without the host's copy: the larger of the backward pass and the update."""
        kept = self.weights + self.gradients + self.optimizer
        return kept + max(self._passes, self.update)

    @property
    def _passes(self) -> int:
        return self.gathered + self.casts + self.activations + self.attention_sums + self.losses

    @property
    def peak(self) -> int:
        """On a processor, where the checkpoint's copy lies in the same memory."""
        return self.device_peak + self.host_copy

    def of(self, device: str) -> int:
        return self.device_peak if device.startswith("cuda") else self.peak

    def items(self) -> dict[str, int]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True)
class Estimate:
    """Of one phase on one grid of processes."""

    phase: str
    parallel: ParallelConfig
    rows_per_microbatch: int  # of one process
    parameters_of_process: int
    memory: MemoryEstimate
    step_flops: float  # the model's, of all processes
    made_again_flops: float  # recomputation, on top of them
    tokens_per_second: float  # of all processes; 0 where the device's peak is not known
    days: float  # 0 where it is not known


def estimate_phase(
    config: ModelConfig, vocabulary_size: int, phase: PhaseConfig, execution: TrainExecution, peak_flops: float
) -> Estimate:
    """Memory and time of `phase`. `peak_flops` is a process's, in the phase's precision; 0 = not known."""
    grid = execution.parallel
    own_rows = -(-phase.rows_per_batch // grid.data)
    rows = min(execution.rows_per_microbatch or own_rows, own_rows)
    lengths = np.full(phase.rows_per_batch, phase.context_tokens, np.float64)
    forward = forward_flops(config, vocabulary_size, phase.tokens_per_step, lengths)
    again = 0.0
    if execution.recompute != "none":
        share = 1.0 if execution.recompute == "blocks" else 1 - config.dense_layers / config.num_layers
        again = share * (forward.matrices + forward.attention)
    computed = 3 * forward.total + again
    # Shares without a row, or with one less, wait for those that have the most.
    busy = grid.processes * phase.rows_per_batch / (own_rows * grid.data)
    seconds = computed / (busy * peak_flops * execution.expected_flops_share) if peak_flops else 0.0
    speed = phase.tokens_per_step / seconds if seconds else 0.0
    return Estimate(
        phase=phase.name,
        parallel=grid,
        rows_per_microbatch=rows,
        parameters_of_process=sum(_parameters(config, vocabulary_size, grid).values()),
        memory=_memory(config, vocabulary_size, phase, execution, rows),
        step_flops=3 * forward.total,
        made_again_flops=again,
        tokens_per_second=speed,
        days=phase.budget_tokens / speed / SECONDS_PER_DAY if speed else 0.0,
    )


def fitting(
    config: ModelConfig, vocabulary_size: int, phase: PhaseConfig, execution: TrainExecution, limit: int
) -> TrainExecution | None:
    """The least change to `execution` with which a process takes at most `limit` bytes; None when none was found.

    Tried in this order: fewer rows at once, more recomputation, more processes and shares of the experts, and last
    shares of rows in place of some of the processes' rows.
    """
    for candidate in _candidates(config, phase, execution):
        own_rows = -(-phase.rows_per_batch // candidate.parallel.data)
        rows = min(candidate.rows_per_microbatch or own_rows, own_rows)
        if _memory(config, vocabulary_size, phase, candidate, rows).of(candidate.device) <= limit:
            return candidate
    return None


def _candidates(config: ModelConfig, phase: PhaseConfig, execution: TrainExecution) -> Iterator[TrainExecution]:
    kinds = ("none", "sparse", "blocks")
    for grid in _grids(config, phase, execution.parallel):
        rows = -(-phase.rows_per_batch // grid.data)
        at_once = min(execution.rows_per_microbatch or rows, rows)
        for recompute in kinds[kinds.index(execution.recompute) :]:
            for times in range(at_once.bit_length()):
                yield execution.replaced(rows_per_microbatch=at_once >> times, recompute=recompute, parallel=grid)


def _grids(config: ModelConfig, phase: PhaseConfig, grid: ParallelConfig) -> Iterator[ParallelConfig]:
    """This one; more shares of the rows, as long as each has one; shares of rows in place of some of those."""
    yield grid
    data = grid.data
    while 2 * data <= phase.rows_per_batch:
        data *= 2
        yield grid.replaced(data=data, expert=grid.expert)
        yield grid.replaced(data=data, expert=_most_shares(config, data))
    data, contexts = grid.data, grid.context
    while data % 2 == 0 and phase.context_tokens % (2 * contexts * config.window_tokens) == 0:
        data, contexts = data // 2, 2 * contexts
        yield ParallelConfig(data=data, expert=math.gcd(data, grid.expert), context=contexts)


def _most_shares(config: ModelConfig, data: int) -> int:
    return max(shares for shares in range(1, data + 1) if data % shares == 0 and config.num_experts % shares == 0)


def _shapes(config: ModelConfig, vocabulary_size: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Weight name -> its optimiser group and shape."""
    return _stored_shapes(config.model_dump_json(), vocabulary_size)


@cache
def _stored_shapes(config_json: str, vocabulary_size: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    config = ModelConfig.model_validate_json(config_json)
    groups = parameter_groups(build_model(config, vocabulary_size, 0, "meta"))
    return {name: (group, tuple(weight.shape)) for group, weights in groups.items() for name, weight in weights.items()}


def _is_own_expert(name: str, grid: ParallelConfig) -> bool:
    return grid.expert > 1 and ".experts." in name and name.rpartition(".")[2] in EXPERT_WEIGHTS


def _parameters(config: ModelConfig, vocabulary_size: int, grid: ParallelConfig) -> dict[str, int]:
    """Optimiser group -> elements in the first process, which has the most of every weight."""
    found = {"muon": 0, "adamw-decayed": 0, "adamw-undecayed": 0}
    for name, (group, shape) in _shapes(config, vocabulary_size).items():
        shares = grid.expert if _is_own_expert(name, grid) else grid.processes
        found[group] += -(-shape[0] // shares) * int(np.prod(shape[1:]))
    return found


def _memory(
    config: ModelConfig, vocabulary_size: int, phase: PhaseConfig, execution: TrainExecution, rows: int
) -> MemoryEstimate:
    grid = execution.parallel
    groups = _parameters(config, vocabulary_size, grid)
    own = sum(groups.values())
    adamw = groups["adamw-decayed"] + groups["adamw-undecayed"]
    blocks, root = _gatherable(config, vocabulary_size, grid)
    size = FLOAT32 if phase.precision == "float32" else BFLOAT16
    tokens = rows * phase.context_tokens // grid.context
    # Two blocks at once, the one computed and the one prefetched, and one's gradients; the root stays, with gradients.
    gathered = FLOAT32 * (3 * max(blocks) + 2 * root) if grid.processes > 1 else 0
    head = config.hidden_size * vocabulary_size
    losses = (1 + config.mtp_layers) * (FLOAT32 * head + size * tokens * config.hidden_size)
    losses += CHUNK_ROWS * vocabulary_size * (2 * FLOAT32 + (size if size < FLOAT32 else 0))
    losses += FLOAT32 * head if execution.device == "cpu" or size < FLOAT32 else 0  # a chunk's own, or the head's cast
    optimizer = FLOAT32 * (groups["muon"] + 2 * adamw)
    # A batch of float32 updates, and a few bfloat16 tensors as large in the iteration; AdamW's changes, each group's.
    batch = min(max(ELEMENTS_PER_BATCH, _largest_matrix(config, vocabulary_size)), _most_alike(config, vocabulary_size))
    update = max(batch * (FLOAT32 + 5 * BFLOAT16), FLOAT32 * 3 * groups["adamw-decayed"])
    if grid.processes > 1:  # a whole weight, its change, and the rows sent and received
        update += FLOAT32 * 4 * _largest_sharded(config, vocabulary_size, grid)
    return MemoryEstimate(
        weights=FLOAT32 * own,
        gradients=FLOAT32 * own,
        optimizer=optimizer,
        gathered=gathered,
        casts=_casts(config, vocabulary_size, phase, execution),
        activations=_activations(config, phase, execution, tokens, rows),
        attention_sums=_attention_sums(config, execution, tokens, rows) if _by_spans(config, phase, execution) else 0,
        losses=losses,
        update=update,
        host_copy=FLOAT32 * own + optimizer,
    )


def _gatherable(config: ModelConfig, vocabulary_size: int, grid: ParallelConfig) -> tuple[list[int], int]:
    """Elements of each block that FSDP2 gathers, and of what belongs to no block."""
    blocks: dict[str, int] = {}
    root = 0
    for name, (_, shape) in _shapes(config, vocabulary_size).items():
        elements = int(np.prod(shape))
        if name.startswith(("layers.", "mtp.block.")):
            block = name.split(".")[1] if name.startswith("layers.") else "mtp"
            blocks[block] = blocks.get(block, 0) + (0 if _is_own_expert(name, grid) else elements)
        else:
            root += elements
    return list(blocks.values()), root


def _largest_matrix(config: ModelConfig, vocabulary_size: int) -> int:
    sizes = [shape[-1] * shape[-2] for group, shape in _shapes(config, vocabulary_size).values() if group == "muon"]
    return max(sizes, default=0)


def _most_alike(config: ModelConfig, vocabulary_size: int) -> int:
    """Elements of the Muon matrices of the commonest shape, gate and up apart."""
    alike: Counter[tuple[int, int]] = Counter()
    for name, (group, shape) in _shapes(config, vocabulary_size).items():
        if group == "muon":
            rows = shape[-2] // 2 if "gate_up" in name else shape[-2]
            alike[rows, shape[-1]] += int(np.prod(shape))
    return max(alike.values())


def _largest_sharded(config: ModelConfig, vocabulary_size: int, grid: ParallelConfig) -> int:
    """Elements of the largest whole Muon weight that is cut over processes."""
    named = _shapes(config, vocabulary_size).items()
    sizes = [int(np.prod(s)) for name, (group, s) in named if group == "muon" and not _is_own_expert(name, grid)]
    return max(sizes, default=0)


def _casts(config: ModelConfig, vocabulary_size: int, phase: PhaseConfig, execution: TrainExecution) -> int:
    """Products keep the weights they multiplied with; of layers made again only one at a time has them."""
    if phase.precision == "float32":
        return 0
    # Eight-bit products on accelerators keep the float32 weight and make the eight-bit copy again.
    if phase.precision == "float8" and execution.device.startswith("cuda"):
        return 0
    layers: dict[str, int] = {}
    for name, (group, shape) in _shapes(config, vocabulary_size).items():
        if group == "muon":
            shares = execution.parallel.expert if _is_own_expert(name, execution.parallel) else 1
            layer = name.split(".")[1] if name.startswith("layers.") else "mtp"
            layers[layer] = layers.get(layer, 0) + int(np.prod(shape)) // shares
    kept = [elements for layer, elements in layers.items() if not _is_made_again(layer, config, execution)]
    again = [elements for layer, elements in layers.items() if _is_made_again(layer, config, execution)]
    return BFLOAT16 * (sum(kept) + max(again, default=0))


def _is_made_again(layer: str, config: ModelConfig, execution: TrainExecution) -> bool:
    if execution.recompute == "sparse":
        return layer != "mtp" and config.feed_forward_types[int(layer)] == "sparse"
    return execution.recompute == "blocks"


def _activations(config: ModelConfig, phase: PhaseConfig, execution: TrainExecution, tokens: int, rows: int) -> int:
    """Of all layers and the MTP module, with their inputs alone where they are made again."""
    size = FLOAT32 if phase.precision == "float32" else BFLOAT16
    width = config.hidden_size
    kept, largest = 0, 0
    by_spans = _by_spans(config, phase, execution)
    layers = [*map(str, range(config.num_layers)), *(["mtp"] if config.mtp_layers else [])]
    for layer in layers:
        kinds = ("full_attention", "dense")
        if layer != "mtp":
            kinds = config.layer_types[int(layer)], config.feed_forward_types[int(layer)]
        has_blocks = kinds[0] == "sliding_attention" and not by_spans
        own = tokens * _bytes_per_token(config, has_blocks, kinds[1] == "sparse", size)
        if kinds[0] == "full_attention" and execution.parallel.context > 1:
            own += _shared_row_bytes(config, phase, rows, size)
        if kinds[1] == "sparse" and execution.parallel.expert == 1:
            own += size * _filled_rows(config, tokens, size) * (2 * width + 3 * config.expert_intermediate_size)
        if layer == "mtp":  # both normed inputs, joined, and the projection's output's norms
            own += tokens * size * 5 * width
        if _is_made_again(layer, config, execution):
            largest = max(largest, own)
            kept += tokens * size * (2 if layer == "mtp" else 1) * width
        else:
            kept += own
    masks = 0 if by_spans else _mask_bytes(config, phase, execution.parallel.context, rows)
    return kept + largest + masks + tokens * size * 2 * width  # the final norm's input and output


def _bytes_per_token(config: ModelConfig, has_blocks: bool, is_sparse: bool, size: int) -> int:
    """What autograd keeps of one layer."""
    width, head = config.hidden_size, config.head_dim
    queries, keys = config.num_attention_heads * head, config.num_key_value_heads * head
    # In: stream, normed, projection; queries and keys, turned; values; mixed; then stream, normed.
    elements = 2 * width + (queries + 2 * keys) + (queries + keys) + keys + queries + 2 * width
    if has_blocks:  # keys and values of a block and the window before it, three half windows a block, for their own
        elements += 2 * (3 * keys - keys)
    scales = 2 + config.num_attention_heads + config.num_key_value_heads + config.num_attention_heads
    exact = FLOAT32 * scales  # of the norms, and the log-sum-exp
    if not is_sparse:
        return size * (elements + 3 * config.intermediate_size) + exact
    k, expert = config.experts_per_token, config.expert_intermediate_size
    # Rows in, gate and up, their product, rows out, k times; the shared experts' three.
    elements += k * (2 * width + 3 * expert) + 3 * expert * config.num_shared_experts
    exact += FLOAT32 * (5 * config.num_experts + 4 * k)  # scores and what balance, entropy and weights keep of them
    exact += 8 * 3 * k  # places
    exact += FLOAT32 * width if size < FLOAT32 else 0  # the router's input
    return size * elements + exact


def _by_spans(config: ModelConfig, phase: PhaseConfig, execution: TrainExecution) -> bool:
    """Whether the variable-length kernel attends: on a device that is not here, if it is new enough."""
    if not execution.device.startswith("cuda") or phase.precision == "float32" or execution.parallel.context > 1:
        return False
    if torch.cuda.is_available():
        return takes_spans(torch.device(execution.device), torch.bfloat16, config.head_dim)
    return takes_heads(torch.bfloat16, config.head_dim)


def _attention_sums(config: ModelConfig, execution: TrainExecution, tokens: int, rows: int) -> int:
    heads = config.num_attention_heads
    # Deterministic sums have as many parts as it takes to keep all multiprocessors busy (aten's `mha_varlen_bwd`).
    parts = -(-MULTIPROCESSORS // (rows * heads)) if execution.algorithms == "deterministic" else 1
    return backward_bytes(tokens, rows, heads, config.num_key_value_heads, config.head_dim, parts)


def _filled_rows(config: ModelConfig, tokens: int, size: int) -> int:
    """Rows of no token that fill up each expert's place."""
    multiple = row_multiple(
        tokens * config.experts_per_token, config.num_experts, torch.float32 if size == FLOAT32 else torch.bfloat16
    )
    return config.num_experts * (multiple - 1)


def _shared_row_bytes(config: ModelConfig, phase: PhaseConfig, rows: int, size: int) -> int:
    """Where processes share rows: keys and values of whole rows."""
    return rows * 2 * config.num_key_value_heads * config.head_dim * size * phase.context_tokens


def _mask_bytes(config: ModelConfig, phase: PhaseConfig, contexts: int, rows: int) -> int:
    """As bool, and once more as float32 in their use.

    The sliding layers' one: a query and the keys of its block. Where processes share rows, a global layer's at a time.
    """
    one_piece = PIECE_TOKENS * phase.context_tokens if contexts > 1 else 0
    near = rows * phase.context_tokens // contexts * (config.window_tokens * 3 // 2)
    return (1 + FLOAT32) * (one_piece + (near if phase.context_tokens > config.window_tokens else 0))
