"""Search with sub-agents against the same loop without them, and the search index against FTS5's own tokenizers.

Contract: both sides answer the same questions over the same index with the same scripted agent, which takes nothing but
what the tools say; the peer's `open` gives the page itself and its history is never compressed. Tokens are those of a
vocabulary trained on the same pages; a figure is the mean over questions of the longest context, of the context read
over all turns, and of that with what the sub-agents read and wrote. The quality is the share of questions answered
rightly; `facts kept` (in the notes) is the share of planted facts that the last context still gives.

The index finds a page by two thirds of the words of one of its sentences, in any order (among five), and by two
neighbouring words, or characters where there are no spaces, as a phrase; the peers hold the same texts under `trigram`
and `unicode61`. Rates are of the first kind of query, ours with the pages' texts, the peers' with their ids.
"""

from __future__ import annotations

import re
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from benchmarks.encode import trained_tokenizer
from benchmarks.inputs import Corpus, documents
from benchmarks.measure import interleaved, timed
from benchmarks.result import Comparison, Found, Spread
from benchmarks.settings import Settings, SizeName
from pipeline.core.documents import table_from_rows, write_documents
from pipeline.core.steps import StepOutput, StepTask
from pipeline.core.tokenizer import Tokenizer
from synth.cache import Request
from synth.client import Outcome
from synth.subagents.config import SearchConfig
from synth.subagents.drawing import questions_of
from synth.subagents.index import Page, SearchIndex, write_index
from synth.subagents.index_step import INDEX_FOLDER
from synth.subagents.index_step import WORK as INDEX_WORK
from synth.subagents.outcome import Measure
from synth.subagents.questions import Question
from synth.subagents.terms import CJK, index_terms, pieces, sentences
from synth.subagents.trajectory import Loop, drive

NAME = "subagents"
WITHOUT = "the same loop without sub-agents"
RESULTS = 5
STRETCH = 6  # characters of a "word" where there are no spaces
NO_SPACES = re.compile(f"[{CJK}]")
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
    drawn = questions_of(index, config, range(config.questions), "", _no_model)
    questions = [one.result for one in drawn if isinstance(one.result, Question)]
    total = Measure()

    def answer_all() -> None:
        for made in drive([Loop(question, index, config, count_tokens=count) for question in questions], _no_model):
            total.add(made.measure)

    return total, timed(answer_all)


def _no_model(requests: list[Request]) -> list[Outcome]:
    raise AssertionError(f"{len(requests)} requests in a loop without a model")


def _counter(tokenizer: Tokenizer) -> Callable[[str], int]:
    known: dict[str, int] = {}

    def count(text: str) -> int:
        if text not in known:
            known[text] = len(tokenizer.encode(text))
        return known[text]

    return count


@dataclass(frozen=True)
class Query:
    """Words of a sentence, two thirds of them, in any order; and two that stand next to each other."""

    words: tuple[str, ...]
    neighbours: str
    pages: frozenset[str]  # that have the sentence


def _searches(load: Load, corpus: Corpus, folder: Path, tokenizer: str) -> Comparison:
    texts = dict(zip(corpus.ids, corpus.texts, strict=True))
    pages = [Page(one, f"https://page.invalid/{one}", "", "", None, one, text) for one, text in texts.items()]
    write_index(folder / "00000.sqlite", pages)
    index = SearchIndex(folder)
    connection = sqlite3.connect(":memory:")
    connection.execute(f"CREATE VIRTUAL TABLE peer USING fts5(id UNINDEXED, body, tokenize='{tokenizer}')")
    connection.executemany("INSERT INTO peer VALUES (?, ?)", texts.items())
    queries = _queries(texts, load.queries)
    ranked = "SELECT id FROM peer WHERE peer MATCH ? ORDER BY bm25(peer), id LIMIT ?"

    def ours(query: str) -> list[str]:
        return [page.id for page in index.search(query, RESULTS)]

    def theirs(query: str) -> list[str]:
        expression = " OR ".join(f'"{word}"' for word in query.replace('"', " ").split())
        return [row[0] for row in connection.execute(ranked, (expression, RESULTS))] if expression else []

    def phrases(expression: str) -> list[str]:
        quoted = f'"{expression}"'
        return [row[0] for row in connection.execute("SELECT id FROM peer WHERE peer MATCH ?", (quoted,))]

    seconds = interleaved([lambda: _found(queries, ours), lambda: _found(queries, theirs)], load.rounds)
    short = [
        sum(bool(one.pages & set(find(one.neighbours))) for one in queries) / max(1, len(queries))
        for find in (lambda text: [page.id for page in index.containing(text, len(texts))], phrases)
    ]
    found = [_found(queries, side) / max(1, len(queries)) for side in (ours, theirs)]
    index.close()
    return Comparison(
        NAME,
        f"search, {corpus.languages[0]}",
        "queries/s",
        Spread.rate(len(queries), seconds[0]),
        Spread.rate(len(queries), seconds[1]),
        f"FTS5 {tokenizer}",
        f"{len(queries)} queries; {corpus.label}",
        quality_ours=(found[0] + short[0]) / 2,
        quality_peer=(found[1] + short[1]) / 2,
        quality="queries that find their page",
        notes={
            f"by words, among {RESULTS}": {"ours": found[0], "peer": found[1]},
            "by two neighbours, among all": {"ours": short[0], "peer": short[1]},
        },
    )


def _found(queries: Sequence[Query], find: Find) -> int:
    return sum(bool(one.pages & set(find(" ".join(one.words)))) for one in queries)


def _queries(texts: dict[str, str], count: int) -> list[Query]:
    """Queries about pages drawn at random; words of a text without spaces are stretches of at most six characters."""
    dice = Random(f"{len(texts)} pages")
    made: list[Query] = []
    names = sorted(texts)
    for _ in range(20 * count):
        if len(made) == count:
            break
        able = [one for one in sentences(texts[dice.choice(names)]) if len(index_terms(one)) >= 8]
        if not able:
            continue
        sentence = dice.choice(able)
        runs = [piece for piece in pieces(sentence) if len(piece) > 1]
        words = sentence.replace('"', " ").split()
        if len(words) < 4 and NO_SPACES.search(sentence):
            words = [part for piece in pieces(sentence) for part in _stretches(piece)]
        if len(words) < 4 or not runs:
            continue
        neighbours = _neighbours(sentence, dice)
        chosen = tuple(dice.sample(words, 2 * len(words) // 3))
        same = frozenset(one for one, text in texts.items() if sentence in text)
        made.append(Query(chosen, neighbours, same))
    return made


def _stretches(piece: str) -> list[str]:
    """A run of characters without spaces in parts; a word as it is."""
    return [piece[at : at + STRETCH] for at in range(0, len(piece), STRETCH)] if NO_SPACES.match(piece) else [piece]


def _neighbours(sentence: str, dice: Random) -> str:
    """Two characters of a run without spaces, or a word and the next."""
    found = list(pieces(sentence))
    runs = [piece for piece in found if NO_SPACES.match(piece) and len(piece) > 1]
    if runs:
        run = dice.choice(runs)
        at = dice.randrange(len(run) - 1)
        return run[at : at + 2]
    at = dice.randrange(max(1, len(found) - 1))
    return " ".join(found[at : at + 2])
