"""The documents that text benchmarks run on: real ones where they are, else generated ones; both say what they are.

Contract: real documents are read from the folder `SEODANG_DATA` (default: `../shared/data` beside this repository),
in an order that depends on their ids only. Generated text is a seeded stream of words from an alphabet per language,
with repeated lines and sentences; it exercises every code path, and its rates are not those of real text.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from pipeline.core.documents import document_id, table_from_rows, text_hash
from pipeline.core.files import open_input
from pipeline.core.tokenizer import nfc

LANGUAGES = ("en", "de", "es", "vi", "ja", "ko")
REPOSITORY = Path(__file__).parents[1]
# Alphabets of generated words: first code point and how many follow.
ALPHABETS = {
    "en": (0x61, 26), "de": (0x61, 26), "es": (0x61, 26), "vi": (0x1EA1, 80), "ja": (0x4E00, 3000), "ko": (0xAC00, 3000)
}  # fmt: skip
WORDS_OF_LANGUAGE = 5000


@dataclass(frozen=True)
class Corpus:
    """Texts with their languages, and what they are."""

    ids: tuple[str, ...]
    texts: tuple[str, ...]
    languages: tuple[str, ...]
    label: str

    @property
    def megabytes(self) -> float:
        """10^6 bytes of UTF-8."""
        return sum(len(text.encode("utf-8")) for text in self.texts) / 1e6

    def of(self, language: str) -> Corpus:
        """Only the documents in one language."""
        rows = [row for row, found in enumerate(self.languages) if found == language]
        ids, texts = (tuple(column[row] for row in rows) for column in (self.ids, self.texts))
        return Corpus(ids, texts, (language,) * len(rows), f"{self.label}, {language}")

    def table(self) -> pa.Table:
        """`DOCUMENT_SCHEMA` rows."""
        rows = zip(self.ids, self.texts, self.languages, strict=True)
        return table_from_rows(
            [
                {
                    "id": document_id("benchmark", identity),
                    "text_hash": text_hash(text),
                    "text": text,
                    "source": "benchmark",
                    "lang": language,
                    "license": "CC0-1.0",
                }
                for identity, text, language in rows
            ]
        )


def data_folder() -> Path:
    """Where real documents are looked for."""
    return Path(os.environ.get("SEODANG_DATA", REPOSITORY.parent / "shared" / "data"))


def documents(bytes_of_language: int, languages: Sequence[str] = LANGUAGES) -> Corpus:
    """At most so many bytes of each language, in whole documents; at least one document of each."""
    folder = data_folder()
    is_real = (folder / "docs_parallel.jsonl.zst").is_file()
    rows = list(_real_rows(folder)) if is_real else list(_generated_rows(bytes_of_language, tuple(languages)))
    rows.sort(key=lambda row: (xxhash.xxh3_64_intdigest(row[0].encode()), row[0]))
    taken: dict[str, int] = dict.fromkeys(languages, 0)
    chosen: list[tuple[str, str, str]] = []
    for identity, text, language in rows:
        size = len(text.encode("utf-8"))
        if language in taken and (not taken[language] or taken[language] + size <= bytes_of_language):
            taken[language] += size
            chosen.append((identity, nfc(text), language))
    ids, texts, found = zip(*chosen, strict=True)
    kind = "SEODANG_DATA technical documentation" if is_real else "generated words"
    return Corpus(ids, texts, found, f"{kind}, {len(ids)} documents, {sum(taken.values()) / 1e6:.1f} MB")


def parquet_rows(name: str, columns: Sequence[str]) -> list[dict[str, Any]] | None:
    """Rows of one of the real files, or None where it is not."""
    path = data_folder() / name
    return pq.read_table(path, columns=list(columns)).to_pylist() if path.is_file() else None


def _real_rows(folder: Path) -> Iterator[tuple[str, str, str]]:
    with open_input(str(folder / "docs_parallel.jsonl.zst")) as lines:
        for line in lines:
            row = json.loads(line)
            yield row["id"], row["text"], row["lang"]
    for row in parquet_rows("html_gold.parquet", ("id", "text", "lang")) or ():
        yield row["id"], row["text"], row["lang"]


@lru_cache(maxsize=4)
def _generated_rows(bytes_of_language: int, languages: tuple[str, ...]) -> tuple[tuple[str, str, str], ...]:
    rows: list[tuple[str, str, str]] = []
    for language in languages:
        dice = random.Random(f"benchmark {language}")
        first, count = ALPHABETS[language]
        longest = 3 if language in ("ja", "ko") else 10
        words = [
            "".join(chr(first + dice.randrange(count)) for _ in range(dice.randint(1, longest)))
            for _ in range(WORDS_OF_LANGUAGE)
        ]
        size = number = 0
        while size < bytes_of_language:
            text = _document(dice, words, "" if language == "ja" else " ")
            rows.append((f"{language}-{number}", text, language))
            size += len(text.encode("utf-8"))
            number += 1
    return tuple(rows)


def _document(dice: random.Random, words: Sequence[str], space: str) -> str:
    """Paragraphs of sentences; words follow Zipf's law roughly, one line in twenty is said twice."""
    paragraphs: list[str] = []
    for _ in range(dice.randint(2, 12)):
        sentences = []
        for _ in range(dice.randint(1, 6)):
            drawn = [words[int(len(words) ** dice.random()) - 1] for _ in range(dice.randint(4, 24))]
            sentences.append(space.join(drawn) + ".")
        paragraphs.append(" ".join(sentences))
        if dice.random() < 0.05:
            paragraphs.append(paragraphs[-1])
    return "\n\n".join(paragraphs)
