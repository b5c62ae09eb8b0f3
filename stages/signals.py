"""Heuristic quality signals, computed once per text and kept as columns; rules are thresholds over them, later.

Contract: `signals_table` gives one row per document, in order: `id`, and a float64 column per signal (thresholds are
compared exactly), named `signal@version`. A signal that has no meaning for a document (no stop word list for its
language, no words) is null.
Definitions follow datatrove 0.10's filters, which follow the papers named beside each group; the words are the
segmenter's. Cost: about 4-8 MB/s a core; one segmentation, one pass over the code points, one over the lines.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import pyarrow as pa
import regex

from stages.ngrams import DUPLICATE_SIZES, TOP_SIZES, code_points, repeated_characters, word_classes
from stages.words import Segment, Segmenter, segmenter

# Punctuation as datatrove's filters know it: a fixed list, controls, and the sentence ends of all scripts.
_PUNCTUATION = "!/—”:％１〈&(、━\\【#%「」，】；+^]~“《„';’{|∶´[=-`*．（–？！：$～«〉,><》)?）。…@_.\"}►»"
_CONTROLS = "".join(map(chr, (*range(9), *range(11, 32), *range(127, 160))))
SENTENCE_ENDS = frozenset(regex.findall(r"\p{Sentence_Terminal}", "".join(map(chr, range(0x20, 0x20000)))))
_SHORT_LINE_CHARACTERS = 30
_C4_ENDS = (".", "?", "!", '"', "'")
_C4_POLICY = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
_C4_CITATION = re.compile(r"\[\d*]|\[edit]|\[citation needed]")
_SENTENCE = regex.compile(r"[.!?。！？…]+[\"'”’」』)]*(?=\s|$|[^\x00-\x7f])")
_UNSPACED = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}]")
_PARAGRAPHS = re.compile(r"\n{2,}")
_LINES = re.compile(r"\n+")

GOPHER_QUALITY = (
    "words", "nonsymbol_words", "mean_word_length", "hash_ratio", "ellipsis_ratio", "bullet_line_ratio",
    "ellipsis_line_ratio", "alpha_word_ratio", "stop_words",
)  # fmt: skip
GOPHER_REPETITION = (
    "dup_paragraph_fraction", "dup_paragraph_character_fraction", "dup_line_fraction", "dup_line_character_fraction",
    *(f"top_{n}_gram_fraction" for n in TOP_SIZES), *(f"dup_{n}_gram_fraction" for n in DUPLICATE_SIZES),
)  # fmt: skip
FINEWEB = ("line_punctuation_ratio", "short_line_ratio", "line_dup_character_ratio", "new_line_ratio")
C4 = ("c4_lorem_ipsum", "c4_curly_bracket", "c4_sentences", "c4_lines_kept", "mean_line_length", "longest_line")
SIGNALS = (*GOPHER_QUALITY, *GOPHER_REPETITION, *FINEWEB, *C4)
VERSION = 1


def column(signal: str) -> str:
    """Name of a signal's column."""
    return f"{signal}@{VERSION}"


def signals_table(
    documents: pa.Table, stop_words: Mapping[str, frozenset[str]], words: Segmenter = "seodang"
) -> pa.Table:
    """The signals of every document.

    Args:
        documents: `DOCUMENT_SCHEMA` rows; `id`, `text` and `lang` are read.
        stop_words: Stop words by language; a language without a list has a null `stop_words` signal.
        words: Which segmenter counts.
    """
    rows = [
        document_signals(text, segmenter(words, lang), stop_words.get(lang or ""))
        for text, lang in zip(documents["text"].to_pylist(), documents["lang"].to_pylist(), strict=True)
    ]
    columns: dict[str, pa.Array | pa.ChunkedArray] = {"id": documents["id"]}
    for name in SIGNALS:
        columns[column(name)] = pa.array([row[name] for row in rows], pa.float64())
    return pa.table(columns)


def document_signals(text: str, segment: Segment, stop_words: frozenset[str] | None) -> dict[str, float | None]:
    """Every signal of one text."""
    values: dict[str, float | None] = dict.fromkeys(SIGNALS)
    if not text.strip():
        return values
    _of_words(values, text, segment(text), stop_words)
    _of_lines(values, text)
    _of_c4(values, text.splitlines())
    return values


def _of_words(
    values: dict[str, float | None], text: str, words: Sequence[str], stop_words: frozenset[str] | None
) -> None:
    count = len(words)
    values["words"] = count
    if not count:
        return
    points = code_points("".join(words))
    ends = np.cumsum(np.fromiter(map(len, words), np.int64, count))
    kept, characters, alphabetic = word_classes(points, ends, _character_classes())
    values["nonsymbol_words"] = kept
    values["mean_word_length"] = characters / kept if kept else None
    values["hash_ratio"] = text.count("#") / count
    values["ellipsis_ratio"] = (text.count("...") + text.count("…")) / count
    values["alpha_word_ratio"] = alphabetic / count
    values["new_line_ratio"] = text.count("\n") / count
    if stop_words is not None:
        values["stop_words"] = len(stop_words.intersection(words))
    duplicate, top = repeated_characters(points, ends)
    for n, number in zip(DUPLICATE_SIZES, duplicate, strict=True):
        values[f"dup_{n}_gram_fraction"] = int(number) / len(text)
    for n, number in zip(TOP_SIZES, top, strict=True):
        values[f"top_{n}_gram_fraction"] = int(number) / len(text)


def _of_lines(values: dict[str, float | None], text: str) -> None:
    paragraphs = _PARAGRAPHS.split(text.strip())
    repeated, characters = _repeated(paragraphs)
    values["dup_paragraph_fraction"] = repeated / len(paragraphs)
    values["dup_paragraph_character_fraction"] = characters / len(text)
    lines = _LINES.split(text)
    repeated, characters = _repeated(lines)
    values["dup_line_fraction"] = repeated / len(lines)
    values["dup_line_character_fraction"] = characters / len(text)

    every = text.splitlines()
    values["bullet_line_ratio"] = sum(line.lstrip().startswith(("•", "-")) for line in every) / len(every)
    values["ellipsis_line_ratio"] = sum(line.rstrip().endswith(("...", "…")) for line in every) / len(every)

    filled = [line for line in text.split("\n") if line.strip()]
    values["line_punctuation_ratio"] = sum(line[-1] in SENTENCE_ENDS for line in filled) / len(filled)
    values["short_line_ratio"] = sum(len(line) <= _SHORT_LINE_CHARACTERS for line in filled) / len(filled)
    values["line_dup_character_ratio"] = _repeated(filled)[1] / len(text.replace("\n", ""))
    values["mean_line_length"] = sum(map(len, filled)) / len(filled)
    values["longest_line"] = max(map(len, filled))


def _of_c4(values: dict[str, float | None], lines: Sequence[str]) -> None:
    """Raffel et al. 2020, section 2.2, line by line; sentence marks of all scripts end a line, unlike the original."""
    lorem = curly = sentences = kept = 0
    for raw in lines:
        words = raw.split()
        line = _C4_CITATION.sub("", raw.strip())
        ends = line.endswith(_C4_ENDS) or line[-1:] in SENTENCE_ENDS
        if _few_words(words, line) or not ends or line.endswith("...") or any(len(word) > 1000 for word in words):
            continue
        lower = line.lower()
        lorem += "lorem ipsum" in lower
        curly += "{" in line
        if "javascript" in lower or any(phrase in lower for phrase in _C4_POLICY):
            continue
        kept += 1
        sentences += max(1, len(_SENTENCE.findall(line)))
    values.update(c4_lorem_ipsum=lorem, c4_curly_bracket=curly, c4_sentences=sentences, c4_lines_kept=kept)


def _few_words(words: Sequence[str], line: str) -> bool:
    """Fewer than three words; two characters count as one where words are not parted by spaces (ours)."""
    return len(words) < 3 and not (len(line) >= 6 and _UNSPACED.search(line))


def _repeated(parts: Sequence[str]) -> tuple[int, int]:
    """(parts that occurred before, their characters)."""
    seen: set[str] = set()
    count = characters = 0
    for part in parts:
        if part in seen:
            count += 1
            characters += len(part)
        seen.add(part)
    return count, characters


@lru_cache(maxsize=1)
def _character_classes() -> np.ndarray:
    """[0x110000] uint8: 1 = alphabetic, 2 = punctuation."""
    classes = np.zeros(0x110000, np.uint8)
    for point in range(0x32000):  # nothing beyond the last assigned letters of plane 3
        if chr(point).isalpha():
            classes[point] = 1
    for char in (*_PUNCTUATION, *_CONTROLS, *SENTENCE_ENDS):
        classes[ord(char)] = 2
    return classes
