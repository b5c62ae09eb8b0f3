"""Heuristic quality signals, computed once per text and kept as columns; rules are thresholds over them, later.

Contract: `signals_table` gives one row per document, in order: `id`, `lang` and `domain` (what thresholds depend on),
and a float64 column per signal (thresholds are compared exactly), named `signal@version`. A signal that has no meaning
for a document (no stop word list for its language, no words) is null.
Definitions follow datatrove 0.10's filters, which follow the papers named in `stages.ngrams` and
`stages.line_signals`; the words are the segmenter's. Everything is counted by kernels over the UTF-8 buffer of the
Arrow column.
Cost: 20-30 MB/s a core; 30 bytes of memory a word, a part of the batch at a time: about 6 bytes a byte of text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import cast

import numpy as np
import pyarrow as pa

from stages import line_signals, ngrams
from stages.c4 import C4_FIELDS, phrase_table
from stages.characters import classes
from stages.sentences import count_sentences
from stages.words import Segmenter, Words, split

GOPHER_QUALITY = (
    "words", "nonsymbol_words", "mean_word_length", "hash_ratio", "ellipsis_ratio", "bullet_line_ratio",
    "ellipsis_line_ratio", "alpha_word_ratio", "stop_words",
)  # fmt: skip
GOPHER_REPETITION = (
    "dup_paragraph_fraction", "dup_paragraph_character_fraction", "dup_line_fraction", "dup_line_character_fraction",
    *(f"top_{n}_gram_fraction" for n in ngrams.TOP_SIZES),
    *(f"dup_{n}_gram_fraction" for n in ngrams.DUPLICATE_SIZES),
)  # fmt: skip
FINEWEB = ("line_punctuation_ratio", "short_line_ratio", "line_dup_character_ratio", "new_line_ratio")
# Lines that end in an ASCII mark (as published), in anything, in a mark of any script.
C4_VARIANTS = ("c4", "c4_any_end", "c4_script_end")
C4 = tuple(f"{variant}_{field}" for variant in C4_VARIANTS for field in C4_FIELDS)
SIGNALS = (*GOPHER_QUALITY, *GOPHER_REPETITION, *FINEWEB, *C4, "mean_line_length", "longest_line")
VERSION = 2
KEYS = ("id", "lang", "domain")
_PART_BYTES = 4 << 20  # of text at once: scratch memory stays near the cache

Signals = dict[str, np.ndarray]


def column(signal: str) -> str:
    """Name of a signal's column."""
    return f"{signal}@{VERSION}"


def signals_table(
    documents: pa.Table, stop_words: Mapping[str, frozenset[str]], words: Segmenter = "seodang"
) -> pa.Table:
    """The signals of every document.

    Args:
        documents: `DOCUMENT_SCHEMA` rows; `id`, `text`, `lang` and `domain` are read.
        stop_words: Stop words by language; a language without a list has a null `stop_words` signal.
        words: Which segmenter counts.
    """
    langs: list[str | None] = documents["lang"].to_pylist()
    parts: list[Signals] = []
    row = 0
    for data, offsets in _parts(documents["text"]):
        some = langs[row : row + len(offsets) - 1]
        row += len(some)
        parts.append(batch_signals(data, offsets, some, stop_words, words))
    columns: dict[str, pa.Array | pa.ChunkedArray] = {name: documents[name] for name in KEYS}
    for name in SIGNALS:
        values = np.concatenate([part[name] for part in parts]) if parts else np.zeros(0)
        columns[column(name)] = pa.array(values, pa.float64(), mask=np.isnan(values))
    return pa.table(columns)


def document_signals(text: str, lang: str | None, stop_words: frozenset[str] | None) -> dict[str, float | None]:
    """Every signal of one text, with our words."""
    raw = np.frombuffer(text.encode("utf-8", errors="replace"), np.uint8)
    lists = {} if stop_words is None else {lang or "": stop_words}
    found = batch_signals(raw, np.array([0, raw.size]), (lang,), lists, "seodang")
    return {name: None if np.isnan(values[0]) else float(values[0]) for name, values in found.items()}


def batch_signals(
    data: np.ndarray,
    offsets: np.ndarray,
    langs: Sequence[str | None],
    stop_words: Mapping[str, frozenset[str]],
    segmenter: Segmenter,
) -> Signals:
    """[documents] float64 of every signal, NaN where it has no meaning; documents as in `stages.words.split`."""
    words = split(segmenter, data, offsets, langs)
    by_line = line_signals.line_counts(data, offsets, classes(), *phrase_table())
    if segmenter == "datatrove":
        count_sentences(by_line, data, offsets, langs)
    by_word = _word_counts(words, langs, stop_words)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = {**_of_words(by_word, by_line), **_of_lines(by_line)}
    blank = by_line[:, line_signals.FILLED] == 0
    for values in found.values():
        values[blank | ~np.isfinite(values)] = np.nan
    return found


def _parts(texts: pa.ChunkedArray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(bytes, offsets from 0) of documents one after the other, `_PART_BYTES` together or one document."""
    for chunk in texts.chunks:
        array = cast(pa.LargeStringArray, chunk.cast(pa.large_string()))
        _, places, content = array.buffers()
        if not len(array):
            continue
        offsets = np.frombuffer(places, np.int64)[array.offset : array.offset + len(array) + 1]
        data = np.frombuffer(content, np.uint8) if content is not None else np.zeros(0, np.uint8)
        first = 0
        while first < len(array):
            last = int(np.searchsorted(offsets, offsets[first] + _PART_BYTES, side="right")) - 1
            last = min(max(last, first + 1), len(array))
            part = offsets[first : last + 1]
            yield data[part[0] : part[-1]], part - part[0]
            first = last


def _word_counts(words: Words, langs: Sequence[str | None], stop_words: Mapping[str, frozenset[str]]) -> np.ndarray:
    names = tuple(sorted(stop_words))
    hashes, first = _stop_hashes(tuple((name, tuple(sorted(stop_words[name]))) for name in names))
    place = {name: number for number, name in enumerate(names)}
    group = np.array([place.get(lang or "", -1) for lang in langs], np.int64)
    return ngrams.word_counts(words.data, words.starts, words.ends, words.first, classes(), hashes, first, group)


@lru_cache(maxsize=8)
def _stop_hashes(lists: tuple[tuple[str, tuple[str, ...]], ...]) -> tuple[np.ndarray, np.ndarray]:
    raw = [np.frombuffer(word.encode(), np.uint8) for _, words in lists for word in words]
    hashes = np.array([ngrams.word_hash(word, 0, word.size) for word in raw], np.uint64)
    return hashes, np.cumsum([0, *(len(words) for _, words in lists)], dtype=np.int64)


def _of_words(by_word: np.ndarray, by_line: np.ndarray) -> Signals:
    words = by_word[:, ngrams.WORDS].astype(np.float64)
    characters = by_line[:, line_signals.CHARACTERS]
    stop = by_word[:, ngrams.STOP_WORDS].astype(np.float64)
    found = {
        "words": words,
        "nonsymbol_words": by_word[:, ngrams.NONSYMBOL].astype(np.float64),
        "mean_word_length": by_word[:, ngrams.NONSYMBOL_CHARACTERS] / by_word[:, ngrams.NONSYMBOL],
        "hash_ratio": by_line[:, line_signals.HASHES] / words,
        "ellipsis_ratio": by_line[:, line_signals.ELLIPSES] / words,
        "alpha_word_ratio": by_word[:, ngrams.ALPHABETIC] / words,
        "stop_words": np.where(stop < 0, np.nan, stop),
        "new_line_ratio": by_line[:, line_signals.LINE_FEEDS] / words,
    }
    for k, n in enumerate(ngrams.TOP_SIZES):
        found[f"top_{n}_gram_fraction"] = by_word[:, ngrams.TOP + k] / characters
    for k, n in enumerate(ngrams.DUPLICATE_SIZES):
        found[f"dup_{n}_gram_fraction"] = by_word[:, ngrams.DUPLICATE + k] / characters
    return found


def _of_lines(counts: np.ndarray) -> Signals:
    characters, filled = counts[:, line_signals.CHARACTERS], counts[:, line_signals.FILLED]
    split_lines = counts[:, line_signals.SPLIT_LINES]
    found = {
        "dup_paragraph_fraction": counts[:, line_signals.PARAGRAPH_REPEATS] / counts[:, line_signals.PARAGRAPHS],
        "dup_paragraph_character_fraction": counts[:, line_signals.PARAGRAPH_REPEAT_CHARACTERS] / characters,
        "dup_line_fraction": counts[:, line_signals.LINE_REPEATS] / counts[:, line_signals.LINES],
        "dup_line_character_fraction": counts[:, line_signals.LINE_REPEAT_CHARACTERS] / characters,
        "bullet_line_ratio": counts[:, line_signals.BULLET_LINES] / split_lines,
        "ellipsis_line_ratio": counts[:, line_signals.ELLIPSIS_LINES] / split_lines,
        "line_punctuation_ratio": counts[:, line_signals.FILLED_ENDED] / filled,
        "short_line_ratio": counts[:, line_signals.FILLED_SHORT] / filled,
        "line_dup_character_ratio": counts[:, line_signals.FILLED_REPEAT_CHARACTERS]
        / (characters - counts[:, line_signals.LINE_FEEDS]),
        "mean_line_length": counts[:, line_signals.FILLED_CHARACTERS] / filled,
        "longest_line": counts[:, line_signals.LONGEST_LINE].astype(np.float64),
    }
    found |= {name: counts[:, line_signals.C4 + k].astype(np.float64) for k, name in enumerate(C4)}
    return found
