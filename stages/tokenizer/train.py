"""The tokenizer step: counts of words and phrases in, `tokenizer.json`, its settings and its tiktoken form out.

Contract: the same documents give the same bytes in any order, any sharding and any number of counting tasks. A
vocabulary is trained anew (`train`), goes on from an older one's most used tokens (`extend`), or is taken over as it is
(`path`).
The plain `tokenizer.json` loads in tokenizers and transformers; the chat template stands in `tokenizer_config.json`.
Progress is told on stderr every few seconds and kept in the step's folder: a killed training goes on where it was.
Cost: see `stages.tokenizer.superbpe`; one process, memory as told in `stages.tokenizer.words`.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from pipeline.core.chat import BOS, EOS, PAD
from pipeline.core.config import Config
from pipeline.core.errors import ConfigError
from pipeline.core.files import write_bytes, write_json
from pipeline.core.record import ShardResult
from pipeline.core.steps import StepTask
from pipeline.core.tokenizer import FILE, Tokenizer
from stages.tokenizer.checkpoint import Checkpoint
from stages.tokenizer.counts import Run, read_run, run_files
from stages.tokenizer.quotas import CLASSES, quotas
from stages.tokenizer.retain import Retained, retain
from stages.tokenizer.sample import COUNTS
from stages.tokenizer.spelling import SMALLEST
from stages.tokenizer.superbpe import (
    LARGEST,
    Plan,
    Start,
    Trained,
    build,
    superword_count,
    supported_vocabulary,
    train_runs,
)
from stages.tokenizer.tiktoken_form import write_tiktoken_form
from stages.tokenizer.words import RARE, Runs

KIND = "stages.tokenizer"
VERSION = 2
TOKENIZER_ROLE = "tokenizer"  # in `StepTask.paths`, when a tokenizer is given
CHECKPOINT = "checkpoint.npz"  # in the step's folder while it trains
TEMPLATE = Path(__file__).with_name("chat_template.jinja")
TOLD_SECONDS = 15.0


class QuotaConfig(Config):
    """Parts of the superwords by class of language; the defaults are the K-EXAONE report's 2 : 3 : 1."""

    en: int = Field(default=2, ge=0)  # English and source code
    ko: int = Field(default=3, ge=0)
    multilingual: int = Field(default=1, ge=0)  # every other language
    shortage: Literal["error", "fill"] = "error"  # fill: the other classes get what one has too little text for

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not any(self.ratios.values()):
            raise ValueError("give at least one class a part above 0")
        return self

    @property
    def ratios(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in CLASSES}


class TrainTokenizerConfig(Config):
    """How to train. The superword share is the K-EXAONE report's (about 20 % of the vocabulary); the rest is ours."""

    vocabulary: int = Field(default=153_600, gt=SMALLEST, lt=LARGEST)  # tokens, reserved ids included
    superword_share: float = Field(default=0.2, ge=0.0, le=0.8)
    maximum_bytes: int = Field(default=1_000_000_000, gt=0)  # of UTF-8 text
    minimum_count: int = Field(default=2, ge=1)  # occurrences of a pair
    minimum_word_count: int = Field(default=1, ge=1, le=RARE)  # rarer words are left out: for text beyond memory
    maximum_words: int = Field(default=4, ge=2)  # in a superword; SuperBPE's trainer has the same bound
    quotas: QuotaConfig | None = QuotaConfig()  # null: superwords by count alone


class ExtendTokenizerConfig(TrainTokenizerConfig):
    """Go on from an older vocabulary: 70 % of it is kept in the K-EXAONE report."""

    from_: str = Field(alias="from", min_length=1)  # a tokenizer.json of byte-level BPE
    keep: float = Field(default=0.7, gt=0.0, le=1.0)  # share of the old tokens
    weights: dict[str, int] = Field(default={})  # of `language/domain`, a language or a domain; else 1


class TokenizerConfig(Config):
    """Train a tokenizer, extend an older one, or take the one at `path`."""

    train: TrainTokenizerConfig | None = None
    extend: ExtendTokenizerConfig | None = None
    path: str | None = None

    @model_validator(mode="after")
    def _one_of_three(self) -> Self:
        if sum(given is not None for given in (self.train, self.extend, self.path)) != 1:
            raise ValueError("give one of `train`, `extend` and `path`")
        return self

    @property
    def trained(self) -> TrainTokenizerConfig | None:
        """How text becomes a vocabulary, unless one is taken over."""
        return self.train or self.extend

    @property
    def file(self) -> str | None:
        """The tokenizer.json that is read."""
        return self.extend.from_ if self.extend is not None else self.path

    def identity(self) -> TokenizerConfig:
        """The config without where files lie: their content is identity, their path is not."""
        if self.path is not None:
            return TokenizerConfig(path=FILE)
        return self if self.extend is None else TokenizerConfig(extend=self.extend.replaced(from_=FILE))


class TokenizerWork:
    """The step's work: one shard that is the whole tokenizer."""

    def shard_count(self, task: StepTask) -> int:
        return 1

    def make_shard(self, task: StepTask, shard: int) -> ShardResult:
        """Raises `ConfigError` when the text does not support the vocabulary, with the size that would work."""
        config: TokenizerConfig = task.config
        facts = _take_over(task) if config.trained is None else _train(task, config)
        write_json(task.folder / "tokenizer_config.json", tokenizer_settings())
        reason = write_tiktoken_form(Tokenizer.load(task.folder), task.folder)
        facts |= {"no_tiktoken_form": reason} if reason else {}
        return ShardResult(counts={"tokens": facts["vocabulary"]}, facts=facts)

    def finish(self, task: StepTask, results: Sequence[ShardResult]) -> Mapping[str, Any]:
        return dict(results[0].facts)


WORK = TokenizerWork()


def tokenizer_settings() -> dict[str, Any]:
    """The content of `tokenizer_config.json`."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "pad_token": PAD,
        "add_bos_token": False,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "chat_template": TEMPLATE.read_text(encoding="utf-8").rstrip("\n"),
    }


def plan_of(config: TrainTokenizerConfig, vocabulary: int) -> Plan:
    """What to train for a vocabulary of this size."""
    return Plan(
        vocabulary=vocabulary,
        superwords=superword_count(vocabulary, config.superword_share),
        minimum_count=config.minimum_count,
        minimum_word_count=config.minimum_word_count,
        maximum_words=config.maximum_words,
        ratios=config.quotas.ratios if config.quotas else {},
        fills=config.quotas is not None and config.quotas.shortage == "fill",
    )


def _take_over(task: StepTask) -> dict[str, Any]:
    path = Path(task.paths[TOKENIZER_ROLE][0])
    tokenizer = Tokenizer.load(path)
    file = path / FILE if path.is_dir() else path
    write_bytes(task.folder / FILE, file.read_bytes())
    return {"fingerprint": tokenizer.fingerprint, "vocabulary": tokenizer.vocabulary_size}


def _train(task: StepTask, config: TokenizerConfig) -> dict[str, Any]:
    options = config.trained
    assert options is not None
    files = run_files(task.inputs[COUNTS].folder)
    sampled = task.inputs[COUNTS].record.facts

    def runs() -> Iterator[Run]:
        return map(read_run, files)

    plan = plan_of(options, options.vocabulary)
    retained = _retained(task, config.extend, runs, plan) if config.extend is not None else Retained(Start(), {})
    checkpoint = Checkpoint.opened(task.folder / CHECKPOINT)
    trained = train_runs(runs, plan, retained.start, Teller(task.name).tell, checkpoint)
    if not trained.complete:
        works = supported_vocabulary(
            lambda size: train_runs(runs, plan_of(options, size), retained.start),
            options.superword_share,
            options.vocabulary,
        )
        raise _too_little(task, options, trained, int(sampled["sampled_bytes"]), works)
    data = build(trained).to_str(pretty=False).encode("utf-8")
    write_bytes(task.folder / FILE, data)
    checkpoint.remove()
    return {
        "fingerprint": hashlib.sha256(data).hexdigest(),
        "vocabulary": len(trained.tokens),
        "merges": len(trained.merges),
        "superwords": trained.superwords,
        "superwords_by_class": dict(trained.by_class),
        "superwords_by_language": dict(trained.by_language),
        **retained.facts,
        **sampled,
    }


def _retained(task: StepTask, config: ExtendTokenizerConfig, runs: Runs, plan: Plan) -> Retained:
    path = Path(task.paths[TOKENIZER_ROLE][0])
    retained = retain(path, runs, config.keep, config.weights, config.minimum_word_count)
    if len(retained.start.tokens) > plan.words:
        raise ConfigError(
            f"{len(retained.start.tokens)} tokens are kept of the older vocabulary, stage 1 has {plan.words} in all",
            where=task.name,
            fix=f"set `keep` to at most {config.keep * plan.words / len(retained.start.tokens):.3f}",
        )
    return retained


def _too_little(
    task: StepTask, options: TrainTokenizerConfig, trained: Trained, sampled_bytes: int, works: int | None
) -> ConfigError:
    wanted = superword_count(options.vocabulary, options.superword_share)
    held = f"{len(trained.tokens)} tokens, {trained.superwords} of them superwords"
    fix = f"set `vocabulary: {works}`" if works else "set `superword_share: 0.0`"
    if options.quotas is not None and len(trained.tokens) >= options.vocabulary - wanted:
        of_class = quotas(wanted, options.quotas.ratios)
        short = [
            f"{trained.by_class[name]} of {count} {name}"
            for name, count in of_class.items()
            if trained.by_class[name] < count
        ]
        held += f" ({', '.join(short)})"
        fix += ", or `quotas: {shortage: fill}`, or `quotas: null`"
    return ConfigError(
        f"{sampled_bytes:,} bytes of text support {held}: too few for `vocabulary: {options.vocabulary}`, "
        f"`superword_share: {options.superword_share}`",
        where=task.name,
        fix=f"{fix}, or give more text",
    )


@dataclass
class Teller:
    """Tells how far training is, at most every `TOLD_SECONDS`."""

    step: str
    told: float = field(default_factory=time.monotonic)

    def tell(self, stage: str, tokens: int, of: int) -> None:
        if time.monotonic() - self.told > TOLD_SECONDS:
            self.told = time.monotonic()
            print(f"  {self.step}: {stage}, {tokens:,} of {of:,} tokens", file=sys.stderr, flush=True)
