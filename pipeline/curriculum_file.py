"""The shape of a curriculum file: one file is one curriculum, each part checked by the config of whoever builds it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from mixes.spec import MixConfig
from pipeline.core.config import Config
from pipeline.core.takedown import FILE_ENDING
from pipeline.executors.config import ExecutionConfig
from pipeline.reviews import origins
from stages.config import SourceConfig
from stages.encode import EncodeConfig
from stages.split import SplitConfig
from stages.tokenizer.train import TokenizerConfig
from synth.config import Endpoint, SynthSet
from trainer.config import ModelChoice, OptimizerConfig, PhaseConfig, TrainExecution


class Curriculum(Config):
    """The whole file."""

    name: str = Field(min_length=1)
    store: str = Field(min_length=1)  # folder of all outputs
    seed: int = Field(default=0, ge=0)
    takedowns: str | None = None  # list of `seodang takedown`; null: beside the store, STORE.takedowns.jsonl
    sources: dict[str, SourceConfig] = Field(min_length=1)
    clean: tuple[dict[str, Any], ...] = ()  # ordered blocks, each a mapping of one name to its options
    split: SplitConfig = SplitConfig()
    tokenizer: TokenizerConfig
    endpoints: dict[str, Endpoint] = Field(default={})
    synth: dict[str, SynthSet] = Field(default={})
    encode: EncodeConfig = EncodeConfig()
    mixes: dict[str, MixConfig] = Field(min_length=1)
    model: ModelChoice = ModelChoice()
    optimizer: OptimizerConfig = OptimizerConfig()
    phases: tuple[PhaseConfig, ...] = Field(min_length=1)
    post: tuple[dict[str, Any], ...] = Field(default=(), max_length=0)  # no post-training phases in this version
    execution: ExecutionConfig = ExecutionConfig()
    training: TrainExecution = TrainExecution()  # how phases are trained here; never identity

    @field_validator("store")
    @classmethod
    def _store_is_a_folder(cls, store: str) -> str:
        if "://" in store:
            message = f"the store is a local or mounted folder in this version, not `{store}`; sources may be any URL"
            raise ValueError(message)
        return store

    @property
    def takedown_list(self) -> Path:
        """The file of the takedown list, whether or not there is one."""
        return Path(self.takedowns or f"{self.store.rstrip('/')}{FILE_ENDING}")

    @property
    def card_files(self) -> dict[str, str]:
        return {name: source.card for name, source in self.sources.items()}

    def origins(self, names: Iterable[str]) -> tuple[str, ...]:
        """The sources behind sources and synthetic sets."""
        return origins(names, self.sources, {name: getattr(one, "from_", ()) for name, one in self.synth.items()})
