"""Configuration of instruction sets: those our solvers answer (`instructions`), and files mapped into them (`ingest`).

The sets that ask an endpoint (`answers`, `grounded`) stand with the other endpoint sets in `synth/config.py`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.core.config import Config
from pipeline.core.languages import LANGUAGES, Language
from synth.sourced import Deduplicate

TaskDomain = Literal["mathematics", "code", "logic", "long-context", "instruction-following", "korean"]
TASK_DOMAINS: tuple[TaskDomain, ...] = (
    "mathematics", "code", "logic", "long-context", "instruction-following", "korean",
)  # fmt: skip
Form = Literal["reasoning", "plain"]


class FormShares(Config):
    """Samples with a filled thinking block and samples with an empty one, as weights."""

    # EXAONE 4.0 (arXiv 2507.11407) trains 1.5 reasoning tokens for one of the other form; these count samples.
    reasoning: float = Field(default=0.6, ge=0)
    plain: float = Field(default=0.4, ge=0)

    @model_validator(mode="after")
    def _one_is_wanted(self) -> FormShares:
        if self.reasoning + self.plain <= 0:
            message = "forms needs a share above 0 for `reasoning` or `plain`"
            raise ValueError(message)
        return self


class ExerciseConfig(Config):
    """What exercises are drawn from; shared by the sets that our solvers and that an endpoint answers."""

    domains: tuple[TaskDomain, ...] = Field(default=TASK_DOMAINS, min_length=1)
    languages: tuple[Language, ...] = Field(default=LANGUAGES, min_length=1)  # `korean` is in Korean whatever these are
    minimum_level: int = Field(default=1, ge=1, le=5)
    maximum_level: int = Field(default=5, ge=1, le=5)
    minimum_tokens: int = Field(default=512, ge=64)  # of long-context inputs, estimated
    maximum_tokens: int = Field(default=4096, ge=64, le=1_000_000)
    system_permille: int = Field(default=300, ge=0, le=1000)  # conversations that begin with a system prompt

    @model_validator(mode="after")
    def _ranges_are_ordered(self) -> ExerciseConfig:
        for name in ("level", "tokens"):
            low, high = getattr(self, f"minimum_{name}"), getattr(self, f"maximum_{name}")
            if low > high:
                message = f"minimum_{name} {low} is above maximum_{name} {high}"
                raise ValueError(message)
        return self


class InstructionsConfig(ExerciseConfig):
    """Instructions with answers from our own solvers, each verified (`synth/instructions/work.py`)."""

    kind: Literal["instructions"]
    documents: int = Field(ge=1)
    from_: tuple[str, ...] = Field(default=(), alias="from")
    # ^ sources whose documents long-context questions are laid into; none: the notes stand among other notes
    forms: FormShares = FormShares()
    seed: int = Field(default=0, ge=0)
    documents_per_shard: int = Field(default=2000, ge=1)
    deduplicate: Deduplicate = "exact"  # over all shards; exercises of one kind are alike by design

    @field_validator("from_", mode="before")
    @classmethod
    def _one_is_a_tuple(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _documents_are_for_long_inputs(self) -> InstructionsConfig:
        if self.from_ and "long-context" not in self.domains:
            message = "`from` is for the domain `long-context`, which `domains` does not name"
            raise ValueError(message)
        return self


class QuestionMapping(Config):
    """Columns of questions and answers, with the text they are about where there is one."""

    task: Literal["qa"]
    question: str = Field(min_length=1)
    answer: str = Field(min_length=1)
    context: str = ""  # column of the text; empty: questions to be answered from knowledge
    answers_stand_in_context: bool = False  # a row whose answer does not, word for word, is dropped

    @model_validator(mode="after")
    def _extractive_needs_a_context(self) -> QuestionMapping:
        if self.answers_stand_in_context and not self.context:
            message = "answers_stand_in_context needs `context`, the column of the text"
            raise ValueError(message)
        return self

    @property
    def columns(self) -> dict[str, str]:
        """Option -> the column it names."""
        return {"question": self.question, "answer": self.answer} | ({"context": self.context} if self.context else {})


class ParallelMapping(Config):
    """Columns of the same text in two languages."""

    task: Literal["parallel"]
    source_text: str = Field(min_length=1)
    target_text: str = Field(min_length=1)
    source_language: Language
    target_language: Language
    length_band: float = Field(default=1.6, gt=1)  # as for parallel documents

    @model_validator(mode="after")
    def _languages_differ(self) -> ParallelMapping:
        if self.source_language == self.target_language:
            message = f"source_language and target_language are both `{self.source_language}`"
            raise ValueError(message)
        return self

    @property
    def columns(self) -> dict[str, str]:
        return {"source_text": self.source_text, "target_text": self.target_text}


class TableMapping(Config):
    """Columns of a table whose rows are the file's records, in their order."""

    task: Literal["table"]
    key: str = Field(min_length=1)  # column whose values name the rows
    numbers: tuple[str, ...] = Field(min_length=1)  # columns of numbers, asked about by lookup, comparison and total
    labels: dict[str, str] = Field(default={})  # column -> what questions call it; its own name where there is none
    language: Language
    group_by: str = ""  # column whose value tables have in common; empty: runs of rows
    rows_per_table: int = Field(default=10, ge=3, le=200)
    questions_per_table: int = Field(default=3, ge=1, le=20)

    @model_validator(mode="after")
    def _columns_have_one_part(self) -> TableMapping:
        columns = (self.key, *self.numbers)
        if len(set(columns)) < len(columns):
            message = f"`key` and `numbers` name a column twice: {', '.join(columns)}"
            raise ValueError(message)
        unused = sorted(set(self.labels) - set(columns))
        if unused:
            message = f"`labels` names `{unused[0]}`, which is neither `key` nor in `numbers`: {', '.join(columns)}"
            raise ValueError(message)
        called = [self.labels.get(column, column) for column in columns]
        twice = next((name for name in called if called.count(name) > 1), None)
        if twice is not None:
            message = f"two columns are called `{twice}`: questions could not tell them apart"
            raise ValueError(message)
        return self

    @property
    def columns(self) -> dict[str, str]:
        named = {"key": self.key} | {f"numbers.{place}": name for place, name in enumerate(self.numbers)}
        return named | ({"group_by": self.group_by} if self.group_by else {})


Mapped = Annotated[QuestionMapping | ParallelMapping | TableMapping, Field(discriminator="task")]


class IngestConfig(Config):
    """Public tables, questions and answers, and parallel text as conversations (`synth/instructions/ingest.py`)."""

    kind: Literal["ingest"]
    from_: tuple[str, ...] = Field(alias="from", min_length=1, max_length=1)  # a source with `use: ingest`
    mapping: Mapped
    language: Language | None = None  # of questions and answers; null: the record's own, else identified
    domain: str = ""  # empty: world-knowledge, multilingual for parallel text
    forms: FormShares = FormShares()  # of samples whose way to the answer is known
    maximum_characters: int = Field(default=16_000, ge=1)  # of question, context and answer together
    seed: int = Field(default=0, ge=0)

    @field_validator("from_", mode="before")
    @classmethod
    def _one_is_a_tuple(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value
