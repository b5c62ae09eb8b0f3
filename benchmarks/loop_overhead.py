"""A step of the training loop against the bare step: what loader, metrics, checks and the run log cost.

Contract: the loop is that of `seodang train` over a plan of packed documents on disk, from one update's end to the
next; the bare step is forward, backward, clipping and update of the same model by the same optimiser on the same
batches, which lie in memory. `equal` compares the losses of all steps. Checkpoints are not in it. The sides take turns,
a training each.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.loader import FINGERPRINT, make_plan
from benchmarks.result import Comparison, Found, Spread
from benchmarks.settings import Settings, SizeName
from pipeline.core.plans import Plan
from pipeline.core.runlog import StepLine
from trainer.config import LearningRate, ModelConfig, OptimizerConfig, PhaseConfig, TrainExecution
from trainer.data import BatchReader, TrainingBatch
from trainer.losses import compute_losses
from trainer.model.model import build_model
from trainer.optim import build_optimizer
from trainer.phase import train_segment
from trainer.presets import PRESETS

NAME = "loop-overhead"
VOCABULARY = 8192
SEED = 0
RATE = LearningRate(peak=1e-3, warmup_steps=0, decay_fraction=0.0)
SAME_LOSS = 1e-4  # relative, at every step


@dataclass(frozen=True)
class Load:
    preset: str
    context_tokens: int
    rows_per_batch: int
    steps: int
    rounds: int


LOADS: dict[SizeName, Load] = {"full": Load("small", 1024, 4, 12, 3), "quick": Load("tiny", 128, 2, 4, 1)}


@dataclass(frozen=True)
class Training:
    seconds: float  # CPU seconds of all steps but the first, which warms up
    losses: list[float]


def run(settings: Settings) -> Iterator[Found]:
    """The small model in float32."""
    load = LOADS[settings.size]
    model = PRESETS[load.preset]
    with tempfile.TemporaryDirectory() as folder:
        rows = load.steps * load.rows_per_batch
        plan = make_plan(Path(folder), rows, context_tokens=load.context_tokens, vocabulary_size=VOCABULARY)
        reader = BatchReader(plan, "cpu")
        starts = range(0, rows, load.rows_per_batch)
        batches = [reader.batch(start, load.rows_per_batch) for start in starts]
        loops: list[Training] = []
        bares: list[Training] = []
        for index in range(load.rounds):
            loops.append(_loop(plan, load, model, Path(folder) / f"run-{index}"))
            bares.append(_bare(batches, model))
    tokens = (load.steps - 1) * load.rows_per_batch * load.context_tokens
    ours, peer = (Spread.rate(tokens, [each.seconds for each in side]) for side in (loops, bares))
    pairs = zip(loops[0].losses, bares[0].losses, strict=True)
    yield Comparison(
        NAME,
        "a step with loader, metrics, checks and log",
        "tokens/s",
        ours,
        peer,
        "the bare step on batches in memory",
        f"generated: {load.rows_per_batch} x {load.context_tokens} tokens of packed documents, model `{load.preset}`",
        equal=all(math.isclose(one, other, rel_tol=SAME_LOSS) for one, other in pairs),
        notes={"overhead": peer.median / ours.median - 1},
    )


def _loop(plan: Plan, load: Load, model: ModelConfig, folder: Path) -> Training:
    ends: list[float] = []
    losses: list[float] = []

    def on_step(line: StepLine, done: int, steps: int) -> None:
        ends.append(time.process_time())
        losses.append(line.loss)

    segment = plan.segments[0]
    train_segment(
        model_config=model,
        optimizer_config=OptimizerConfig(),
        phase=PhaseConfig(
            name=segment.name,
            mix=segment.name,
            context_tokens=load.context_tokens,
            budget_tokens=segment.rows * load.context_tokens,
            rows_per_batch=load.rows_per_batch,
            learning_rate=RATE,
        ),
        plan=plan,
        segment=segment.name,
        vocabulary_size=VOCABULARY,
        tokenizer_fingerprint=FINGERPRINT,
        parent_checkpoint=None,
        folder=folder,
        seed=SEED,
        execution=TrainExecution(checkpoint_every_steps=load.steps, algorithms="fastest"),
        on_step=on_step,
    )
    return Training(ends[-1] - ends[0], losses)


def _bare(batches: list[TrainingBatch], config: ModelConfig) -> Training:
    model = build_model(config, VOCABULARY, SEED).train()
    optimizer = build_optimizer(model, OptimizerConfig())
    optimizer.set_learning_rate(RATE.peak)
    ends: list[float] = []
    losses: list[float] = []
    for batch in batches:
        optimizer.zero_grad()
        found = compute_losses(model, batch.token_ids_RT, batch.document_ids_RT, batch.loss_mask_RT)
        found.total.backward()
        optimizer.clip_gradients(math.hypot(*optimizer.gradient_norms().values()))
        optimizer.step()
        model.update_expert_bias(config.expert_bias_rate)
        losses.append(found.main.item())
        ends.append(time.process_time())
    return Training(ends[-1] - ends[0], losses)
