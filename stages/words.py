"""Words: what the quality signals count. Pluggable: `split` gives the words of a batch by the segmenter of that name.

`seodang`: one rule per script, straight over UTF-8 (`stages.word_spans`), no models. Letters and digits make words as
spaCy's rules do: an apostrophe opens a new word (it 's), a point, colon or comma stays inside numbers, names of hosts
and files, a hyphen parts letters (but not in German); paths, options and formulas hold together; marks are words of
their own, runs of points and of hyphens are one. Vietnamese: syllables, two of them one word when a list of the
commonest thousand such words has them. Korean: the eojeol without the particles and endings that close it, each a word.
Japanese: katakana runs; Chinese characters two by two (most Sino-Japanese words have two), with the hiragana that
end them; hiragana by longest match among function words. What still differs from dictionary
segmenters is shown by the tests of `stages.signals`, and taken up by thresholds where it matters.

`datatrove`: datatrove's own word tokenizers (spaCy, Kiwi, SudachiPy, pyvi), for comparing verdicts; 0.02-0.6 MB/s.

Cost: 110-140 MB/s on one core for languages with spaces (Vietnamese 50), 40-60 for Korean and Japanese; eight bytes a
word. Every character but white space is in exactly one word; only Vietnamese words hold a space.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np

from pipeline.core.errors import ConfigError
from stages.characters import classes
from stages.function_words import tables
from stages.vietnamese import vietnamese
from stages.word_spans import HYPHENATED, LOOSE, SYLLABLES, TIGHT, spans

if TYPE_CHECKING:
    from datatrove.utils.word_tokenizers import WordTokenizer

Segment = Callable[[str], list[str]]
Segmenter = Literal["seodang", "datatrove"]
DATATROVE_CODES = {"en": "eng", "de": "deu", "es": "spa", "vi": "vie", "ja": "jpn", "ko": "kor"}
# How each language's words are written; others: technical strings hold together.
_HABITS = {"ko": LOOSE, "ja": LOOSE, "zh": LOOSE, "de": TIGHT | HYPHENATED, "vi": SYLLABLES}


@dataclass(frozen=True)
class Words:
    """The words of a batch of documents.

    Attributes:
        data: [bytes] uint8, where the words' bytes are.
        starts, ends: [words] uint32 places in `data`.
        first: [documents + 1] int64, the number of each document's first word, and the count of all.
    """

    data: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    first: np.ndarray


def split(name: Segmenter, data: np.ndarray, offsets: np.ndarray, langs: Sequence[str | None]) -> Words:
    """The words of documents `data[offsets[i] : offsets[i + 1]]`, valid UTF-8 of less than 4 GiB.

    Raises:
        ConfigError: datatrove's tokenizer of a language needs a package that is not installed.
    """
    if name == "seodang":
        habits = np.array([_HABITS.get(lang or "", TIGHT) for lang in langs], np.uint8)
        return Words(data, *spans(data, offsets, habits, classes(), vietnamese(), *tables()))
    texts = [data[a:b].tobytes().decode() for a, b in pairwise(offsets.tolist())]
    found = [_datatrove(lang or "en").word_tokenize(text) for text, lang in zip(texts, langs, strict=True)]
    raw = [word.encode() for words in found for word in words]
    ends = np.cumsum([0, *map(len, raw)], dtype=np.int64)
    first = np.cumsum([0, *map(len, found)], dtype=np.int64)
    joined = np.frombuffer(b"".join(raw), np.uint8)
    return Words(joined, ends[:-1].astype(np.uint32), ends[1:].astype(np.uint32), first)


def segmenter(name: Segmenter, lang: str | None) -> Segment:
    """The function that splits one text of a language into words.

    Raises:
        ConfigError: datatrove's tokenizer of that language needs a package that is not installed.
    """
    if name == "datatrove":
        return _datatrove(lang or "en").word_tokenize

    def words(text: str) -> list[str]:
        raw = text.encode("utf-8", errors="replace")
        found = split(name, np.frombuffer(raw, np.uint8), np.array([0, len(raw)], np.int64), (lang,))
        return [raw[a:b].decode() for a, b in zip(found.starts.tolist(), found.ends.tolist(), strict=True)]

    return words


def sentence_counter(lang: str | None) -> Callable[[str], int]:
    """How many sentences datatrove's splitter of a language finds. Raises `ConfigError` as `segmenter` does."""
    tokenizer = _datatrove(lang or "en")
    return lambda text: max(1, len(list(tokenizer.span_tokenize(text))))


@lru_cache(maxsize=8)
def _datatrove(lang: str) -> WordTokenizer:
    from datatrove.utils.word_tokenizers import load_word_tokenizer

    if lang not in DATATROVE_CODES:
        raise ConfigError(f"no datatrove words for `{lang}`", fix=f"known: {', '.join(sorted(DATATROVE_CODES))}")
    try:
        tokenizer = load_word_tokenizer(DATATROVE_CODES[lang])
        tokenizer.word_tokenize("a")
    except ImportError as error:
        raise ConfigError(
            f"datatrove's words for `{lang}` need a package that is not installed: {error}",
            fix='pip install "spacy[ja]>=3.8" pyvi "kiwipiepy<0.22", or set `segmenter: seodang`',
        ) from None
    return tokenizer
