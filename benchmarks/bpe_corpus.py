"""The texts that tokenizer benchmarks train on and are judged by, and which of them are held out.

Contract: documents of `benchmarks.inputs` (real ones where they are), the running interpreter's own library as code,
and textbook chapters as STEM where they are. A document is held out by a hash of its id, or of the id its translations
share, before anything is trained: one of 16. Nothing here depends on a tokenizer.
"""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import xxhash

from benchmarks.inputs import documents, parquet_rows
from pipeline.core.tokenizer import nfc
from stages.tokenizer.counts import Group, Run, count_texts

HELD_OUT_OF = 16
PACKAGES = ("site-packages", "dist-packages", "__pycache__")


@dataclass(frozen=True)
class Text:
    """A document of a group: its language, and `code` or `stem` where it is that."""

    identity: str
    group: Group
    text: str

    @property
    def is_held_out(self) -> bool:
        return xxhash.xxh3_64_intdigest(f"tokenizer benchmark {self.identity}".encode()) % HELD_OUT_OF == 0


@lru_cache(maxsize=2)
def mixed_texts(bytes_of_language: int) -> tuple[Text, ...]:
    """At most so many bytes of each language, and as many of code and of STEM."""
    corpus = documents(bytes_of_language)
    rows = zip(corpus.ids, corpus.texts, corpus.languages, strict=True)
    texts = [Text(identity, Group(language, ""), text) for identity, text, language in rows]
    return (*texts, *_bounded(_code(), bytes_of_language), *_bounded(_stem(), bytes_of_language))


def label(texts: tuple[Text, ...]) -> str:
    megabytes = sum(len(one.text.encode()) for one in texts) / 1e6
    groups = sorted({one.group.name for one in texts})
    return f"{len(texts)} documents, {megabytes:.1f} MB: {', '.join(groups)}"


def counted(texts: tuple[Text, ...]) -> list[Run]:
    """The counts of each group."""
    groups = sorted({one.group for one in texts})
    return [run for group in groups for run in count_texts(group, (t.text.encode() for t in texts if t.group == group))]


def _bounded(texts: Iterator[Text], limit: int) -> Iterator[Text]:
    size = 0
    for one in texts:
        size += len(one.text.encode())
        if size > limit:
            return
        yield one


def _code() -> Iterator[Text]:
    """The interpreter's library, in the order of the hashes of its names."""
    root = Path(sysconfig.get_paths()["stdlib"])
    files = [path for path in root.rglob("*.py") if not set(path.parts) & set(PACKAGES)]
    files.sort(key=lambda path: xxhash.xxh3_64_intdigest(os.fspath(path.relative_to(root)).encode()))
    for path in files:
        try:
            yield Text(path.relative_to(root).as_posix(), Group("en", "code"), nfc(path.read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError):
            continue  # tests of the interpreter hold broken files


def _stem() -> Iterator[Text]:
    rows = parquet_rows("stem_openstax_vol3.parquet", ("id", "text", "lang", "parallel_id")) or []
    for row in rows:
        yield Text(row["parallel_id"] or row["id"], Group(row["lang"], "stem"), nfc(row["text"]))
