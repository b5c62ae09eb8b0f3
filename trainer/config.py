"""What a user writes about training: the model's choice, the optimiser, the phases and their gates.

Contract: frozen, strict data without torch, so that planning a curriculum never loads it. `ModelConfig` and
`PRESETS` come from their own files and are offered here too: this is the room's one door for configs.
Source: schedule and coefficients follow the K-EXAONE report (arXiv 2601.01739) where it states them; batch
sizes, weight decay, warm-up and thresholds are not published and are ours.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from pipeline.core.config import Config
from pipeline.core.errors import nearest
from trainer.architecture import ModelConfig, ParameterCount, count_parameters
from trainer.presets import PRESETS

__all__ = [
    "DEFAULT_PRESET",
    "PRESETS",
    "GateConfig",
    "LearningRate",
    "ModelChoice",
    "ModelConfig",
    "MonitorName",
    "OptimizerConfig",
    "ParallelConfig",
    "ParameterCount",
    "PhaseConfig",
    "Precision",
    "RampStage",
    "SpikeGuard",
    "TrainExecution",
    "count_parameters",
]

DEFAULT_PRESET = "tiny"
Fraction = Annotated[float, Field(ge=0, le=1)]
MonitorName = Literal["tensorboard", "wandb"]
Precision = Literal["float32", "bfloat16", "float8"]


class ModelChoice(Config):
    """A preset, or the model of a transformers folder, and what to change: any other field overrides that of its name.

    With `from` the first phase starts with the folder's weights; what decides the shape or meaning of a weight must
    then be the folder's (`trainer.transformers_folder.FREE_FIELDS` are the others).
    """

    preset: str | None = None  # null: `tiny`, or the folder's
    from_: str | None = Field(default=None, alias="from", min_length=1)  # an `exaone_moe` folder on this machine
    hidden_size: int | None = None
    num_layers: int | None = None
    num_attention_heads: int | None = None
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    window_tokens: int | None = None
    layer_pattern: str | None = None
    dense_layers: int | None = None
    intermediate_size: int | None = None
    num_experts: int | None = None
    experts_per_token: int | None = None
    num_shared_experts: int | None = None
    expert_intermediate_size: int | None = None
    routed_scaling: float | None = None
    rope_theta: float | None = None
    rms_norm_eps: float | None = None
    mtp_layers: int | None = None
    tie_embeddings: bool | None = None
    initializer_range: float | None = None
    max_context_tokens: int | None = None
    balance_loss: float | None = None
    expert_bias_rate: float | None = None
    mtp_loss: float | None = None
    z_loss: float | None = None

    @field_validator("preset")
    @classmethod
    def check_preset_exists(cls, preset: str | None) -> str | None:
        if preset is not None and preset not in PRESETS:
            close = nearest(preset, PRESETS)
            hint = f"did you mean {close!r}? " if close else ""
            raise ValueError(f"no preset {preset!r}: {hint}known: {', '.join(PRESETS)}")
        return preset

    @model_validator(mode="after")
    def check_model_fits(self) -> Self:
        if self.from_ is None:
            self.resolve()
        elif self.preset is not None:
            raise ValueError(f"preset is {self.preset!r}, and `from` names a folder with sizes of its own: keep one")
        return self

    def resolve(self, found: ModelConfig | None = None) -> ModelConfig:
        """The architecture itself, `found` being that of the folder named by `from`.

        Raises ValueError when sizes do not fit.
        """
        assert (found is None) == (self.from_ is None)
        base = found or PRESETS[self.preset or DEFAULT_PRESET]
        overrides = self.model_dump(exclude={"preset", "from_"}, exclude_none=True)
        try:
            return ModelConfig(**{**base.model_dump(), **overrides})
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            field = ".".join(str(part) for part in first["loc"])
            raise ValueError(f"{field}: {first['msg']}" if field else first["msg"]) from None


class LearningRate(Config):
    """Warm-up, stable, decay: linear up to `peak`, flat, linear down to `floor_fraction` of it.

    The report's peak is 3e-4 with Muon at 236B; the lengths of its three parts are not published.
    """

    peak: float = Field(default=3e-4, gt=0)
    warmup_steps: int | None = Field(default=None, ge=0)
    warmup_fraction: Fraction | None = None  # of the phase's steps; at most one of the two is given
    decay_fraction: Fraction = 0.0  # the last part of the phase's steps; 0 keeps the stable rate to the end
    floor_fraction: Fraction = 0.1  # of peak, reached at the last step of a decay

    @model_validator(mode="after")
    def check_parts(self) -> Self:
        if self.warmup_steps is not None and self.warmup_fraction is not None:
            raise ValueError("warmup_steps and warmup_fraction are both given: keep one of them")
        if (self.warmup_fraction or 0.0) + self.decay_fraction > 1:
            raise ValueError(
                f"warmup_fraction {self.warmup_fraction} and decay_fraction {self.decay_fraction} are more than "
                f"the phase: use decay_fraction <= {1 - (self.warmup_fraction or 0.0):g}"
            )
        return self


class SpikeGuard(Config):
    """Skip an update whose loss or gradient norm stands out from the steps before it.

    Window and deviations are those of OLMo-core's SkipStepOptimizer (128 steps, 6 standard deviations), which also
    starts at half a window. Skipped steps stay in the window, so that a lasting change is accepted after a while.
    """

    window_steps: int = Field(default=128, ge=4)
    deviations: float = Field(default=6.0, gt=0)


class OptimizerConfig(Config):
    """Muon for hidden matrices, AdamW for the rest, one learning rate for both.

    Muon's step is scaled to the size of an AdamW step (0.2 sqrt(max(rows, columns)), arXiv 2502.16982), which is
    why one rate serves both. Its values are those of that paper; the report names none.
    """

    weight_decay: float = Field(default=0.1, ge=0)
    muon_momentum: float = Field(default=0.95, ge=0, lt=1)
    newton_schulz_steps: int = Field(default=5, gt=0, lt=100)
    adamw_beta1: float = Field(default=0.9, ge=0, lt=1)
    adamw_beta2: float = Field(default=0.95, ge=0, lt=1)
    adamw_eps: float = Field(default=1e-8, gt=0)
    adamw_rate_ratio: float = Field(default=1.0, gt=0)  # AdamW's learning rate over Muon's
    gradient_clip_norm: float = Field(default=1.0, gt=0)
    spike_guard: SpikeGuard | None = None  # None: every finite update is made


class GateConfig(Config):
    """What must hold before the next phase: retrieval at every length and depth, and no loss of short context.

    The report asks for "near perfect" retrieval and gives no threshold or grid; these are ours.
    """

    niah: Fraction = 0.99  # least share of needles found, in the worst cell's length
    short_context: float = Field(default=0.01, ge=0)  # largest relative rise of the short-context loss
    rounds: int = Field(default=3, ge=0)  # extra rounds of training after a red light
    extension_tokens: int | None = Field(default=None, gt=0)  # budget of each; None: a quarter of the phase's
    lengths: int = Field(default=4, gt=0)  # grid: context lengths up to the phase's
    depths: int = Field(default=5, gt=0)  # grid: places of the needle in the context
    needles_per_cell: int = Field(default=4, gt=0)


class RampStage(Config):
    """A smaller batch for the first part of a phase."""

    until_tokens: int = Field(gt=0)  # of the phase; the stage's last step may reach beyond
    rows_per_batch: int = Field(gt=0)


class PhaseConfig(Config):
    """One stretch of training on one mix at one context length."""

    name: str = Field(min_length=1)
    mix: str = Field(min_length=1)
    context_tokens: int = Field(gt=0)
    budget_tokens: int = Field(gt=0)
    rows_per_batch: int = Field(default=8, gt=0)  # rows of context_tokens in one step, over all ranks
    batch_ramp: tuple[RampStage, ...] = ()  # stages before the full batch, in order of until_tokens
    learning_rate: LearningRate = LearningRate()
    gate: GateConfig | None = None
    precision: Precision = "float32"  # of activations and products; weights and their state are float32 in all three
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def check_one_step_fits(self) -> Self:
        if self.budget_tokens < self.tokens_per_step:
            raise ValueError(
                f"budget_tokens is {self.budget_tokens:,} but one step takes {self.tokens_per_step:,} (rows_per_batch "
                f"{self.rows_per_batch} x context_tokens {self.context_tokens}): "
                f"use budget_tokens >= {self.tokens_per_step:,}"
            )
        return self

    @model_validator(mode="after")
    def check_ramp_rises(self) -> Self:
        tokens = [stage.until_tokens for stage in self.batch_ramp]
        rows = [*(stage.rows_per_batch for stage in self.batch_ramp), self.rows_per_batch]
        if tokens != sorted(set(tokens)) or rows != sorted(set(rows)):
            raise ValueError(
                f"batch_ramp goes to {tokens} tokens with {rows[:-1]} rows, then rows_per_batch {rows[-1]}: both must "
                "rise from stage to stage"
            )
        return self

    @property
    def tokens_per_step(self) -> int:
        return self.rows_per_batch * self.context_tokens

    @property
    def total_steps(self) -> int:
        """Whole steps in the budget; the rest of less than a step is not trained on."""
        return self.budget_tokens // self.tokens_per_step


class ParallelConfig(Config):
    """Over how many processes a step is shared out; `data * context` of them in all."""

    data: int = Field(default=1, gt=0)  # shares of a batch's rows
    expert: int = Field(default=1, gt=0)  # shares of each layer's experts; a divisor of `data`
    context: int = Field(default=1, gt=0)  # stretches of each row; a stretch is a multiple of the sliding window

    @model_validator(mode="after")
    def check_experts_fit(self) -> Self:
        if self.data % self.expert:
            divisors = [n for n in range(1, self.data + 1) if self.data % n == 0]
            raise ValueError(f"expert is {self.expert} but must divide data ({self.data}): one of {divisors}")
        return self

    @property
    def processes(self) -> int:
        return self.data * self.context


class TrainExecution(Config):
    """How a phase runs here. No field changes what is trained, but rows_per_microbatch the order of sums."""

    device: str = Field(default="cpu", pattern=r"^(cpu|cuda(:\d+)?)$")
    rows_per_microbatch: int | None = Field(default=None, gt=0)  # None: the whole batch at once
    checkpoint_every_steps: int | None = Field(default=None, gt=0)  # None: three a segment, at least every 1000 steps
    parallel: ParallelConfig = ParallelConfig()
    recompute: Literal["none", "sparse", "blocks"] = "none"  # layers whose activations are made again, not kept
    # Compiled blocks are fused by torch's compiler, whose bits differ from plain ones and between its versions.
    compile: Literal["none", "blocks"] = "none"
    algorithms: Literal["deterministic", "fastest"] = "deterministic"  # of torch's kernels, where there are several
    keep_checkpoints: int = Field(default=2, gt=0)  # newest of a phase; the last of each segment is always kept
    monitors: tuple[MonitorName, ...] = ()  # told each step beside the run log; extras of the same names
    # For the estimate before launch (`seodang plan`). None: what the device is found to have.
    memory_gib: float | None = Field(default=None, gt=0)  # of a process; when given, more is refused before launch
    peak_tflops: float | None = Field(default=None, gt=0)  # of a process: dense, bfloat16 (eight bits count double)
    expected_flops_share: float = Field(default=0.4, gt=0, le=1)  # MFU to count days with; ours

    @model_validator(mode="after")
    def check_compiled_is_not_called_deterministic(self) -> Self:
        if self.compile != "none" and self.algorithms == "deterministic":
            raise ValueError(
                f"compile is {self.compile!r}, whose results may differ from one compiler version to the next, and "
                "algorithms is 'deterministic': use algorithms 'fastest', or compile 'none'"
            )
        return self
