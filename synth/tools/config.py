"""Configuration of `tools` sets: environments with typed tools, a policy, a task and pass criteria."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from pipeline.core.config import Config
from pipeline.core.languages import LANGUAGES, Language
from synth.sourced import Deduplicate, JudgeConfig, refuse_sampling

DomainName = Literal["library", "clinic", "warehouse", "trains", "cards", "home", "meetings", "restaurant"]
DOMAIN_NAMES: tuple[DomainName, ...] = (
    "library", "clinic", "warehouse", "trains", "cards", "home", "meetings", "restaurant",
)  # fmt: skip


class ToolsConfig(Config):
    """Tool environments with the transcript of their reference solution (`synth/tools/`)."""

    kind: Literal["tools"]
    documents: int = Field(ge=1)
    source: Literal["generator", "endpoint"] = "generator"  # who invents the scenarios; both are validated alike
    domains: tuple[DomainName, ...] = Field(default=DOMAIN_NAMES, min_length=1)
    languages: tuple[Language, ...] = Field(default=LANGUAGES, min_length=1)
    reasoning_permille: int = Field(default=800, ge=0, le=1000)  # transcripts that show the assistant's thoughts; ours
    seed: int = Field(default=0, ge=0)
    documents_per_shard: int = Field(default=500, ge=1)
    deduplicate: Deduplicate = "exact"  # over all shards
    endpoint: str = ""  # a name under `endpoints:`, for `source: endpoint` and for the judge; empty: none
    samples: int = Field(default=1, ge=1)  # asked of each scenario; the first that passes is kept
    temperature: float = Field(default=0.8, ge=0, le=2)  # scenarios want variety; ours
    top_p: float = Field(default=0.95, gt=0, le=1)
    max_tokens: int = Field(default=8192, ge=1)
    judge: JudgeConfig = JudgeConfig()

    @model_validator(mode="after")
    def _a_model_needs_an_endpoint(self) -> ToolsConfig:
        if not self.endpoint and self.source == "endpoint":
            message = "source `endpoint` needs `endpoint`: a name under `endpoints:`"
            raise ValueError(message)
        if not self.endpoint and self.judge.permille:
            message = "a judge needs `endpoint`: a name under `endpoints:`"
            raise ValueError(message)
        if self.endpoint and self.source == "generator" and not self.judge.permille:
            message = "nothing is asked of `endpoint`: set source to endpoint or judge.permille above 0, or drop it"
            raise ValueError(message)
        if self.source == "generator":
            refuse_sampling(self, "samples", "temperature", "top_p", "max_tokens")
        return self
