"""A step of the training loop against the bare step: what loader, metrics, checks and the run log cost.

Contract: the loop is that of `seodang train` over a plan of packed documents on disk, from one update's end to the
next; the bare step is forward, backward, clipping and update of the same model by the same optimiser on the same
batches, which lie in memory. A bare step follows each of the loop's, outside its time, so that both see the same
machine. `equal` compares the losses of all steps. Checkpoints are not in it.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterable, Iterator
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
from trainer.phase import OnStep, train_segment
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


LOADS: dict[SizeName, Load] = {"full": Load("small", 1024, 4, 24), "quick": Load("tiny", 128, 2, 4)}


class BareSteps:
    """One update after the other of a model of its own."""

    def __init__(self, config: ModelConfig, batches: Iterable[TrainingBatch]) -> None:
        self._model = build_model(config, VOCABULARY, SEED).train()
        self._optimizer = build_optimizer(self._model, OptimizerConfig())
        self._optimizer.set_learning_rate(RATE.peak)
        self._batches = iter(batches)

    def next_loss(self) -> float:
        batch, model, optimizer = next(self._batches), self._model, self._optimizer
        optimizer.zero_grad()
        found = compute_losses(model, batch.token_ids_RT, batch.document_ids_RT, batch.loss_mask_RT)
        found.total.backward()
        optimizer.clip_gradients(math.hypot(*optimizer.gradient_norms().values()))
        optimizer.step()
        model.update_expert_bias(model.config.expert_bias_rate)
        return found.main.item()


class Sides:
    """CPU seconds and losses of the loop's steps and of the bare ones."""

    def __init__(self, bare: BareSteps) -> None:
        self.loop_seconds, self.bare_seconds = list[float](), list[float]()
        self.loop_losses, self.bare_losses = list[float](), list[float]()
        self._bare = bare
        self._started = time.process_time()

    def on_step(self, line: StepLine, done: int, steps: int) -> None:
        ended = time.process_time()
        self.loop_seconds.append(ended - self._started)
        self.loop_losses.append(line.loss)
        self.bare_losses.append(self._bare.next_loss())
        self._started = time.process_time()
        self.bare_seconds.append(self._started - ended)


def run(settings: Settings) -> Iterator[Found]:
    """The small model in float32."""
    load = LOADS[settings.size]
    model = PRESETS[load.preset]
    with tempfile.TemporaryDirectory() as folder:
        rows = load.steps * load.rows_per_batch
        plan = make_plan(Path(folder), rows, context_tokens=load.context_tokens, vocabulary_size=VOCABULARY)
        reader = BatchReader(plan, "cpu")
        batches = [reader.batch(start, load.rows_per_batch) for start in range(0, rows, load.rows_per_batch)]
        sides = Sides(BareSteps(model, batches))
        _train(plan, load, model, Path(folder) / "run", sides.on_step)
    tokens = load.rows_per_batch * load.context_tokens
    # The first step of each side warms up.
    ours, peer = (Spread.rate(tokens, seconds[1:]) for seconds in (sides.loop_seconds, sides.bare_seconds))
    pairs = zip(sides.loop_losses, sides.bare_losses, strict=True)
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


def _train(plan: Plan, load: Load, model: ModelConfig, folder: Path, on_step: OnStep) -> None:
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
