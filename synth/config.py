"""Configuration of the synthetic sets (`synth:`) and of the endpoints they ask (`endpoints:`).

Contract: a set's class is its identity (what is made, with which parameters); an endpoint's class says where and how
fast, and only its model (and the recorded responses' content) enters a fingerprint. `endpoint_binding` splits an
endpoint into the two parts a `Step` takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import orjson
from pydantic import Discriminator, Field, Tag, TypeAdapter, field_validator, model_validator

from pipeline.core.config import Config
from pipeline.core.errors import InputError, unknown_name
from pipeline.core.files import hash_file
from pipeline.core.languages import LANGUAGES, Language
from synth.gym.config import GymConfig
from synth.instructions.config import ExerciseConfig, FormShares, IngestConfig, InstructionsConfig
from synth.long.config import LongConfig
from synth.sourced import Deduplicate, JudgeConfig, SourcedConfig
from synth.subagents.config import SearchConfig
from synth.tools.config import ToolsConfig

Layout = Literal["doc-then-thought", "thought-then-doc", "interleaved"]
FamilyName = Literal[
    "multiplication", "division", "shopping", "linear_equation", "linear_system", "euclid", "factorisation",
    "committee", "urn", "sequence", "journey", "shortest_path", "insertion_sort", "brackets", "ledger", "signposts",
]  # fmt: skip
FAMILY_NAMES: tuple[FamilyName, ...] = (
    "multiplication", "division", "shopping", "linear_equation", "linear_system", "euclid", "factorisation",
    "committee", "urn", "sequence", "journey", "shortest_path", "insertion_sort", "brackets", "ledger", "signposts",
)  # fmt: skip

ProgramName = Literal["divisible_stretches", "longest_calm", "spaced_sum", "ways_to_pay", "later_smaller"]
PROGRAM_NAMES: tuple[ProgramName, ...] = (
    "divisible_stretches", "longest_calm", "spaced_sum", "ways_to_pay", "later_smaller",
)  # fmt: skip


class ReplayConfig(Config):
    """Recorded responses: a JSONL file of `{"key", "prompt", "document", "response"}` rows."""

    kind: Literal["replay"] = "replay"
    responses: str = Field(min_length=1)
    model: str = "recorded-writer"  # the model name that stands in the request keys


class PriceConfig(Config):
    """What the endpoint takes, for estimates and budgets."""

    prompt_per_million_tokens: float = Field(ge=0)
    completion_per_million_tokens: float = Field(ge=0)
    currency: str = "USD"


class BudgetConfig(Config):
    """What one step may cost over all its runs; null: no limit."""

    tokens: int | None = Field(default=None, ge=1)  # prompt and completion together
    money: float | None = Field(default=None, gt=0)  # in the price's currency


class EndpointConfig(Config):
    """Servers that speak the OpenAI chat completions protocol (vLLM, SGLang, `transformers serve`, hosted)."""

    kind: Literal["openai"] = "openai"
    urls: tuple[Annotated[str, Field(pattern=r"^https?://[^@]+$")], ...] = Field(alias="url", min_length=1)
    # ^ up to and with /v1; one, or a list of servers of the same model. No names and passwords in it: see key_env.
    model: str = Field(min_length=1)
    served_models: tuple[str, ...] = Field(default=("*",), min_length=1)  # patterns of the model a server may answer as
    key_env: str = ""  # name of the environment variable that holds the key; empty: no Authorization header
    max_concurrency: int = Field(default=64, ge=1)  # of each server
    attempt_timeout_seconds: float = Field(default=600.0, gt=0)
    deadline_seconds: float = Field(default=3600.0, gt=0)  # of one request with all its attempts and waits
    max_attempts: int = Field(default=8, ge=1)
    price: PriceConfig | None = None
    budget: BudgetConfig = BudgetConfig()

    @field_validator("urls", mode="before")
    @classmethod
    def _one_url_is_a_tuple(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _money_needs_a_price(self) -> EndpointConfig:
        if self.budget.money is not None and self.price is None:
            message = "budget.money needs price.prompt_per_million_tokens and price.completion_per_million_tokens"
            raise ValueError(message)
        return self


def _endpoint_kind(value: object) -> str:
    if isinstance(value, Mapping):
        return str(value.get("kind", "replay" if "responses" in value else "openai"))
    return str(getattr(value, "kind", "openai"))


Endpoint = Annotated[
    Annotated[ReplayConfig, Tag("replay")] | Annotated[EndpointConfig, Tag("openai")], Discriminator(_endpoint_kind)
]
ENDPOINT: TypeAdapter[ReplayConfig | EndpointConfig] = TypeAdapter(Endpoint)


class ThoughtChecks(Config):
    """Thresholds of the filters on thoughts. Ours unless a source is named; `synth/checks.py` says how each counts."""

    minimum_characters: int = Field(default=60, ge=0)
    minimum_length_ratio: float = Field(default=0.15, ge=0)  # thought over document, in characters
    maximum_length_ratio: float = Field(default=8.0, gt=0)  # TPT's mean is 1-4 times the document
    maximum_repeated_share: float = Field(default=0.25, ge=0, le=1)  # of the thought inside repeated n-grams
    maximum_hesitation_share: float = Field(default=0.2, ge=0, le=1)  # sentences that begin with Wait, Hmm …
    maximum_copy_share: float = Field(default=0.5, ge=0, le=1)  # n-grams of the thought that stand in the document
    minimum_grounding: float = Field(default=1.0, ge=0)  # terms shared with the document, in unrelated texts' share
    maximum_wrong_equations: int = Field(default=0, ge=0)
    maximum_foreign_share: float = Field(default=0.25, ge=0, le=1)  # characters in paragraphs of another language


class AskingConfig(Config):
    """Fields of a set that asks an endpoint."""

    endpoint: str = Field(default="replay", min_length=1)  # a name under `endpoints:`
    samples: int = Field(default=1, ge=1)  # asked of each item; the first that passes its checks is kept
    judge: JudgeConfig = JudgeConfig()


class EndpointSetConfig(SourcedConfig, AskingConfig):
    """Fields of a set that asks an endpoint about documents."""

    native_floor: float = Field(default=0.0, ge=0, lt=1)  # share of each language's text that stays native; 0: no floor
    deduplicate: Deduplicate = "minhash"  # answers repeat themselves from document to document


class ThinkingConfig(EndpointSetConfig):
    """Thinking-augmented documents: a model thinks about a document, both become one sample (TPT, arXiv 2509.20186)."""

    kind: Literal["thinking"]
    layout: Layout = "doc-then-thought"
    # Languages of the thoughts, one of these other than the document's for each document; empty: the document's own.
    thoughts_in: tuple[Language, ...] = ()
    temperature: float = Field(default=0.6, ge=0, le=2)  # TPT section 3
    top_p: float = Field(default=0.9, gt=0, le=1)  # TPT section 3
    max_tokens: int = Field(default=8192, ge=1)  # TPT section 3
    maximum_document_characters: int = Field(default=16_000, ge=1)  # that the model reads at once
    long_documents: Literal["refuse", "passages"] = "refuse"  # longer ones: not asked about, or about a choice of them
    passage_characters: int = Field(default=1200, ge=1)  # interleaved layout: passages are whole paragraphs up to this
    checks: ThoughtChecks = ThoughtChecks()


class TranslationConfig(EndpointSetConfig):
    """Documents translated into other languages, with what must not change masked (`synth/translation.py`)."""

    kind: Literal["translation"]
    into: tuple[Language, ...] = Field(default=LANGUAGES, min_length=1)
    targets_per_document: int = Field(default=1, ge=1, le=len(LANGUAGES) - 1)
    layout: Literal["translation", "documents", "paragraphs"] = "translation"  # alone, after its source, by paragraphs
    temperature: float = Field(default=0.3, ge=0, le=2)  # translation wants little variety; ours
    top_p: float = Field(default=0.9, gt=0, le=1)
    max_tokens: int = Field(default=4096, ge=1)  # of a segment
    segment_characters: int = Field(default=2500, ge=100)  # whole paragraphs up to this are asked for together
    maximum_document_characters: int = Field(default=64_000, ge=1)
    length_band: float = Field(default=1.6, gt=1)  # as for parallel documents
    maximum_copied_share: float = Field(default=0.3, ge=0, le=1)  # of the translation, word by word in the source
    maximum_repeated_share: float = Field(default=0.1, ge=0, le=1)  # said again, beyond what the source repeats
    minimum_round_trip: float = Field(default=0.0, ge=0, le=1)  # chrF of the way back; 0: not asked for
    native_floor: float = Field(default=0.5, ge=0, lt=1)  # idiom and culture need native text (arXiv 2509.17317)


class PairsConfig(EndpointSetConfig):
    """Fields of a set that asks for several questions with their answers about each document."""

    pairs: int = Field(ge=1)  # asked for
    minimum_pairs: int = Field(ge=1)  # that pass their checks

    @model_validator(mode="after")
    def _enough_are_asked_for(self) -> Self:
        if self.minimum_pairs > self.pairs:
            message = f"minimum_pairs {self.minimum_pairs} is above pairs {self.pairs}: no document could have enough"
            raise ValueError(message)
        return self


class QuestionsConfig(PairsConfig):
    """Questions and answers about documents, in another language than theirs (`synth/questions.py`)."""

    kind: Literal["questions"]
    into: tuple[Language, ...] = Field(default=LANGUAGES, min_length=1)
    targets_per_document: int = Field(default=1, ge=1, le=len(LANGUAGES) - 1)
    layout: Literal["after-document", "pairs-only"] = "after-document"
    pairs: int = Field(default=4, ge=1)  # asked for
    minimum_pairs: int = Field(default=2, ge=1)  # that pass their checks
    temperature: float = Field(default=0.7, ge=0, le=2)
    top_p: float = Field(default=0.9, gt=0, le=1)
    max_tokens: int = Field(default=4096, ge=1)
    maximum_document_characters: int = Field(default=16_000, ge=1)


class GroundedConfig(PairsConfig):
    """Conversations about documents: questions with thinking and answers (`synth/instructions/grounded.py`)."""

    kind: Literal["grounded"]
    asked_in: Literal["same", "other"] = "same"  # the document's language, or another of `into`
    into: tuple[Language, ...] = Field(default=LANGUAGES, min_length=1)
    targets_per_document: int = Field(default=1, ge=1, le=len(LANGUAGES) - 1)
    layout: Literal["open-book", "closed-book"] = "open-book"  # the document before the first question, or not at all
    forms: FormShares = FormShares()
    pairs: int = Field(default=3, ge=1)  # asked for
    minimum_pairs: int = Field(default=1, ge=1)  # that pass their checks
    temperature: float = Field(default=0.7, ge=0, le=2)
    top_p: float = Field(default=0.9, gt=0, le=1)
    max_tokens: int = Field(default=6144, ge=1)
    maximum_document_characters: int = Field(default=16_000, ge=1)


class AnswersConfig(ExerciseConfig, AskingConfig):
    """Our exercises answered by an endpoint: rejection sampling against verifiers (`synth/instructions/answers.py`)."""

    kind: Literal["answers"]
    documents: int = Field(ge=1)
    forms: FormShares = FormShares()
    temperature: float = Field(default=0.6, ge=0, le=2)
    top_p: float = Field(default=0.95, gt=0, le=1)
    max_tokens: int = Field(default=8192, ge=1)
    seed: int = Field(default=0, ge=0)
    documents_per_shard: int = Field(default=1000, ge=1)
    deduplicate: Deduplicate = "exact"


class CrossLingualConfig(SourcedConfig):
    """Samples in two languages from documents that share a `parallel_id`."""

    kind: Literal["crosslingual"]
    mode: Literal["parallel"] = "parallel"
    # One after the other, paragraph by paragraph, or the first with some paragraphs in the second's language (SynCS,
    # arXiv 2504.01801; evidence is mixed, so a small slice).
    layout: Literal["documents", "paragraphs", "switched"] = "documents"
    switched_permille: int = Field(default=300, ge=1, le=999)  # paragraphs in the second language, `switched` only
    pairs_per_group: int = Field(default=3, ge=1)
    length_band: float = Field(default=1.6, gt=1)  # factor around the expected length ratio of the two languages


class ProblemsConfig(Config):
    """Fields of a set of problems from our own parametric families."""

    documents: int = Field(ge=1)
    families: tuple[FamilyName, ...] = Field(default=FAMILY_NAMES, min_length=1)
    languages: tuple[Language, ...] = Field(default=LANGUAGES, min_length=1)
    minimum_level: int = Field(default=1, ge=1, le=5)
    maximum_level: int = Field(default=3, ge=1, le=5)
    level_weights: tuple[int, ...] = ()  # of the levels from the lowest on, as in (3, 2, 1); empty: all alike
    minimum_tokens: int = Field(default=256, ge=64)  # of long-input problems (`ledger`, `signposts`), estimated
    maximum_tokens: int = Field(default=768, ge=64, le=1_000_000)
    seed: int = Field(default=0, ge=0)
    documents_per_shard: int = Field(default=2000, ge=1)
    deduplicate: Deduplicate = "exact"  # over all shards; problems of one family are alike by design

    @model_validator(mode="after")
    def _ranges_are_ordered(self) -> Self:
        if self.minimum_level > self.maximum_level:
            message = f"minimum_level {self.minimum_level} is above maximum_level {self.maximum_level}"
            raise ValueError(message)
        weights, levels = self.level_weights, self.maximum_level - self.minimum_level + 1
        if weights and (len(weights) != levels or min(weights) < 0 or not sum(weights)):
            message = f"level_weights needs {levels} whole numbers that are not all 0, one a level"
            raise ValueError(message)
        if self.minimum_tokens > self.maximum_tokens:
            message = f"minimum_tokens {self.minimum_tokens} is above maximum_tokens {self.maximum_tokens}"
            raise ValueError(message)
        return self


class ReasoningConfig(ProblemsConfig):
    """Problems with our own worked solutions, verified one by one."""

    kind: Literal["reasoning"]


class SolutionsConfig(ProblemsConfig):
    """The same problems solved by a model, kept when the verifier accepts an answer (`synth/solutions.py`)."""

    kind: Literal["solutions"]
    endpoint: str = Field(default="replay", min_length=1)  # a name under `endpoints:`
    samples: int = Field(default=4, ge=1)  # asked of each problem; the first that is right is kept
    temperature: float = Field(default=0.7, ge=0, le=2)
    top_p: float = Field(default=0.95, gt=0, le=1)
    max_tokens: int = Field(default=8192, ge=1)

    @property
    def judge(self) -> JudgeConfig:
        """Nobody: the verifier is the judge."""
        return JudgeConfig()


class ProgrammingConfig(Config):
    """Programming problems with reasoning and a program that passed its tests in the sandbox (`synth/programs.py`)."""

    kind: Literal["programming"]
    documents: int = Field(ge=1)
    families: tuple[ProgramName, ...] = Field(default=PROGRAM_NAMES, min_length=1)
    languages: tuple[Language, ...] = Field(default=LANGUAGES, min_length=1)
    minimum_level: int = Field(default=1, ge=1, le=5)
    maximum_level: int = Field(default=5, ge=1, le=5)
    seed: int = Field(default=0, ge=0)
    documents_per_shard: int = Field(default=2000, ge=1)
    deduplicate: Deduplicate = "exact"

    @model_validator(mode="after")
    def _levels_are_ordered(self) -> ProgrammingConfig:
        if self.minimum_level > self.maximum_level:
            message = f"minimum_level {self.minimum_level} is above maximum_level {self.maximum_level}"
            raise ValueError(message)
        return self


SynthSet = Annotated[
    ThinkingConfig
    | TranslationConfig
    | QuestionsConfig
    | CrossLingualConfig
    | LongConfig
    | ReasoningConfig
    | SolutionsConfig
    | ProgrammingConfig
    | GymConfig
    | InstructionsConfig
    | IngestConfig
    | AnswersConfig
    | GroundedConfig
    | ToolsConfig
    | SearchConfig,
    Field(discriminator="kind"),
]
WORKS: Mapping[str, str] = {
    "thinking": "synth.thinking:WORK",
    "translation": "synth.translation:WORK",
    "questions": "synth.questions:WORK",
    "crosslingual": "synth.crosslingual:WORK",
    "long": "synth.long.work:WORK",
    "reasoning": "synth.reasoning:WORK",
    "solutions": "synth.solutions:WORK",
    "programming": "synth.programs:WORK",
    "gym": "synth.gym.work:WORK",
    "instructions": "synth.instructions.work:WORK",
    "ingest": "synth.instructions.ingest:WORK",
    "answers": "synth.instructions.answers:WORK",
    "grounded": "synth.instructions.grounded:WORK",
    "tools": "synth.tools.work:WORK",
    "search": "synth.subagents.work:WORK",
}
VERSIONS: Mapping[str, int] = {
    "thinking": 3, "translation": 2, "questions": 2, "crosslingual": 2, "long": 1, "reasoning": 2, "solutions": 1,
    "programming": 1, "gym": 1, "instructions": 1, "ingest": 1, "answers": 1, "grounded": 1, "tools": 1, "search": 1,
}  # fmt: skip

# What a set's configuration is when it asks a model.
Asking = AskingConfig | SolutionsConfig | ToolsConfig | SearchConfig


def asks_endpoint(config: object) -> bool:
    """Whether a set of this configuration asks a model."""
    return isinstance(config, Asking) and bool(config.endpoint)


def endpoint_binding(
    set_name: str, config: Config, endpoints: Mapping[str, ReplayConfig | EndpointConfig]
) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """(`paths`, `content`) of the set's step: execution and identity of its endpoint.

    Raises `ConfigError` for a name that is not under `endpoints:` and `InputError` for a missing responses file.
    """
    assert isinstance(config, Asking), config
    if config.endpoint not in endpoints:
        where = f"synth.{set_name}.endpoint"
        raise unknown_name("endpoint", config.endpoint, endpoints, where=where)
    endpoint = endpoints[config.endpoint]
    content = {"model": endpoint.model}
    if isinstance(endpoint, ReplayConfig):
        path = Path(endpoint.responses)
        if not path.is_file():
            where = f"endpoints.{config.endpoint}.responses"
            raise InputError(f"no such file of recorded responses: `{path}`", where=where, fix="name an existing file")
        content["responses"] = hash_file(path)
    return {"endpoint": (endpoint.model_dump_json(by_alias=True),)}, content


def bound_endpoint(paths: Mapping[str, Any]) -> ReplayConfig | EndpointConfig:
    """The endpoint a step was bound to."""
    return ENDPOINT.validate_python(tuples(orjson.loads(paths["endpoint"][0])))


def tuples(value: Any) -> Any:
    """Plain values with tuples for lists, as configurations have them."""
    if isinstance(value, dict):
        return {str(key): tuples(child) for key, child in value.items()}
    return tuple(tuples(child) for child in value) if isinstance(value, list) else value
