"""What several benchmarks need of datatrove: documents in its form, its language codes, silence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.inputs import Corpus

if TYPE_CHECKING:
    from datatrove.data import Document

# BCP-47 -> ISO 639-3, and what datatrove's word tokenizer of that language is made of.
CODES = {"en": "eng", "de": "deu", "es": "spa", "vi": "vie", "ja": "jpn", "ko": "kor"}
WORD_PACKAGES: dict[str, tuple[str, ...]] = {
    "en": ("spacy",),
    "de": ("spacy",),
    "es": ("spacy",),
    "vi": ("spacy", "pyvi"),
    "ja": ("spacy", "sudachipy"),
    "ko": ("kiwipiepy",),
}


def silence() -> None:
    """datatrove logs to stderr through loguru."""
    from datatrove.utils.logging import logger

    logger.remove()


def datatrove_documents(corpus: Corpus) -> list[Document]:
    """New documents at each call: filters change them."""
    from datatrove.data import Document

    return [Document(text=text, id=identity) for identity, text in zip(corpus.ids, corpus.texts, strict=True)]
