"""Search with sub-agents against the same loop without them, and the search index against FTS5's own tokenizers.

Contract: both sides answer the same questions over the same index with the same scripted agent, which takes nothing but
what the tools say; the peer's `open` gives the page itself and its history is never compressed. Tokens are those of a
vocabulary trained on the same pages; a figure is the mean over questions of the longest context, of the context read
over all turns, and of that with what the sub-agents read and wrote. The quality is the share of questions answered
rightly; `facts kept` (in the notes) is the share of planted facts that the last context still gives.

The index finds a page by two thirds of the words of one of its sentences, in any order (recall among five), and by two
neighbouring words as a phrase; the peers hold the same texts under `trigram` and `unicode61`.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from benchmarks.encode import trained_tokenizer
from benchmarks.inputs import Corpus, documents
from benchmarks.measure import interleaved
from benchmarks.result import Comparison, Found, Spread
from benchmarks.settings import Settings, SizeName
from pipeline.core.documents import table_from_rows, write_documents
from pipeline.core.steps import StepOutput, StepTask
from pipeline.core.tokenizer import Tokenizer
from synth.subagents.config import SearchConfig
from synth.subagents.index import Page, SearchIndex, write_index
from synth.subagents.index_step import INDEX_FOLDER
from synth.subagents.index_step import WORK as INDEX_WORK
from synth.subagents.terms import CJK, index_terms, pieces, sentences
from synth.subagents.trajectory import Loop, Measure, drive
from synth.subagents.work import question_of

NAME = "subagents"
WITHOUT = "the same loop without sub-agents"
RESULTS = 5
Find = Callable[[str], list[str]]  # ids of the best pages for a query


@dataclass(frozen=True)
class Load:
    bytes_of_language: int
    questions: int
    vocabulary: int
    queries: int  # of each language
    rounds: int


LOADS: dict[SizeName, Load] = {
    "full": Load(1_500_000, 240, 32_768, 200, 3),
    "quick": Load(60_000, 12, 1024, 5, 1),
}


def run(settings: Settings) -> Iterator[Found]:
    """Context with and without, then recall and speed of the index by language."""
    load = LOADS[settings.size]
    corpus = documents(load.bytes_of_language)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        yield from _loops(load, corpus, folder)
        for language in sorted(set(corpus.languages)):
            own = corpus.of(language)
            for tokenizer in ("trigram", "unicode61"):
                yield _searches(load, own, folder / language, tokenizer)


def _loops(load: Load, corpus: Corpus, folder: Path) -> Iterator[Comparison]:
    rows = {row["id"]: row for row in corpus.table().to_pylist()}
    write_documents(folder / "clean", 0, table_from_rows(list(rows.values())))
    config = SearchConfig.model_validate(
        {"kind": "search", "from": "benchmark", "questions": load.questions, "minimum_hops": 4, "maximum_hops": 9}
    )
    inputs = {"documents": StepOutput("clean", folder / "clean")}
    INDEX_WORK.make_shard(StepTask("index.s", "0", config.corpus, inputs, folder, folder, {}), 0)
    index = SearchIndex(folder / INDEX_FOLDER)
    count = _counter(Tokenizer.load(trained_tokenizer(folder, corpus.texts, load.vocabulary)))
    ours, seconds = _answered(index, config, count)
    plain = config.replaced(summariser="none", compress_after_steps=0)
    theirs, _ = _answered(index, plain, count)
    index.close()
    for what, own, other in (
        ("longest context", ours.peak_tokens, theirs.peak_tokens),
        ("context read, all turns", ours.read_tokens, theirs.read_tokens),
        ("context read, sub-agents included", ours.read_tokens + ours.subagent_tokens, theirs.read_tokens),
    ):
        yield Comparison(
            NAME,
            what,
            "tokens",
            Spread.of([own / max(1, ours.questions)]),
            Spread.of([other / max(1, theirs.questions)]),
            WITHOUT,
            f"{ours.questions} questions of {config.minimum_hops}-{config.maximum_hops} facts; {corpus.label}",
            quality_ours=ours.right / max(1, ours.questions),
            quality_peer=theirs.right / max(1, theirs.questions),
            quality="answers right",
            notes={
                "facts kept, ours": ours.facts_kept / max(1, ours.facts),
                "facts kept, peer": theirs.facts_kept / max(1, theirs.facts),
                "compress_after_steps": config.compress_after_steps,
                "compressions": ours.compressions,
                "steps": ours.steps,
                "CPU s a question": seconds / max(1, ours.questions),
            },
        )


def _answered(index: SearchIndex, config: SearchConfig, count: Callable[[str], int]) -> tuple[Measure, float]:
    questions = [one for number in range(config.questions) if (one := question_of(index, config, number))]
    total = Measure()

    def answer_all() -> None:
        for made in drive([Loop(question, index, config, count_tokens=count) for question in questions], _no_model):
            total.add(made.measure)

    ((seconds,),) = interleaved_once(answer_all)
    return total, seconds


def interleaved_once(side: Callable[[], None]) -> list[list[float]]:
    """CPU seconds of one run, without a warm-up: what it counts is added up once."""
    from benchmarks.measure import timed

    return [[timed(side)]]


def _no_model(requests: list[object]) -> list[object]:
    raise AssertionError(f"{len(requests)} requests in a loop without a model")


def _counter(tokenizer: Tokenizer) -> Callable[[str], int]:
    known: dict[str, int] = {}

    def count(text: str) -> int:
        if text not in known:
            known[text] = len(tokenizer.encode(text))
        return known[text]

    return count
