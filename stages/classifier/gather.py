"""The documents of a classifier: read by label, given a language, parted by hash into training and held-out ones.

Contract: which part a document is in depends on its text alone, so that the same document never stands on both sides,
whatever files it comes in; a text that two labels share is left out of both and counted. Memory: the texts' heads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import xxhash

from pipeline.core.errors import InputError
from stages.classifier.spec import ClassifierSpec, LabelConfig
from stages.classifier.train import LINE_CHARACTERS
from stages.language import embedded, identify
from stages.read import read_parts
from stages.rows import Origin
from stages.sources import expand_paths, whole_files

Part = Literal["train", "calibrate", "report"]
PARTS: tuple[Part, ...] = ("train",) * 8 + ("calibrate", "report")  # by hash of the text, a tenth each


@dataclass(frozen=True)
class Example:
    """One document."""

    text: str
    label: str
    lang: str

    @property
    def part(self) -> Part:
        return PARTS[_hash(self.text) % len(PARTS)]


def gather(spec: ClassifierSpec, base: Path) -> tuple[list[Example], Counter[str]]:
    """Examples of all labels in order of their texts' hashes, and counts of what was left out.

    Raises:
        InputError: A label has too few documents in a language.
    """
    left_out: Counter[str] = Counter()
    labels_of: dict[tuple[int, str], set[str]] = {}
    texts: dict[int, str] = {}
    for label, config in spec.labels.items():
        for text, lang in _documents(config, label, base):
            if lang not in spec.languages:
                left_out[f"other language: {lang}"] += 1
                continue
            key = _hash(text)
            texts[key] = text
            labels_of.setdefault((key, lang), set()).add(label)
    examples: list[Example] = []
    taken: Counter[tuple[str, str]] = Counter()
    for key, lang in sorted(labels_of):
        labels = labels_of[key, lang]
        if len(labels) > 1:
            left_out["several labels"] += 1
            continue
        (label,) = labels
        most = spec.labels[label].maximum_documents
        if most is not None and taken[label, lang] >= most:
            left_out["more than maximum_documents"] += 1
            continue
        taken[label, lang] += 1
        examples.append(Example(texts[key], label, lang))
    _check(spec, taken)
    return examples, left_out


def _documents(config: LabelConfig, label: str, base: Path) -> Iterator[tuple[str, str]]:
    """(head of the text, language) of a label's documents; languages that no source names are identified."""
    model = embedded()
    for number, read in enumerate(config.sources):
        files = expand_paths(read, base, where=f"labels.{label}.sources.{number}")
        for batch in read_parts(whole_files(files), read, Origin(label, None, read.domain, read.lang)):
            texts = [text[:LINE_CHARACTERS] for text in batch.documents["text"].to_pylist()]
            langs = batch.documents["lang"].to_pylist()
            unknown = [row for row, lang in enumerate(langs) if lang is None]
            for row, found in zip(unknown, identify([texts[row] for row in unknown], model), strict=True):
                langs[row] = found.whole.lang
            yield from zip(texts, langs, strict=True)


def _check(spec: ClassifierSpec, taken: Mapping[tuple[str, str], int]) -> None:
    for lang in spec.languages:
        for label in spec.labels:
            count = taken.get((label, lang), 0)
            if count < spec.minimum_documents:
                raise InputError(
                    f"{count} documents of `{lang}`, at least {spec.minimum_documents} are needed",
                    where=f"labels.{label}",
                    fix=f"give more sources, lower `minimum_documents`, or leave `{lang}` out of `languages`",
                )


def _hash(text: str) -> int:
    return xxhash.xxh3_64_intdigest(text.encode("utf-8", errors="surrogatepass"))
