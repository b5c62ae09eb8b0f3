"""Models that name a text's language: the embedded one, and fastText files.

Contract: a `Model` maps texts (NFC, one line each) to (BCP-47 language, confidence in [0, 1]), many at a time. The
embedded one is py3langid's (Lui & Baldwin 2012, langid.py; retrained by its maintainer, BSD-3): its tables are read
from its wheel, the walk over the bytes is compiled here; same answers, four
times as fast. fastText files: lid.176 (`__label__en`), GlotLID and OpenLID (`__label__eng_Latn`): labels are read as
ISO 639, the script is not kept.
Cost: embedded about 10 MB/s a core and 100 MB of memory, half a second to load; lid.176.ftz about 5 MB/s.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
from numba import njit

from pipeline.core.errors import InputError
from stages.lid.evidence import joined

UNDETERMINED = "und"
# ISO 639-3 codes (and macro-language members) of languages that have a two-letter code.
_TWO_LETTERS = {
    "eng": "en", "deu": "de", "spa": "es", "kor": "ko", "jpn": "ja", "vie": "vi", "zho": "zh", "cmn": "zh",
    "fra": "fr", "ita": "it", "por": "pt", "nld": "nl", "rus": "ru", "pol": "pl", "tha": "th", "ind": "id",
    "arb": "ar", "ara": "ar", "tur": "tr", "ukr": "uk", "ces": "cs", "slk": "sk", "slv": "sl", "hrv": "hr",
    "srp": "sr", "bos": "bs", "bul": "bg", "mkd": "mk", "bel": "be", "ron": "ro", "hun": "hu", "fin": "fi",
    "ekk": "et", "est": "et", "lvs": "lv", "lav": "lv", "lit": "lt", "dan": "da", "swe": "sv", "nob": "no",
    "nno": "nn", "isl": "is", "fao": "fo", "gle": "ga", "gla": "gd", "cym": "cy", "bre": "br", "eus": "eu",
    "cat": "ca", "glg": "gl", "oci": "oc", "ltz": "lb", "fry": "fy", "afr": "af", "ell": "el", "heb": "he",
    "fas": "fa", "pes": "fa", "prs": "fa", "urd": "ur", "hin": "hi", "ben": "bn", "tam": "ta", "tel": "te",
    "mal": "ml", "kan": "kn", "guj": "gu", "pan": "pa", "mar": "mr", "npi": "ne", "nep": "ne", "sin": "si",
    "mya": "my", "khm": "km", "lao": "lo", "zsm": "ms", "msa": "ms", "tgl": "tl", "jav": "jv", "sun": "su",
    "swh": "sw", "swa": "sw", "hau": "ha", "yor": "yo", "ibo": "ig", "zul": "zu", "xho": "xh", "som": "so",
    "amh": "am", "kat": "ka", "hye": "hy", "azj": "az", "aze": "az", "kaz": "kk", "kir": "ky", "uzn": "uz",
    "uzb": "uz", "tuk": "tk", "tat": "tt", "bak": "ba", "uig": "ug", "khk": "mn", "mon": "mn", "als": "sq",
    "sqi": "sq", "mlt": "mt", "lat": "la", "epo": "eo", "ydd": "yi", "yid": "yi",
}  # fmt: skip


class Model(Protocol):
    """Names the languages of texts."""

    def __call__(self, texts: Sequence[str], /) -> list[tuple[str, float]]: ...


def language_of_label(label: str) -> str:
    """BCP-47 language of a fastText label of lid.176, GlotLID or OpenLID."""
    code = label.removeprefix("__label__").split("_")[0]
    return _TWO_LETTERS.get(code, code)


def fasttext_file(path: str) -> Model:
    """A fastText model file. Raises `InputError` when it is missing or not a model."""
    import fasttext

    try:
        model = fasttext.load_model(path)
    except ValueError as error:
        raise InputError(
            f"not a readable fastText model: {error}", where=path, fix="set `language: model:` to a .bin or .ftz file"
        ) from None
    if not model.is_quantized() and math.isnan(float(model.get_output_matrix().sum())):
        raise InputError(
            "the fastText model holds NaN", where=path, fix="train it again, at a learning rate of 0.1 or less"
        )

    def classify(texts: Sequence[str], /) -> list[tuple[str, float]]:
        if not texts:
            return []
        labels, scores = model.predict([text.replace("\n", " ") for text in texts], k=1)
        return [
            (language_of_label(label[0]), min(1.0, float(score[0]))) if len(label) else (UNDETERMINED, 0.0)
            for label, score in zip(labels, scores, strict=True)
        ]

    return classify


def embedded() -> Model:
    """The model in py3langid's wheel."""
    tables = _embedded_tables()

    def classify(texts: Sequence[str], /) -> list[tuple[str, float]]:
        if not texts:
            return []
        data, offsets = joined([_prepared(text) for text in texts])
        scores = np.empty((len(texts), tables.prior.shape[0]), np.float32)
        _walk(data, offsets, tables.next_row, tables.row, tables.feature, tables.weights, tables.prior, scores)
        # Softmax at a temperature that grows with length, as py3langid does it.
        lengths = np.maximum(np.diff(offsets), 1).astype(np.float32)
        scores /= np.sqrt(lengths)[:, None]
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        scores /= scores.sum(axis=1, keepdims=True)
        for first, second in tables.aliases:
            scores[:, first] += scores[:, second]
            scores[:, second] = 0.0
        best = scores.argmax(axis=1)
        return [(tables.languages[at], float(scores[row, at])) for row, at in enumerate(best)]

    return classify


@dataclass(frozen=True)
class _Tables:
    """py3langid's automaton and naive Bayes weights, as arrays.

    Attributes:
        next_row: [rows * 256] uint32 next state by row and byte.
        row: [states] int64 first entry of a state's row.
        feature: [states] int32 feature that reaching a state finds, or -1.
        weights: [features, classes] float32.
        prior: [classes] float32.
        languages: [classes] codes; two classes may share one.
        aliases: Pairs of classes with the same code.
    """

    next_row: np.ndarray
    row: np.ndarray
    feature: np.ndarray
    weights: np.ndarray
    prior: np.ndarray
    languages: tuple[str, ...]
    aliases: tuple[tuple[int, int], ...]


@lru_cache(maxsize=1)
def _embedded_tables() -> _Tables:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    model = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    languages = tuple(map(str, model.nb_classes))
    first = {code: at for at, code in reversed(list(enumerate(languages)))}
    return _Tables(
        next_row=np.array(model.tk_nextmove, np.uint32),
        row=np.array(model.tk_row, np.int64) << 8,
        feature=np.array(model.tk_output, np.int32),
        weights=np.ascontiguousarray(model.nb_ptc, np.float32),
        prior=np.array(model.nb_pc, np.float32),
        languages=languages,
        aliases=tuple((first[code], at) for at, code in enumerate(languages) if first[code] != at),
    )


def _prepared(text: str) -> str:
    """NFC; a text all in capitals is read in lower case, as in training."""
    text = text.lower() if text.isupper() else text
    return unicodedata.normalize("NFC", text)


@njit(cache=True)
def _walk(
    data: np.ndarray,
    offsets: np.ndarray,
    next_row: np.ndarray,
    row: np.ndarray,
    feature: np.ndarray,
    weights: np.ndarray,
    prior: np.ndarray,
    scores: np.ndarray,
) -> None:
    """Scores of every text: the prior plus log(1 + count) times the weights of each feature that occurs in it."""
    counts = np.zeros(weights.shape[0], np.int32)
    found = np.empty(weights.shape[0], np.int32)
    for text in range(offsets.shape[0] - 1):
        state, distinct = np.int64(0), 0
        for at in range(offsets[text], offsets[text + 1]):
            state = np.int64(next_row[row[state] + data[at]])
            one = feature[state]
            if one >= 0:
                if counts[one] == 0:
                    found[distinct] = one
                    distinct += 1
                counts[one] += 1
        scores[text] = prior if distinct else np.zeros_like(prior)
        for n in range(distinct):
            weight = np.float32(np.log1p(np.float32(counts[found[n]])))
            counts[found[n]] = 0
            own = weights[found[n]]
            for label in range(own.shape[0]):
                scores[text, label] += weight * own[label]
