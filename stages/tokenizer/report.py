"""How well a tokenizer fits text: bytes per token and fertility by language and domain, beside other tokenizers.

Contract: every figure is counted on the given documents. Bytes are those of NFC text as UTF-8; words are those of
`stages.words`, so that fertility is tokens a word. A group is code (domain `code`), STEM (domain `stem`, `science` or
`mathematics`), else English, Korean or multilingual by language. Other tokenizers encode the text with their own
normaliser and without special tokens. A superword is a token with a space between letters; tokens never used are
those of text, special and reserved ones left out. Cost: each tokenizer's own encoding; ours about 30 MB/s.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from pipeline.core.errors import InputError
from pipeline.core.tokenizer import FILE, nfc
from stages.tokenizer.encoder import Encoder
from stages.tokenizer.tiktoken_form import ordinary_tokens
from stages.words import split

STEM_DOMAINS = ("stem", "science", "mathematics")
GROUPS = ("English", "Korean", "multilingual", "code", "STEM")
BATCH_DOCUMENTS = 256
SHOWN_SUPERWORDS, SHOWN_UNUSED = 12, 20
NO_LANGUAGE, NO_DOMAIN = "und", "none"

Count = Callable[[Sequence[str]], list[int]]


@dataclass(frozen=True)
class Sample:
    """One document."""

    text: str
    language: str
    domain: str

    @property
    def group(self) -> str:
        if self.domain == "code":
            return "code"
        if self.domain in STEM_DOMAINS:
            return "STEM"
        return {"en": "English", "ko": "Korean"}.get(self.language, "multilingual")


@dataclass
class Tally:
    """What the documents of one language, domain or group add up to."""

    documents: int = 0
    text_bytes: int = 0
    words: int = 0
    tokens: Counter[str] = field(default_factory=Counter[str])  # by tokenizer

    def row(self) -> dict[str, Any]:
        """As the report holds it."""
        return {
            "documents": self.documents,
            "bytes": self.text_bytes,
            "words": self.words,
            "bytes_per_token": {name: self.text_bytes / count for name, count in self.tokens.items() if count},
            "fertility": {name: count / self.words for name, count in self.tokens.items() if self.words},
        }


def tokenizer_report(
    name: str, encoder: Encoder, others: Mapping[str, Count], samples: Iterable[Sample]
) -> dict[str, Any]:
    """Everything that is shown, as JSON values.

    Args:
        name: Of the tokenizer in the tables.
        encoder: Its encoder.
        others: Name -> how many tokens each text has there.
        samples: The documents.
    """
    tallies: dict[str, dict[str, Tally]] = {"groups": {}, "languages": {}, "domains": {}}
    used = np.zeros(encoder.tokenizer.vocabulary_size, np.int64)
    superwords = superword_texts(encoder)
    by_language: dict[str, Counter[int]] = {}
    for batch in _batches(samples):
        ids, offsets = encoder.encode_joined([sample.text for sample in batch])
        used += np.bincount(ids, minlength=used.size)
        counts = {name: np.diff(offsets).tolist()}
        counts |= {other: count([sample.text for sample in batch]) for other, count in others.items()}
        for row, (sample, words) in enumerate(zip(batch, _words(batch), strict=True)):
            keys = {"groups": sample.group, "languages": sample.language, "domains": sample.domain}
            for kind, key in keys.items():
                tally = tallies[kind].setdefault(key, Tally())
                tally.documents += 1
                tally.text_bytes += len(sample.text.encode())
                tally.words += words
                tally.tokens.update({other: found[row] for other, found in counts.items()})
            found, times = np.unique(ids[offsets[row] : offsets[row + 1]], return_counts=True)
            seen = zip(found.tolist(), times.tolist(), strict=True)
            by_language.setdefault(sample.language, Counter()).update(
                {number: count for number, count in seen if number in superwords}
            )
    return {
        "tokenizer": name,
        "others": list(others),
        "vocabulary": encoder.tokenizer.vocabulary_size,
        "superwords": len(superwords),
        "encoded_by_tokenizers": encoder.reason,
        **{kind: {key: rows[key].row() for key in _order(kind, rows)} for kind, rows in tallies.items()},
        "frequent_superwords": _frequent(by_language, superwords),
        "unused": _unused(encoder, used, superwords),
    }


def superword_texts(encoder: Encoder) -> dict[int, str]:
    """Tokens that hold a space between letters, as text."""
    found: dict[int, str] = {}
    for number, spelt in ordinary_tokens(encoder.tokenizer.description()).items():
        text = spelt.decode("utf-8", "replace")
        inner = text.strip().split(" ")
        if len(inner) > 1 and inner[0] and any(map(str.isalpha, text)):
            found[number] = text
    return found


def file_counter(path: Path) -> Count:
    """How many tokens any tokenizer.json gives a text, special tokens neither added nor recognised."""
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        raise InputError("no such tokenizer", where=str(file), fix="give the path of a tokenizer.json")
    try:
        description = json.loads(file.read_bytes())
        whole = tokenizers.Tokenizer.from_str(json.dumps(description | {"added_tokens": [], "post_processor": None}))
    except Exception as error:  # the library raises plain Exception
        raise InputError(f"not a tokenizer.json: {error}", where=str(file)) from None
    whole.no_truncation()
    whole.no_padding()
    return lambda texts: [len(one) for one in whole.encode_batch_fast(list(texts), add_special_tokens=False)]


def _batches(samples: Iterable[Sample]) -> Iterator[list[Sample]]:
    batch: list[Sample] = []
    for sample in samples:
        batch.append(Sample(nfc(sample.text), sample.language or NO_LANGUAGE, sample.domain or NO_DOMAIN))
        if len(batch) == BATCH_DOCUMENTS:
            yield batch
            batch = []
    if batch:
        yield batch


def _words(batch: Sequence[Sample]) -> list[int]:
    data = [sample.text.encode() for sample in batch]
    offsets = np.cumsum([0, *map(len, data)], dtype=np.int64)
    found = split("seodang", np.frombuffer(b"".join(data), np.uint8), offsets, [sample.language for sample in batch])
    return np.diff(found.first).tolist()


def _order(kind: str, rows: Mapping[str, Tally]) -> list[str]:
    if kind == "groups":
        return [name for name in GROUPS if name in rows]
    return sorted(rows, key=lambda key: (-rows[key].text_bytes, key))


def _frequent(by_language: Mapping[str, Counter[int]], superwords: Mapping[int, str]) -> dict[str, list[list[Any]]]:
    return {
        language: [
            [superwords[number], count]
            for number, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:SHOWN_SUPERWORDS]
        ]
        for language, counts in sorted(by_language.items())
        if counts
    }


def _unused(encoder: Encoder, used: np.ndarray, superwords: Mapping[int, str]) -> dict[str, Any]:
    ordinary = ordinary_tokens(encoder.tokenizer.description())
    never = [number for number in sorted(ordinary) if not used[number]]
    return {
        "tokens": len(never),
        "of": len(ordinary),
        "superwords": sum(number in superwords for number in never),
        "first": [ordinary[number].decode("utf-8", "replace") for number in never[:SHOWN_UNUSED]],
    }
