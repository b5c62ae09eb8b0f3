"""Train one segment of a mix plan: start or resume, step to its last row, audit, leave a checkpoint.

Contract: below the phase's folder lie `train.jsonl` and `checkpoints/`; call it again after any kind of end and it
goes on from the newest checkpoint, to the same bits on the CPU. The segment's rows are consumed exactly once, in plan
order, the last step taking what is left. A phase that is extended after a red gate is trained by further calls with
the longer chain and the same folder: each segment runs its own warm-up, stable part and decay.
Cost: that of the steps; a copy of the state every few, which is written while the next are made.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import torch

from pipeline.core.errors import InputError, UserError, unknown_name
from pipeline.core.plans import Plan, Segment
from pipeline.core.runlog import TRAIN_LOG, RunLog, StepLine, read_lines
from trainer.checkpoint import (
    CheckpointInfo,
    check_fits,
    checkpoints,
    load_parts,
    read_info,
    remove_partial,
)
from trainer.config import LearningRate, ModelConfig, OptimizerConfig, PhaseConfig, TrainExecution
from trainer.data import BatchReader
from trainer.devices import check_device
from trainer.guard import Recent, Seen
from trainer.imports import load_weights
from trainer.loop import deterministic, train_step
from trainer.metrics import losses_by_group, tokens_by_group
from trainer.model.model import MoEModel
from trainer.monitors import Monitor, open_monitors
from trainer.optim import MuonAdamW, build_optimizer
from trainer.parallel.ranks import ALONE, Ranks, start_ranks
from trainer.parallel.sharding import build_sharded
from trainer.parallel.state import MODEL, RANDOM_STATE, model_state, named_state
from trainer.precision import set_precision
from trainer.run import Run
from trainer.saving import CheckpointSaver
from trainer.schedule import learning_rate_at
from trainer.throughput import memory_bytes, peak_flops, step_flops

OnStep = Callable[[StepLine, int, int], None]  # (line, updates done in the segment, updates of the segment)


def train_segment(
    *,
    model_config: ModelConfig,
    optimizer_config: OptimizerConfig,
    phase: PhaseConfig,
    plan: Plan,
    segment: str,
    vocabulary_size: int,
    tokenizer_fingerprint: str,
    parent_checkpoint: Path | None,
    folder: Path,
    seed: int,
    execution: TrainExecution,
    weights: Path | None = None,
    on_step: OnStep | None = None,
) -> Path:
    """Train until the last row of `segment` and return the checkpoint there.

    Args:
        segment: Name of a segment of `plan`.
        parent_checkpoint: Where weights and optimiser state come from when the phase has none of its own yet;
            None at the start of a plan.
        folder: The phase's; shared by the phase's segments.
        seed: Of the initial weights, used at the start of a plan only.
        weights: A transformers folder to take them from instead, at the start of a plan; a phase that goes on from a
            checkpoint does not look at it.
        on_step: Called after each update, for progress.

    Raises `InputError` when plan, tokenizer, model or checkpoint do not fit together, `DivergedError` when the loss
    is not a number, AssertionError when the log does not add up to the plan.
    """
    found = _named(plan, segment)
    ranks = start_ranks(execution.parallel, execution.device)
    run = Run(phase, plan, found, folder, execution, found.first_row, found.rows, ranks)
    _check_run(run, tokenizer_fingerprint)
    ranks.first_does(lambda: remove_partial(folder))
    own = _own_checkpoint(run)
    place = own or parent_checkpoint
    info = CheckpointInfo(
        phase=phase.name,
        step=0,
        position=0,
        tokens=0,
        plan="",
        seed=seed,
        model=model_config.model_dump(mode="json"),
        vocabulary_size=vocabulary_size,
        tokenizer=tokenizer_fingerprint,
        parent="",
    )
    if place is not None:
        stored = read_info(place)
        check_fits(stored, place, plan, info)
        if own is not None and stored.position == run.end:
            return own
        info = stored if own is not None else stored.started(phase.name)
    if not run.segment.first_row <= info.position < run.end:
        stands = f"the checkpoint stands at row {info.position}" if place else "there is no checkpoint"
        raise InputError(
            f"segment `{segment}` starts at row {run.segment.first_row}, {stands}",
            where=str(place or folder),
            fix="train the segments before it first and give their last checkpoint",
        )
    return _started(run, model_config, optimizer_config, vocabulary_size, info, place, weights, on_step)


def train_branch(
    *,
    checkpoint: Path,
    optimizer_config: OptimizerConfig,
    phase: PhaseConfig,
    plan: Plan,
    tokens: int,
    folder: Path,
    execution: TrainExecution,
    on_step: OnStep | None = None,
) -> Path:
    """Decay the learning rate from any checkpoint of a phase over the rows that follow it, beside the phase.

    The rate falls linearly from the checkpoint's to the phase's floor. The phase's own checkpoints and log stay as they
    are; the branch has its own in `folder`, and goes on from them after a kill.

    Raises `UserError` when the checkpoint's rate has begun to fall already or too few rows follow it.
    """
    origin = read_info(checkpoint)
    segment = next((each for each in plan.segments if each.fingerprint == origin.plan), None)
    if segment is None:
        raise InputError(
            "the rows that the checkpoint was trained on are not in this plan",
            where=str(checkpoint),
            fix="finish the phase with `seodang train`, or name a checkpoint of its first rows",
        )
    whole = Run(phase, plan, segment, folder, execution, segment.first_row, segment.rows)
    rows = tokens // phase.context_tokens
    left = whole.end - origin.position
    if not 0 < rows <= left:
        raise UserError(
            f"a branch of {tokens:,} tokens is {rows} rows of {phase.context_tokens}; {left} follow the checkpoint",
            where=str(checkpoint),
            fix=f"use between {phase.context_tokens:,} and {left * phase.context_tokens:,} tokens, or an earlier "
            "checkpoint" if left else "name an earlier checkpoint: this one stands at the end of its segment",
        )  # fmt: skip
    done = whole.steps_done(origin.position)
    rate = learning_rate_at(done, whole.steps, phase.learning_rate)
    if rate != phase.learning_rate.peak:
        raise UserError(
            f"the learning rate is {rate:g} there, not the stable {phase.learning_rate.peak:g}",
            where=str(checkpoint),
            fix="name a checkpoint after the warm-up and before the decay, or set decay_fraction to 0",
        )
    decay = LearningRate(peak=rate, decay_fraction=1.0, floor_fraction=phase.learning_rate.floor_fraction)
    branch = phase.replaced(learning_rate=decay, batch_ramp=())
    ranks = start_ranks(execution.parallel, execution.device)
    run = Run(branch, plan, segment, folder, execution, origin.position, rows, ranks)
    ranks.first_does(lambda: remove_partial(folder))
    own = _own_checkpoint(run)
    info = read_info(own) if own is not None else origin.started(phase.name)
    if own is not None and info.position == run.end:
        return own
    config = ModelConfig.model_validate(dict(info.model))
    return _started(run, config, optimizer_config, info.vocabulary_size, info, own or checkpoint, None, on_step)


def _started(
    run: Run, model_config: ModelConfig, optimizer_config: OptimizerConfig, vocabulary_size: int, info: CheckpointInfo,
    place: Path | None, weights: Path | None, on_step: OnStep | None,
) -> Path:  # fmt: skip
    """Build the model, put `place` into it, or without one `weights`, and train to the end of the run."""
    check_compiles(run.phase, run.execution)
    with deterministic() if run.execution.algorithms == "deterministic" else nullcontext():
        torch.manual_seed(info.seed)
        device = run.ranks.device(run.execution.device)
        model = build_sharded(model_config, vocabulary_size, info.seed, device, run.ranks)
        model.recompute = run.execution.recompute
        set_precision(model, run.phase.precision)
        if run.execution.compile == "blocks":
            model.compile_blocks()
        optimizer = build_optimizer(model, optimizer_config)
        if place is not None:
            restore(place, model, optimizer, run.ranks)
        elif weights is not None:
            load_weights(weights, model, run.ranks)
        return _train(run, model, optimizer, info, on_step)


def restore(place: Path, model: MoEModel, optimizer: MuonAdamW, ranks: Ranks = ALONE) -> None:
    """Put a checkpoint's weights, buffers, optimiser state and random state in place, and check that they are."""
    tensors, _ = named_state(model, optimizer, ranks)
    load_parts(place, read_info(place), tensors, ranks)
    torch.set_rng_state(tensors[RANDOM_STATE])


def load_model(place: Path, device: str = "cpu", ranks: Ranks = ALONE) -> tuple[MoEModel, CheckpointInfo]:
    """The model of a checkpoint, for gates, export and generation, spread over `ranks`.

    Raises `InputError` when it is not whole, `UserError` when the device is not here.
    """
    check_device(device)
    info = read_info(place)
    config = ModelConfig.model_validate(dict(info.model))
    model = build_sharded(config, info.vocabulary_size, info.seed, ranks.device(device), ranks)
    load_parts(place, info, model_state(model, ranks), ranks, prefix=MODEL)
    return model.eval(), info


def _train(run: Run, model: MoEModel, optimizer: MuonAdamW, info: CheckpointInfo, on_step: OnStep | None) -> Path:
    """The steps from `info.position` to the segment's end; the checkpoint there."""
    log_path = run.folder / TRAIN_LOG
    ranks = run.ranks
    log: RunLog | None = None
    monitors = list[Monitor]()

    def open_log() -> None:
        nonlocal log, monitors
        log = RunLog.open(log_path, keep_steps=info.step)
        monitors = open_monitors(run.execution.monitors, run.folder, info.step)

    def tell(line: StepLine) -> None:
        for each in (log, *monitors):
            if each is not None:
                each.write(line)

    reader = BatchReader(run.plan, ranks.device(run.execution.device))
    model.train()
    place: Path | None = None
    try:
        ranks.first_does(open_log)
        _check_log_reaches(log_path, info)
        recent = Recent(optimizer.config.spike_guard, read_lines(log_path))
        ranks.wait()  # nobody writes while another reads
        with CheckpointSaver(run.folder, ranks, run.execution.keep_checkpoints) as saver:
            while info.position < run.end:
                line = _step(run, model, optimizer, reader, info, recent)
                ranks.first_does(partial(tell, line))
                info = info.advanced(line.rows, line.tokens, run.segment.fingerprint, run.end)
                done = run.steps_done(info.position)
                if on_step is not None and ranks.is_first:
                    on_step(line, done, run.steps)
                saver.check()
                if info.ends_segment or done % run.checkpoint_every == 0:
                    ranks.first_does(partial(_close_log, run, info, log_path))
                    place = saver.start(info, *named_state(model, optimizer, ranks))
    finally:
        for each in (log, *monitors):
            if each is not None:
                each.close()
    assert place is not None, "a segment has at least one row"
    return place


def _close_log(run: Run, info: CheckpointInfo, log_path: Path) -> None:
    """The log up to a checkpoint is right, and on disk before it."""
    if info.ends_segment and not run.is_branch:
        _audit(run, log_path)
    with log_path.open("rb") as handle:
        os.fsync(handle.fileno())


def _step(
    run: Run, model: MoEModel, optimizer: MuonAdamW, reader: BatchReader, info: CheckpointInfo, recent: Recent
) -> StepLine:
    """One update at `info.position` and its line."""
    started = time.perf_counter()
    rows = run.batches.rows_at(info.position - run.first_row)
    batch = reader.batch(info.position, rows)
    rate = learning_rate_at(run.steps_done(info.position), run.steps, run.phase.learning_rate)
    at_once = run.execution.rows_per_microbatch or rows
    result = train_step(
        model, optimizer, batch, learning_rate=rate, rows_per_microbatch=at_once, recent=recent, ranks=run.ranks
    )
    recent.add(Seen(result.losses.main, result.gradient_norm))
    token_losses = result.losses.token_losses_RT, result.losses.labelled_RT
    tokens_by_source = tokens_by_group(batch.sources)
    tokens = sum(tokens_by_source.values())
    by_source, by_language, by_domain = (
        losses_by_group(*token_losses, groups) for groups in (batch.sources, batch.languages, batch.domains)
    )
    seconds = time.perf_counter() - started
    flops = step_flops(model.config, model.vocabulary_size, batch.document_ids_RT.cpu().numpy())
    peak = run.ranks.config.processes * peak_flops(run.execution.device, run.phase.precision)
    return StepLine(
        phase=run.phase.name,
        step=info.step + 1,
        position=info.position,
        rows=rows,
        tokens=tokens,
        labelled_tokens=result.losses.labelled_tokens,
        loss=result.losses.main,
        mtp_loss=result.losses.mtp,
        balance_loss=result.losses.balance,
        learning_rate=rate,
        gradient_norm=result.gradient_norm,
        segment=run.segment.fingerprint,
        z=result.losses.z,
        mtp_acceptance=result.losses.mtp_acceptance,
        router_entropy=result.losses.router_entropy,
        gradient_norms=result.gradient_norms,
        update_norms=result.update_norms,
        skipped=result.skipped,
        loss_by_source=by_source,
        loss_by_language=by_language,
        loss_by_domain=by_domain,
        tokens_by_source=tokens_by_source,
        load_max_over_mean=result.load.max_over_mean,
        dead_experts=result.load.dead,
        seconds=seconds,
        tokens_per_second=tokens / seconds,
        flops_share=flops / seconds / peak if peak else 0.0,
        memory_bytes=int(run.ranks.largest(memory_bytes(run.execution.device))),
    )


def _named(plan: Plan, name: str) -> Segment:
    found = [segment for segment in plan.segments if segment.name == name]
    if not found:
        raise unknown_name("plan segment", name, [segment.name for segment in plan.segments], where=str(plan.store))
    return found[-1]


def _check_run(run: Run, tokenizer_fingerprint: str) -> None:
    """The plan's segment is one that this phase and tokenizer can be trained on."""
    segment, phase = run.segment, run.phase
    if segment.tokenizer != tokenizer_fingerprint:
        raise InputError(
            f"the mix was encoded with tokenizer {segment.tokenizer[:8]}, this run has {tokenizer_fingerprint[:8]}",
            where=segment.folder,
            fix="encode and mix again with this run's tokenizer",
        )
    if segment.context_tokens != phase.context_tokens:
        raise InputError(
            f"the mix has rows of {segment.context_tokens} tokens, the phase context_tokens {phase.context_tokens}",
            where=segment.folder,
            fix=f"set context_tokens of phase `{phase.name}` to {segment.context_tokens} or make the mix again",
        )


def check_compiles(phase: PhaseConfig, execution: TrainExecution) -> None:
    """Eight-bit products of processors are emulated by kernels that torch's compiler does not see into."""
    on_processor = torch.device(execution.device).type == "cpu"
    if execution.compile == "blocks" and phase.precision == "float8" and on_processor:
        raise UserError(
            "compiled blocks have no eight-bit products on a processor",
            where="training.compile",
            fix=f"set training.compile to none, or precision of phase `{phase.name}` to bfloat16",
        )


def _own_checkpoint(run: Run) -> Path | None:
    """The phase's newest checkpoint that is not past the segment."""
    within = [place for place in checkpoints(run.folder) if read_info(place).position <= run.end]
    return within[-1] if within else None


def _check_log_reaches(log_path: Path, info: CheckpointInfo) -> None:
    """The log was kept together with the checkpoint: its last step is the checkpoint's."""
    last = 0
    for line in read_lines(log_path):
        last = line["step"]
    if last != info.step:
        raise InputError(
            f"the run log ends at step {last}, the checkpoint stands at step {info.step}",
            where=str(log_path),
            fix="put the log back, or remove the phase's folder to train it from its start",
        )


def _audit(run: Run, log_path: Path) -> None:
    """The log's tokens by source are the plan's, to the token."""
    consumed: Counter[str] = Counter()
    rows = 0
    for line in read_lines(log_path):
        if line["segment"] == run.segment.fingerprint:
            consumed.update(line["tokens_by_source"])
            rows += line["rows"]
    planned: Counter[str] = Counter()
    for share in run.segment.shares:
        planned[share.source] += share.tokens_planned
    assert rows == run.segment.rows, f"{rows} rows trained, {run.segment.rows} planned"
    assert +consumed == +planned, f"tokens by source: trained {dict(consumed)}, planned {dict(planned)}"
