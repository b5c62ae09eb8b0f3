"""The phases of a curriculum: train a mix, gate it, extend and train again while the light is red, hand on.

Contract: step kind `curriculum.train`, one step a phase. Inputs: `mix` (the phase's plan), `tokenizer`, `heldout` (the
split step), `previous` (the phase before, if any) and every `encode.*` step, from which further segments are planned.
After a red gate the phase appends one segment of its own mix to the plan, as a recorded `mix.PHASE+K` step, trains on
it and is gated again, at most `gate.rounds` times; a light that stays red is reported, and the curriculum goes on.
A first phase starts with the weights of the transformers folder in its step's paths, if there is one; their content
is identity.
Facts in the record: the final checkpoint, the last mix step, the verdicts.
Source: the extend-and-test loop of the K-EXAONE report (arXiv 2601.01739), section on context extension.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mixes.spec import MixConfig, PlanConfig
from pipeline.core.config import Config
from pipeline.core.plans import Plan, read_plan
from pipeline.core.record import ShardResult
from pipeline.core.rng import derive_seed
from pipeline.core.runlog import StepLine
from pipeline.core.steps import Step, StepTask
from pipeline.core.tokenizer import Tokenizer
from pipeline.executors import LocalExecutor
from pipeline.graph import Graph, Progress, Silent
from stages.split import heldout_documents
from trainer.config import GateConfig, ModelConfig, OptimizerConfig, PhaseConfig, TrainExecution

if TYPE_CHECKING:
    from trainer.evals.gate import GateVerdict, HeldOut

KIND = "curriculum.train"
VERSION = 4
HELD_OUT_ROWS = 64  # of the short-context check; ours
WEIGHTS_ROLE = "weights"  # in `StepTask.paths`, when a first phase starts from a transformers folder
MIX_KIND = "mixes.plan"
MIX_VERSION = 4
MIX_WORK = "mixes.plan:WORK"


class TrainConfig(Config):
    """Identity of a training step."""

    model: ModelConfig
    optimizer: OptimizerConfig
    phase: PhaseConfig
    mix: MixConfig
    short_context_tokens: int  # of the short-context check: the first phase's context
    seed: int


@dataclass(frozen=True)
class Surroundings:
    """How training runs here, and who is told; never identity."""

    progress: Progress = field(default_factory=Silent)
    on_step: Callable[[str, StepLine, int, int], None] | None = None  # segment name, line, steps done, steps
    on_gate: Callable[[GateVerdict], None] | None = None
    rows_per_microbatch: int | None = None
    training: TrainExecution = field(default_factory=TrainExecution)


_surroundings: ContextVar[Surroundings] = ContextVar("surroundings")


@contextmanager
def surrounded(by: Surroundings) -> Generator[None]:
    """Run training steps with these surroundings."""
    token = _surroundings.set(by)
    try:
        yield
    finally:
        _surroundings.reset(token)


def mix_step(config: PlanConfig, inputs: Mapping[str, str]) -> Step:
    """The step that plans one segment."""
    return Step(f"mix.{config.phase}", MIX_KIND, MIX_VERSION, config, dict(inputs), MIX_WORK)


class TrainWork:
    """Work of the step: see the module's contract."""

    def shard_count(self, task: StepTask) -> int:
        del task
        return 1

    def make_shard(self, task: StepTask, shard: int) -> ShardResult:
        del shard
        return Phase(task, _surroundings.get(Surroundings())).run()

    def finish(self, task: StepTask, results: Sequence[ShardResult]) -> Mapping[str, Any]:
        del task
        return dict(results[0].facts)


class Phase:
    """One phase being run."""

    def __init__(self, task: StepTask, around: Surroundings) -> None:
        self.task = task
        self.around = around
        self.config: TrainConfig = task.config
        self.tokenizer = Tokenizer.load(task.inputs["tokenizer"].folder / "tokenizer.json")
        # A private graph of what is finished: appended segments are steps like any other.
        self.graph = Graph(task.store, ())
        for output in task.inputs.values():
            self.graph.adopt(output)

    def run(self) -> ShardResult:
        gate = self.config.phase.gate
        mix = self.task.inputs["mix"].name
        checkpoint = self.train(mix)
        verdicts: list[GateVerdict] = []
        if gate is not None:
            held_out = self.held_out()
            baseline = self.baseline(held_out)
            verdicts.append(self.judge(gate, checkpoint, mix, held_out, baseline, 0))
            for extra in range(1, gate.rounds + 1):
                if verdicts[-1].green:
                    break
                mix = self.append_segment(gate, mix, extra)
                checkpoint = self.train(mix)
                verdicts.append(self.judge(gate, checkpoint, mix, held_out, baseline, extra))
        return ShardResult(
            counts={"steps": self.steps_done(checkpoint), "rows": self.plan(mix).rows - self.first_row()},
            facts={
                "checkpoint": checkpoint.relative_to(self.task.folder).as_posix(),
                "mix": mix,
                "mix_folders": [segment.folder for segment in self.own_segments(mix)],
                "green": [verdict.green for verdict in verdicts],
                "niah_mean": [round(verdict.niah_mean, 6) for verdict in verdicts],
                "reasons": list(verdicts[-1].reasons) if verdicts else [],
            },
        )

    def plan(self, mix: str) -> Plan:
        return read_plan(self.task.store, self.graph.node(mix).folder)

    def first_row(self) -> int:
        """Row of the chain at which this phase begins."""
        return self.plan(self.task.inputs["mix"].name).segments[-1].first_row

    def own_segments(self, mix: str) -> list[Any]:
        first = self.first_row()
        return [segment for segment in self.plan(mix).segments if segment.first_row >= first]

    def steps_done(self, checkpoint: Path) -> int:
        from trainer.checkpoint import read_info

        return read_info(checkpoint).step

    def parent(self) -> Path | None:
        """The last checkpoint of the phase before."""
        if "previous" not in self.task.inputs:
            return None
        previous = self.task.inputs["previous"]
        return previous.folder / str(previous.record.facts["checkpoint"])

    def weights(self) -> Path | None:
        """The transformers folder that a first phase starts from, if it does."""
        given = self.task.paths.get(WEIGHTS_ROLE)
        return Path(given[0]) if given else None

    def train(self, mix: str) -> Path:
        """Train the last segment of the plan that `mix` ends."""
        from trainer.phase import train_segment

        plan = self.plan(mix)
        segment = plan.segments[-1]
        told = self.around.on_step
        return train_segment(
            model_config=self.config.model,
            optimizer_config=self.config.optimizer,
            phase=self.config.phase,
            plan=plan,
            segment=segment.name,
            vocabulary_size=self.tokenizer.vocabulary_size,
            tokenizer_fingerprint=self.task.inputs["tokenizer"].record.fingerprint,
            parent_checkpoint=self.parent(),
            folder=self.task.folder,
            seed=derive_seed("weights", self.config.seed),
            execution=self.execution(),
            weights=self.weights(),
            on_step=None if told is None else lambda line, done, steps: told(segment.name, line, done, steps),
        )

    def execution(self) -> TrainExecution:
        """As the file says; `execution.rows_per_microbatch` holds where `training` has none."""
        told = self.around.training
        rows = told.rows_per_microbatch or self.around.rows_per_microbatch
        return told.replaced(rows_per_microbatch=rows)

    def held_out(self) -> HeldOut:
        """Held-out texts to hide needles in, and rows for the short-context check."""
        from trainer.evals.gate import HeldOut
        from trainer.evals.short_context import pack_held_out

        texts = [str(text) for text in heldout_documents(self.task.inputs["heldout"].folder)["text"].to_pylist()]
        eos = np.array([self.tokenizer.eos_id], np.int64)
        documents = [np.concatenate([np.asarray(ids, np.int64), eos]) for ids in self.tokenizer.encode_batch(texts)]
        return HeldOut(tuple(texts), pack_held_out(documents, self.config.short_context_tokens, HELD_OUT_ROWS))

    def baseline(self, held_out: HeldOut) -> float:
        """Short-context loss of the model that this phase began with: in a first, of its first weights."""
        from trainer.evals.short_context import short_context_loss
        from trainer.imports import load_weights
        from trainer.model.model import build_model
        from trainer.phase import load_model

        parent, device = self.parent(), self.around.training.device
        if parent is not None:
            return short_context_loss(load_model(parent, device)[0], held_out.short_rows)
        seed = derive_seed("weights", self.config.seed)
        model = build_model(self.config.model, self.tokenizer.vocabulary_size, seed, device)
        weights = self.weights()
        if weights is not None:
            load_weights(weights, model)
        return short_context_loss(model, held_out.short_rows)

    def judge(
        self, gate: GateConfig, checkpoint: Path, mix: str, held_out: HeldOut, baseline: float, round_number: int
    ) -> GateVerdict:
        from trainer.evals.gate import run_gate
        from trainer.phase import load_model

        model, _ = load_model(checkpoint, self.around.training.device)
        verdict = run_gate(
            model,
            self.tokenizer.encode,
            gate,
            held_out,
            phase=self.config.phase.name,
            round_number=round_number,
            checkpoint=checkpoint.name,
            plan=self.plan(mix).fingerprint,
            context_tokens=self.config.phase.context_tokens,
            baseline=baseline,
            seed=derive_seed("needles", self.config.seed, self.config.phase.name),
            folder=self.task.folder,
        )
        if self.around.on_gate is not None:
            self.around.on_gate(verdict)
        return verdict

    def append_segment(self, gate: GateConfig, mix: str, extra: int) -> str:
        """Plan one more segment of the phase's mix behind `mix`; returns its step's name."""
        phase = self.config.phase
        config = PlanConfig(
            mix=self.config.mix,
            phase=f"{phase.name}+{extra}",
            context_tokens=phase.context_tokens,
            budget_tokens=max(gate.extension_tokens or phase.budget_tokens // 4, phase.tokens_per_step),
            rows_per_batch=phase.rows_per_batch,
            seed=derive_seed("mix", self.config.seed, phase.name, extra),
        )
        encodes = {role: output.name for role, output in self.task.inputs.items() if role.startswith("encode.")}
        step = mix_step(config, {**encodes, "previous": mix})
        if step.name not in self.graph.nodes:
            self.graph.run_node(self.graph.add(step), LocalExecutor(1), self.around.progress)
        return step.name


WORK = TrainWork()
