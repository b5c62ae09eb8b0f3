"""Toxicity: word lists and a classifier, as scores; thresholds a language.

Contract: signals for every document, null in a language without a list: `toxic_profanity@1`, `toxic_slur@1`,
`toxic_sexual@1`, `toxic_violence@1` (listed words a thousand words), `toxic_hate@1` (share of sentences with a slur,
or with a group of people and a derogatory or violent word, neither negated nor quoted), `toxic_words@1` (a score in
[0, 1] of all of these) and, with a classifier (`seodang classifier train`, `positive` = toxic), `toxic_classifier@1`.
Drops by language, if a threshold is set: `toxicity.words`, `toxicity.classifier`. Words spelt apart (`w o r d`) or
with digits (`w0rd`) are read as meant. Word lists say what a text mentions, not what it means: counter-speech and
news may score too. Measured on Multilingual HateCheck (Röttger et al. 2022), see `tests/stages/test_toxicity.py`: area
under the curve 0.62 (German) and 0.55 (Spanish) for lists, 0.94 and 0.88 for a classifier trained on other groups.
Cost: 2-5 MB/s a core. Memory: a few megabytes a text.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
import regex
from pydantic import Field

from pipeline.core.config import Config, load_config
from pipeline.core.errors import ConfigError, InputError
from stages.block import Dropped, Outcome, outcome
from stages.classifier.model import Classifier
from stages.classifier.spec import POSITIVE
from stages.classifier.train import LINE_CHARACTERS
from stages.long_texts import beginnings, decoded, pieces, views

LISTS = Path(__file__).with_name("toxicity_words")
UNSPACED = ("ko", "ja")  # matched inside words
VERSION = 1
KINDS = ("profanity", "slur", "sexual", "violence")
COLUMNS = (*(f"toxic_{kind}" for kind in KINDS), "toxic_hate", "toxic_words")
CLASSIFIER_COLUMN = "toxic_classifier"
PHRASE_BYTES = 1024  # more than any listed phrase has
UNSPACED_WORD_CHARACTERS = 2.5  # characters that count as a word where words are not parted; ours
# How much one listed word a hundred words, or all sentences hateful, weigh in the score (ours).
_WEIGHTS = {"profanity": 0.3, "slur": 1.0, "sexual": 0.3, "violence": 0.7}
_HATE_WEIGHT = 3.0
_SENTENCE = regex.compile(r"[.!?。！？…\n]+")
_WORD = re.compile(r"\w+")
_APART = re.compile(r"(?<!\w)(?:\w[ ._*-]){3,}\w(?!\w)")
_LEET_WORD = re.compile(r"[^\W\d_]+[0134578@$][\w@$]+|[^\W\d_]{3,}[0134578@$]")
_QUOTED = regex.compile(r"[\"“„«‘「『][^\"“”„«»’「」『』\n]{3,}[\"”“»’」』]")
_LEET = str.maketrans("0134578@$", "oieastbas")


class WordList(Config):
    """A list file: words and phrases by kind; a `*` at the end matches any ending."""

    profanity: tuple[str, ...] = ()
    slur: tuple[str, ...] = ()
    sexual: tuple[str, ...] = ()
    violence: tuple[str, ...] = ()
    group: tuple[str, ...] = ()
    derogatory: tuple[str, ...] = ()
    negation: tuple[str, ...] = ()


class ToxicityConfig(Config):
    """Options of the `toxicity` block."""

    word_lists: tuple[str, ...] = ()  # further files `LANG.yaml` or `LANG.NAME.yaml`, added to ours
    model: tuple[str, ...] = ()  # a classifier's files, as in the `classifier` block
    maximum_words: dict[str, float] = Field(default_factory=dict)  # by language or `default`, of `toxic_words`
    maximum_classifier: dict[str, float] = Field(default_factory=dict)  # the same, of `toxic_classifier`


@dataclass(frozen=True)
class Lists:
    """The compiled lists of one language; a kind without words is None."""

    kinds: Mapping[str, regex.Pattern[str] | None]
    starts: Mapping[str, tuple[str, ...]]  # beginnings of each kind's first words; empty where words are not parted
    unspaced: bool

    def possible(self, own: Collection[str]) -> dict[str, regex.Pattern[str] | None]:
        """The patterns that can match a text of these words, where words are parted."""
        return {
            kind: pattern if any(word.startswith(self.starts[kind]) for word in own) else None
            for kind, pattern in self.kinds.items()
        }

    def parts_at(self, text: memoryview, place: int) -> bool:
        """Whether no listed phrase goes over the line feed that ends before `place` of a text in UTF-8."""
        before, behind = (
            plain(bytes(text[start:end]).decode(errors="ignore"))
            for start, end in ((max(0, place - PHRASE_BYTES), place), (place, place + PHRASE_BYTES))
        )
        return not any(
            match.start() < len(before) < match.end()
            for pattern in self.kinds.values()
            if pattern is not None
            for match in pattern.finditer(before + behind, overlapped=True)
        )


def compiled(lists: Sequence[WordList], lang: str) -> Lists:
    """The patterns of all kinds of a language's lists together."""
    kinds: dict[str, regex.Pattern[str] | None] = {}
    starts: dict[str, tuple[str, ...]] = {}
    unspaced = lang in UNSPACED
    for kind in WordList.model_fields:
        words = sorted({word for one in lists for word in getattr(one, kind)}, key=lambda word: (-len(word), word))
        kinds[kind] = _pattern(words, unspaced=unspaced) if words else None
        starts[kind] = tuple(sorted({_WORD.findall(_folded(word))[0] for word in words}))
    return Lists(kinds, starts, unspaced)


def _pattern(words: Sequence[str], *, unspaced: bool) -> regex.Pattern[str]:
    escaped = [regex.escape(_folded(word.removesuffix("*"))) + (r"\w*" if word.endswith("*") else "") for word in words]
    inner = "|".join(word.replace(r"\ ", r"\s+") for word in escaped)
    return regex.compile(inner if unspaced else rf"(?<!\w)(?:{inner})(?!\w)")


def plain(text: str) -> str:
    """Lower case, NFC, words spelt apart joined, digits that stand for letters read as these."""
    text = _folded(text)
    text = _APART.sub(lambda match: re.sub(r"[ ._*-]", "", match.group()), text)
    return _LEET_WORD.sub(lambda match: match.group().translate(_LEET), text)


def _folded(text: str) -> str:
    return unicodedata.normalize("NFC", text).lower()


def scores(text: str | memoryview, lists: Lists) -> dict[str, float]:
    """Every word signal of one text, a string or UTF-8; a long one is read in pieces, with the same result."""
    utf8 = memoryview(text.encode("utf-8", errors="replace")) if isinstance(text, str) else text
    counted = _Counted(lists)
    for piece in _plain_pieces(utf8, lists):
        kinds = counted.count_words(piece)
        counted.count_sentences(_QUOTED.sub(" ", piece), kinds)
    if not counted.unquoted:  # nothing is left without what is quoted
        counted.sentences = counted.hateful = 0
        for piece in _plain_pieces(utf8, lists):
            counted.count_sentences(piece, lists.kinds)
    return counted.scores()


def _plain_pieces(text: memoryview, lists: Lists) -> Iterator[str]:
    for start, end in pieces(text, lists.parts_at):
        yield plain(decoded(text[start:end]))


class _Counted:
    """Counts of a text's pieces, summed."""

    def __init__(self, lists: Lists) -> None:
        self._lists = lists
        self._kinds: Counter[str] = Counter()
        self._words = self._letters = 0
        self.sentences = self.hateful = 0
        self.unquoted = False  # whether there is a word in the sentences

    def count_words(self, read: str) -> Mapping[str, regex.Pattern[str] | None]:
        """Count listed words and all; gives the patterns that can match at all."""
        if self._lists.unspaced:
            kinds = self._lists.kinds
            self._letters += sum(map(str.isalpha, read))
        else:
            words = Counter(match.group() for match in _WORD.finditer(read))  # fewer than a list of them
            kinds = self._lists.possible(words)
            self._words += words.total()
        self._kinds.update({kind: _count(kinds[kind], read) for kind in KINDS})
        return kinds

    def count_sentences(self, read: str, kinds: Mapping[str, regex.Pattern[str] | None]) -> None:
        """Count sentences, and those that are hateful by their words."""
        self.unquoted = self.unquoted or _WORD.search(read) is not None
        against = kinds["group"] is not None and (kinds["derogatory"] is not None or kinds["violence"] is not None)
        possible = kinds["slur"] is not None or against
        for part in _SENTENCE.splititer(read):
            if part.strip():
                self.sentences += 1
                self.hateful += possible and _is_hateful(part, kinds)

    def scores(self) -> dict[str, float]:
        """The signals of what was counted."""
        size = self._letters / UNSPACED_WORD_CHARACTERS if self._lists.unspaced else self._words
        found = {f"toxic_{kind}": 1000 * self._kinds[kind] / max(1.0, size) for kind in KINDS}
        found["toxic_hate"] = self.hateful / max(1, self.sentences)
        total = sum(_WEIGHTS[kind] * found[f"toxic_{kind}"] / 10 for kind in KINDS)
        found["toxic_words"] = 1 - math.exp(-(total + _HATE_WEIGHT * found["toxic_hate"]))
        return found


def _is_hateful(sentence: str, kinds: Mapping[str, regex.Pattern[str] | None]) -> bool:
    if _count(kinds["slur"], sentence):
        return True
    if not _count(kinds["group"], sentence) or _count(kinds["negation"], sentence):
        return False
    return bool(_count(kinds["derogatory"], sentence) or _count(kinds["violence"], sentence))


def _count(pattern: regex.Pattern[str] | None, text: str) -> int:
    return 0 if pattern is None else sum(1 for _ in pattern.finditer(text))


class Toxicity:
    """The block."""

    def __init__(
        self, config: ToxicityConfig, lists: Mapping[str, Lists], classifier: Classifier | None = None
    ) -> None:
        if config.maximum_classifier and classifier is None:
            raise ConfigError(
                "there is no classifier to compare with", where="toxicity.maximum_classifier", fix="set `model`"
            )
        if classifier is not None and POSITIVE not in classifier.spec.labels:
            raise ConfigError(
                f"`{classifier.spec.name}` has no `{POSITIVE}` label",
                where="toxicity.model",
                fix="train one with the labels `positive` (toxic) and `negative`",
            )
        self._config = config
        self._lists = lists
        self._classifier = classifier

    def apply(self, documents: pa.Table) -> Outcome:
        texts = views(documents["text"])
        langs: list[str | None] = documents["lang"].to_pylist()
        rows = [
            scores(text, self._lists[lang]) if lang is not None and lang in self._lists else {}
            for text, lang in zip(texts, langs, strict=True)
        ]
        columns: dict[str, list[float | None]] = {name: [row.get(name) for row in rows] for name in COLUMNS}
        if self._classifier is not None:
            chances = self._classifier.chances(beginnings(documents["text"], LINE_CHARACTERS), langs)[POSITIVE].tolist()
            columns[CLASSIFIER_COLUMN] = [None if math.isnan(chance) else chance for chance in chances]
        dropped = [drop for row, lang in enumerate(langs) if (drop := self._verdict(row, lang or "", columns))]
        stored = {f"{name}@{VERSION}": pa.array(values, pa.float64()) for name, values in columns.items()}
        return outcome(documents, dropped, signals=pa.table({"id": documents["id"], **stored}))

    def _verdict(self, row: int, lang: str, columns: Mapping[str, Sequence[float | None]]) -> Dropped | None:
        for rule, column, limits in (
            ("words", "toxic_words", self._config.maximum_words),
            ("classifier", CLASSIFIER_COLUMN, self._config.maximum_classifier),
        ):
            limit = limits.get(lang, limits.get("default"))
            value = columns[column][row] if limit is not None else None
            if limit is not None and value is not None and value > limit:
                return Dropped(row, f"toxicity.{rule}", f"{value:.3f}, threshold {limit:g}")
        return None


@lru_cache(maxsize=4)
def load_lists(files: tuple[str, ...] = ()) -> dict[str, Lists]:
    """Our lists with the user's files added, by language.

    Raises:
        InputError: A file's name does not begin with a language.
    """
    found: dict[str, list[WordList]] = {}
    for path in [*sorted(LISTS.glob("*.yaml")), *map(Path, files)]:
        lang = path.name.split(".")[0]
        if path.suffix not in (".yaml", ".yml") or not regex.fullmatch(r"[a-z]{2,3}(-[A-Za-z0-9]+)*", lang):
            raise InputError("a word list is named after its language", where=str(path), fix="call it `ko.NAME.yaml`")
        found.setdefault(lang, []).append(load_config(path, WordList))
    return {lang: compiled(lists, lang) for lang, lists in sorted(found.items())}


def make(config: ToxicityConfig, paths: Mapping[str, tuple[str, ...]]) -> Toxicity:
    """Catalog entry; `paths` has the user's lists and the classifier's files, if any."""
    files = paths.get("model", ())
    classifier = Classifier.load_files([Path(file) for file in files]) if files else None
    return Toxicity(config, load_lists(tuple(paths.get("word_lists", ()))), classifier)
