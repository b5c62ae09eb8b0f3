"""Configuration of search sets: the index that is searched, the questions, and who plays which part.

Contract: `SearchCorpusConfig` is the identity of the index step (`index.SET`), so that a change of the loop does not
build it again; `SearchConfig` is that of the set. The loop's three parts can each be played without a model (`oracle`,
`extractive`, `rules`) or by the set's endpoint. K-EXAONE's report compresses after a number of steps that it gives for
one evaluation only (50, of at most 500); the other numbers are ours.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from synth.sourced import SourcedConfig, refuse_sampling, refuse_unused

QuestionKind = Literal["chain", "gaps", "written"]
Part = Literal["agent", "summariser", "compressor"]
INDEX_KIND, INDEX_VERSION, INDEX_WORK = "synth.search_index", 1, "synth.subagents.index_step:WORK"


class SearchCorpusConfig(SourcedConfig):
    """What is searched: pages of chosen documents, with the facts of `chain` questions planted in copies of some."""

    documents_per_shard: int = Field(default=20_000, ge=1)  # of one SQLite file; BM25 weighs terms within each file
    page_characters: int = Field(default=20_000, ge=200)  # longer documents become several pages of whole paragraphs
    questions: int = Field(ge=1)
    question_kinds: tuple[QuestionKind, ...] = Field(default=("chain", "gaps"), min_length=1)
    minimum_hops: int = Field(default=2, ge=1, le=9)  # facts a question needs
    maximum_hops: int = Field(default=6, ge=1, le=9)  # there are nine different ones from any start

    @model_validator(mode="after")
    def _hops_are_ordered(self) -> SearchCorpusConfig:
        if self.minimum_hops > self.maximum_hops:
            message = f"minimum_hops {self.minimum_hops} is above maximum_hops {self.maximum_hops}"
            raise ValueError(message)
        return self


class SearchConfig(SearchCorpusConfig):
    """Questions answered by searching, with sub-agents that keep the context short (`synth/subagents/`)."""

    kind: Literal["search"]
    agent: Literal["oracle", "endpoint"] = "oracle"  # the oracle knows which facts to look for, not what they are
    summariser: Literal["extractive", "endpoint", "none"] = "extractive"  # none: `open` gives the page itself
    compressor: Literal["rules", "endpoint"] = "rules"
    compress_after_steps: int = Field(default=8, ge=0)  # tool calls in one context; 0: never
    maximum_steps: int = Field(default=100, ge=1)  # tool calls in all; more: the question is given up
    results: int = Field(default=5, ge=1, le=20)  # of one search
    opens_per_search: int = Field(default=3, ge=1)  # the oracle looks at so many of them before it searches again
    summary_characters: int = Field(default=500, ge=80)
    write: tuple[Part, ...] = Field(default=("agent", "summariser", "compressor"), min_length=1)  # samples of which
    endpoint: str = ""  # a name under `endpoints:`, when a part is played by one
    temperature: float = Field(default=1.0, ge=0, le=2)  # K-EXAONE's model card
    top_p: float = Field(default=0.95, gt=0, le=1)  # K-EXAONE's model card
    max_tokens: int = Field(default=4096, ge=1)  # of one answer
    questions_per_shard: int = Field(default=200, ge=1)

    @property
    def corpus(self) -> SearchCorpusConfig:
        """The part that shapes the index."""
        names = set(SearchCorpusConfig.model_fields)
        return SearchCorpusConfig.model_validate(self.model_dump(include=names, by_alias=True))

    @model_validator(mode="after")
    def _an_endpoint_is_named_where_one_is_asked(self) -> SearchConfig:
        asked = "endpoint" in (self.agent, self.summariser, self.compressor) or "written" in self.question_kinds
        if asked and not self.endpoint:
            message = "`endpoint` must name an entry under `endpoints:`: a part or the `written` questions need it"
            raise ValueError(message)
        if self.endpoint and not asked:
            message = "nothing is asked of `endpoint`: set agent, summariser or compressor to endpoint, or drop it"
            raise ValueError(message)
        if not asked:
            refuse_sampling(self, "temperature", "top_p", "max_tokens")
        if self.agent != "oracle":
            refuse_unused(self, "a model opens what it likes", "set agent to oracle", "opens_per_search")
        if self.summariser == "none":
            refuse_unused(self, "pages are not summarised", "choose a summariser", "summary_characters")
        if not self.compress_after_steps:
            refuse_unused(self, "nothing is compressed", "set compress_after_steps above 0", "compressor")
        return self
