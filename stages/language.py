"""Language identification: per paragraph, after masking mathematics and code, with a second look at close relatives.

Contract: a document's language is the one with most letters in its paragraphs; its score is the letters' mean
confidence in it (`stages/lid/whole.py`). Scripts that one language alone uses decide without a model; a model's answer
must be borne out by script and words (`stages/lid/second_look.py`). Models: the one in py3langid's wheel (no
download), or a fastText file (lid.176, GlotLID, OpenLID). A document in several languages is labelled by its main one,
labelled `mul`, or split into one document a language. Program text (domain `code`) is not identified: it gets
`code_lang`. Drops: `language.other`, `language.low_score`.
Cost: embedded model 6-10 MB/s a core; a fastText model's own time and a tenth; paragraphs are judged in batches.
Memory: about 200 bytes a paragraph, and a few megabytes of a long text at a time (`mixed: split` holds it whole).
"""

from __future__ import annotations

import unicodedata
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson
import pyarrow as pa
from pydantic import Field

from pipeline.core.config import Config
from pipeline.core.documents import DOCUMENT_SCHEMA, document_id, text_hash
from pipeline.core.languages import MULTILINGUAL
from stages.block import SPLIT, Dropped, Outcome, outcome, with_columns
from stages.lid.masking import mask, masked_pieces
from stages.lid.models import UNDETERMINED, Model, embedded, fasttext_file
from stages.lid.second_look import Found, look
from stages.lid.whole import Whole, read_paragraphs, settle, split_lines, whole
from stages.long_texts import decoded, views

CODE = "code"
LOOK_PARAGRAPHS = 8192  # judged at once: these two bound memory
LOOK_CHARACTERS = 1 << 22
Mixed = Literal["main", "label", "split"]


class LanguageConfig(Config):
    """Options of the `language` block.

    `mixed` says what becomes of a document of which a second language has at least `mixed_share` of the letters and
    `mixed_letters` letters: `main` labels it with its main language, `label` with `mul` (its languages, most letters
    first, in `extra.languages`; it is kept when all of them are), `split` makes one document of each language's lines.
    """

    keep: tuple[str, ...] = ()  # BCP-47; empty keeps every language
    minimum_score: float = Field(default=0.5, ge=0.0, le=1.0)  # ours
    minimum_scores: dict[str, float] = Field(default_factory=dict)  # by language, over `minimum_score`
    model: tuple[str, ...] = ()  # path of a fastText model; empty: the embedded one
    code_lang: str = "en"  # of documents whose domain is `code`; `zxx` means no language
    mixed: Mixed = "main"
    mixed_share: float = Field(default=0.2, gt=0.0, lt=1.0)  # ours
    mixed_letters: int = Field(default=200, ge=1)  # ours


@dataclass(frozen=True)
class Identified:
    """What a text's paragraphs are, and what they come to.

    Attributes:
        text: As it was given, a string or UTF-8.
        lines: First line and end of each paragraph, one after the other.
        found: What each paragraph is.
        whole: What the document is.
    """

    text: str | memoryview
    lines: array[int]
    found: Sequence[Found]
    whole: Whole

    def composed(self) -> str:
        """The text that `lines` count the lines of."""
        text = self.text if isinstance(self.text, str) else decoded(self.text)
        return unicodedata.normalize("NFC", text)

    def languages(self, config: LanguageConfig) -> list[str]:
        """The languages that count, most letters first; one unless the document is mixed."""
        shares = self.whole.shares()
        rest = [
            lang
            for lang, letters in self.whole.letters[1:]
            if shares[lang] >= config.mixed_share and letters >= config.mixed_letters
        ]
        return [self.whole.lang, *rest]


def identify(texts: Sequence[str | memoryview], model: Model) -> list[Identified]:
    """What every text is; paragraphs of all texts are judged together."""
    lines = [array("q") for _ in texts]
    found: list[list[Found]] = [[] for _ in texts]
    waiting: list[str] = []
    owners: list[int] = []
    characters = 0

    def judge() -> None:
        for owner, one in zip(owners, look(waiting, model), strict=True):
            found[owner].append(one)
        waiting.clear()
        owners.clear()

    for owner, text in enumerate(texts):
        masked = [mask(unicodedata.normalize("NFC", text))] if isinstance(text, str) else masked_pieces(text)
        for part in read_paragraphs(masked):
            lines[owner].extend((part.first, part.end))
            waiting.append(part.text)
            owners.append(owner)
            characters += len(part.text)
            if len(waiting) == LOOK_PARAGRAPHS or characters >= LOOK_CHARACTERS:
                judge()
                characters = 0
    if waiting:
        judge()
    return [
        Identified(text, own_lines, own, whole(own))
        for text, own_lines, own in zip(texts, lines, map(settle, found), strict=True)
    ]


def identify_document(text: str, model: Model) -> tuple[str, float]:
    """(language, score) of a text by its paragraphs; `und` and 0 when it has no letters."""
    found = identify([text], model)[0].whole
    return found.lang, found.score


class Language:
    """The block."""

    def __init__(self, config: LanguageConfig, model: Model) -> None:
        self._config = config
        self._model = model

    def apply(self, documents: pa.Table) -> Outcome:
        langs: list[str | None] = documents["lang"].to_pylist()
        domains: list[str | None] = documents["domain"].to_pylist()
        unknown = [row for row, lang in enumerate(langs) if lang is None and domains[row] != CODE]
        texts = views(documents["text"])
        found = dict(zip(unknown, identify([texts[row] for row in unknown], self._model), strict=True))
        counts = Counter({"language.identified": sum(lang is None for lang in langs)})
        labelled = self._labelled(documents, found, counts)
        result = self._dropped(labelled, found, counts)
        if self._config.mixed != "split":
            return result
        return self._split(labelled, found, result, counts)

    def _labelled(self, documents: pa.Table, found: Mapping[int, Identified], counts: Counter[str]) -> pa.Table:
        """The documents with `lang` and `lang_score`, and `extra.languages` where `mixed: label` found several."""
        langs: list[str | None] = documents["lang"].to_pylist()
        scores: list[float | None] = documents["lang_score"].to_pylist()
        extras: list[str | None] = documents["extra"].to_pylist()
        for row, lang in enumerate(langs):
            if row in found:
                langs[row], scores[row] = found[row].whole.lang, found[row].whole.score
                several = found[row].languages(self._config)
                if len(several) > 1:
                    counts["language.mixed"] += 1
                    if self._config.mixed == "label":
                        langs[row], scores[row] = MULTILINGUAL, _mean_score(found[row])
                        extras[row] = _with_languages(extras[row], several)
            elif lang is None:
                langs[row], scores[row] = self._config.code_lang, 1.0
        return with_columns(documents, {"lang": langs, "lang_score": scores, "extra": extras})

    def _dropped(self, documents: pa.Table, found: Mapping[int, Identified], counts: Counter[str]) -> Outcome:
        config = self._config
        dropped: list[Dropped] = []
        langs: list[str] = documents["lang"].to_pylist()
        columns = zip(langs, documents["lang_score"].to_pylist(), documents["domain"].to_pylist(), strict=True)
        for row, (lang, score, domain) in enumerate(columns):
            least = config.minimum_scores.get(lang, config.minimum_score)
            several = found[row].languages(config) if row in found else [lang]
            if domain != CODE and not self._is_wanted(lang, several):
                dropped.append(Dropped(row, "language.other", lang if score is None else f"{lang} {score:.2f}"))
            elif score is not None and score < least and len(several) == 1:
                dropped.append(Dropped(row, "language.low_score", f"{lang} {score:.2f}, threshold {least:g}"))
        return outcome(documents, dropped, counts=counts, langs=langs)

    def _is_wanted(self, lang: str, several: Sequence[str]) -> bool:
        keep = self._config.keep
        if not keep or lang in keep:
            return True
        if self._config.mixed == "split":
            return any(one in keep for one in several)
        return lang == MULTILINGUAL and all(one in keep for one in several)

    def _split(
        self, documents: pa.Table, found: Mapping[int, Identified], whole_ones: Outcome, counts: Counter[str]
    ) -> Outcome:
        """One document a language of each mixed document that was kept; languages that are not kept are cut."""
        gone = set(whole_ones.dropped_at.tolist())
        tables: list[pa.Table] = []
        start = 0
        for row, one in found.items():
            several = one.languages(self._config)
            if row in gone or len(several) < 2:
                continue
            pieces = [(lang, text) for lang, text in self._pieces(one, several, counts) if text]
            counts[SPLIT] += len(pieces) - 1
            tables.append(_without(documents, start, row, gone))
            tables.append(_piece_rows(documents.slice(row, 1), pieces, one))
            start = row + 1
        tables.append(_without(documents, start, documents.num_rows, gone))
        kept = pa.concat_tables(tables).combine_chunks()
        return Outcome(
            kept, whole_ones.dropped_at, whole_ones.reasons, whole_ones.details, dict(counts),
            dropped_langs=whole_ones.dropped_langs,
        )  # fmt: skip

    def _pieces(self, one: Identified, several: Sequence[str], counts: Counter[str]) -> list[tuple[str, str]]:
        main = several[0]
        # What has too little to stand alone stays with the main language.
        found = [part if part.lang in several else Found(main, 0.0, part.letters, "none") for part in one.found]
        pieces: list[tuple[str, str]] = []
        places = list(zip(one.lines[::2], one.lines[1::2], strict=True))
        for lang, text in split_lines(one.composed(), places, found):
            if self._config.keep and lang not in self._config.keep:
                counts["language.characters_cut"] += len(text)
            else:
                pieces.append((lang, text))
        return pieces


def _mean_score(one: Identified) -> float:
    """Mean confidence of the letters in whatever language each paragraph is."""
    total = sum(part.letters for part in one.found)
    return sum(part.letters * part.score for part in one.found) / max(1, total)


def _with_languages(extra: str | None, several: Sequence[str]) -> str:
    values: dict[str, Any] = orjson.loads(extra) if extra else {}
    return orjson.dumps({**values, "languages": list(several)}, option=orjson.OPT_SORT_KEYS).decode()


def _without(documents: pa.Table, start: int, end: int, gone: set[int]) -> pa.Table:
    """Rows [start, end) that are not in `gone`."""
    return documents.take(pa.array([row for row in range(start, end) if row not in gone], pa.int64()))


def _piece_rows(document: pa.Table, pieces: Sequence[tuple[str, str]], one: Identified) -> pa.Table:
    """The rows of one document's languages: own ids, the document as parent."""
    row = document.to_pylist()[0]
    rows: list[dict[str, Any]] = []
    for lang, text in pieces:
        parts = [part for part in one.found if part.lang == lang]
        score = sum(part.letters * part.score for part in parts) / max(1, sum(part.letters for part in parts))
        own = {"id": document_id(row["source"], f"{row['id']}/{lang}"), "parents": [*(row["parents"] or []), row["id"]]}
        rows.append({**row, **own, "text": text, "text_hash": text_hash(text), "lang": lang, "lang_score": score})
    return pa.Table.from_pylist(rows, schema=DOCUMENT_SCHEMA)


def make(config: LanguageConfig, paths: Mapping[str, tuple[str, ...]]) -> Language:
    """Catalog entry; `paths["model"]` is the fastText model, if one is set."""
    files = paths.get("model", ())
    return Language(config, fasttext_file(files[0]) if files else embedded())


__all__ = ["UNDETERMINED", "Language", "LanguageConfig", "embedded", "fasttext_file", "identify", "identify_document"]
