"""All quality signals and rules of a document, language by language, against datatrove's filters.

Contract: ours computes every signal of Gopher, C4 and FineWeb and judges all rules, for every document. datatrove's
chain GopherRepetition, GopherQuality, C4Quality, FineWebQuality runs twice: with its default thresholds, where a
filter sees only what the ones before it let pass, and with thresholds that nothing fails. The quality is the share of
documents kept: the thresholds are each side's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks.datatrove_peer import CODES, WORD_PACKAGES, datatrove_documents, silence
from benchmarks.inputs import LANGUAGES, Corpus, documents
from benchmarks.measure import interleaved
from benchmarks.peers import against
from benchmarks.result import Comparison, Found, Spread
from benchmarks.settings import Settings, SizeName
from stages.rules import Rules, RulesConfig

NAME = "signals"
NEVER = 1e9  # a threshold that nothing passes
PACKAGES = ("datatrove", "nltk", "tldextract")


@dataclass(frozen=True)
class Load:
    bytes_of_language: int
    rounds: int


LOADS: dict[SizeName, Load] = {"full": Load(60_000, 2), "quick": Load(3_000, 1)}


def run(settings: Settings) -> Iterator[Found]:
    """Both chains, for each language whose words datatrove can find here."""
    yield from both_chains(LOADS[settings.size], "datatrove filters", _compared)


def both_chains(load: Load, peer: str, compared: Callable[..., Comparison]) -> Iterator[Found]:
    """`compared(part, language, rounds, peer name, chain)` with early drops and with every document passing."""
    corpus = documents(load.bytes_of_language)
    for language in LANGUAGES:
        part = corpus.of(language)
        for what, chain in (("early drops", default_chain), ("every document passes", open_chain)):
            peer_name = f"{peer}, {what}"
            yield from against(
                f"{peer_name} ({language})",
                (*PACKAGES, *WORD_PACKAGES[language]),
                partial(compared, part, language, load.rounds, peer_name, chain),
            )


def _compared(
    part: Corpus, language: str, rounds: int, peer_name: str, chain: Callable[[str], list[Any]]
) -> Comparison:
    silence()
    table, rules, filters = part.table(), Rules(RulesConfig()), chain(CODES[language])
    kept: dict[str, int] = {}

    def ours() -> None:
        kept["ours"] = rules.apply(table).kept.num_rows

    def theirs() -> None:
        passing: Any = iter(datatrove_documents(part))
        for one in filters:
            passing = one.run(passing)
        kept["peer"] = sum(1 for _ in passing)

    seconds = interleaved([ours, theirs], rounds)
    return Comparison(
        NAME,
        f"{language}, all signals and rules",
        "MB/s",
        Spread.rate(part.megabytes, seconds[0]),
        Spread.rate(part.megabytes, seconds[1]),
        peer_name,
        part.label,
        quality_ours=kept["ours"] / len(part.ids),
        quality_peer=kept["peer"] / len(part.ids),
        quality="documents kept",
    )


def default_chain(language: str) -> list[Any]:
    """datatrove's filters as they come."""
    from datatrove.pipeline.filters import (
        C4QualityFilter,
        FineWebQualityFilter,
        GopherQualityFilter,
        GopherRepetitionFilter,
    )

    kinds = (GopherRepetitionFilter, GopherQualityFilter, C4QualityFilter, FineWebQualityFilter)
    return [kind(language=language) for kind in kinds]


def open_chain(language: str) -> list[Any]:
    """The same with every threshold out of reach, so that each filter does its whole work."""
    from datatrove.pipeline.filters import (
        C4QualityFilter,
        FineWebQualityFilter,
        GopherQualityFilter,
        GopherRepetitionFilter,
    )

    repetition: Any = GopherRepetitionFilter  # its annotations allow a single n
    return [
        repetition(
            *([NEVER] * 4),
            top_n_grams=tuple((n, NEVER) for n in (2, 3, 4)),
            dup_n_grams=tuple((n, NEVER) for n in range(5, 11)),
            language=language,
        ),
        GopherQualityFilter(
            1, int(NEVER), -1, int(NEVER), NEVER, NEVER, NEVER, 1e-9, 0, language=language
        ),
        C4QualityFilter(
            filter_no_terminal_punct=False, min_num_sentences=0, min_words_per_line=0, max_word_length=int(NEVER),
            filter_lorem_ipsum=False, filter_javascript=False, filter_curly_bracket=False, filter_policy=False,
            language=language,
        ),
        FineWebQualityFilter(
            line_punct_thr=-1, short_line_thr=NEVER, char_duplicates_ratio=NEVER, new_line_ratio=NEVER,
            language=language,
        ),
    ]  # fmt: skip
