"""Translations of documents: what must not change is masked, what comes back is checked, what fails is dropped.

Contract: a sample is one document in one other language (`layout: translation`), or both one after the other
(`documents`) or paragraph by paragraph (`paragraphs`). Code, mathematics, links, tags and tables come back byte for
byte. A sample that fails is dropped as `translation.CHECK`:

`no_answer` `finish` `brackets`   the answer is missing, cut off, or more than the translation
`placeholders` `structure`        marks lost or doubled; paragraphs, headings, list items in another number
`length` `numbers` `language`     as for parallel documents, language paragraph by paragraph
`untranslated` `leakage` `loop`   left in the source's language word by word; talk about the task; said again and again
`round_trip`                      translated back, too far from the source (chrF; only when asked for)

Synthetic text in a language is kept below a share of the native text in it (`native_floor`). Cost: ours 2 ms a sample.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import Any

from pipeline.core.languages import MULTILINGUAL
from pipeline.core.written import WRITTEN, woven
from synth.cache import Request
from synth.checks import repeated_share
from synth.chrf import chrf
from synth.client import Outcome
from synth.completion import ContentError
from synth.config import TranslationConfig
from synth.endpoint_set import EndpointWork, Made, Refused, Row
from synth.forecast import NOTHING, Bound, completion_tokens, prompt_tokens
from synth.language import facts, leakage_pattern, primary, read_package_yaml
from synth.masking import MARK, MarkError, mask, renumbered, restored
from synth.parallel_checks import Side, check_pair, paragraphs
from synth.passages import JOINT, passages
from synth.prompts import prompt
from synth.selection import other_languages

OPEN, CLOSE = "〘", "〙"
WORDS = re.compile(r"[^\W\d_]+")
MARKED = re.compile(r"⟦\d+⟧|\W+|\d+")
HEADING = re.compile(r"^#{1,6} ", re.M)
ITEM = re.compile(r"^[ \t]*(?:[-*+]|\d+[.)]) ", re.M)
COPIED_GRAM = 4  # words in a row that stand in both texts; names and terms are shorter
LOOP_GRAM = 10


@dataclass(frozen=True)
class Piece:
    """One request's part of a document, masked; parts without words are not asked about."""

    masked: str
    pieces: tuple[str, ...]

    @property
    def has_words(self) -> bool:
        return bool(MARKED.sub("", self.masked))


def pieces_of(text: str, segment_characters: int) -> list[Piece]:
    """The document in masked segments of whole paragraphs."""
    masked, protected = mask(text)
    return [Piece(*renumbered(part, protected)) for part in passages(masked, segment_characters)]


@cache
def language_name(language: str, in_language: str) -> str:
    """What `language` is called in a prompt in `in_language`."""
    return str(read_package_yaml("languages", "names.yaml")[in_language][language])


def translation_request(
    text: str, source: str, target: str, config: TranslationConfig, model: str, **more: Any
) -> Request:
    """A request for one masked segment."""
    template = prompt("translation.passage", target)
    places = {"from": language_name(source, target), "passage": text}
    parameters = {"temperature": config.temperature, "top_p": config.top_p, "max_tokens": config.max_tokens}
    return Request(model, template.messages(**places), parameters, template.identity, prompt_hash=template.hash, **more)


class TranslationMaker:
    """What translation sets ask and how they judge."""

    kind = "translation"

    def targets(self, identity: str, language: str, config: TranslationConfig) -> Sequence[str]:
        """The languages a document is translated into, by a seeded order of its own."""
        others = other_languages("translation", config.seed, identity, language, config.into)
        return others[: config.targets_per_document]

    def length_share(self, source: str, target: str) -> float:
        """Characters of a translation for one of the source."""
        return facts(target).characters_relative_to_english / facts(source).characters_relative_to_english

    def unfit(self, row: Row, config: TranslationConfig) -> Refused | None:
        length = len(row["text"])
        if length > config.maximum_document_characters:
            return Refused("document_too_long", f"{length} characters")
        if not any(piece.has_words for piece in pieces_of(row["text"], config.segment_characters)):
            return Refused("no_prose", "nothing but code, formulas, links and tables")
        return None

    def requests(self, row: Row, config: TranslationConfig, model: str, sample: int) -> list[Request]:
        source, target = primary(row["lang"]), row["target"]
        named = {"sample": sample, "document": f"{row['source']} {row['id']}"}
        found = pieces_of(row["text"], config.segment_characters)
        return [
            translation_request(one.masked, source, target, config, model, **named) for one in found if one.has_words
        ]

    def further(
        self, row: Row, config: TranslationConfig, model: str, requests: Sequence[Request], outcomes: Sequence[Outcome]
    ) -> list[Request]:
        """The way back, where it is asked for."""
        made = translated(row, config, outcomes) if config.minimum_round_trip > 0 else Refused("", "")
        if isinstance(made, Refused):
            return []
        source, target = primary(row["lang"]), row["target"]
        named = {"sample": requests[0].sample, "document": requests[0].document}
        found = pieces_of(made, config.segment_characters)
        return [
            translation_request(one.masked, target, source, config, model, **named) for one in found if one.has_words
        ]

    def further_at_most(self, row: Row, config: TranslationConfig, requests: Sequence[Request]) -> Bound:
        """A translation has the paragraphs of its source, and each may be a request; its words are the answers'."""
        if config.minimum_round_trip == 0:
            return NOTHING
        empty = translation_request("", row["target"], primary(row["lang"]), config, "")
        count = len(paragraphs(row["text"]))
        pieces = pieces_of(row["text"], config.segment_characters)
        kept = [{"content": one.masked} for one in pieces if not one.has_words]
        words = sum(map(completion_tokens, requests)) + prompt_tokens(kept)
        return Bound(count, count * prompt_tokens(empty.messages) + words, count * config.max_tokens)

    def judged(
        self, row: Row, config: TranslationConfig, requests: Sequence[Request], outcomes: Sequence[Outcome]
    ) -> Made | Refused:
        asked = sum(piece.has_words for piece in pieces_of(row["text"], config.segment_characters))
        made = translated(row, config, outcomes[:asked])
        if isinstance(made, Refused):
            return made
        failure = _failure(row, made, config) or _round_trip(row, made, config, outcomes[asked:])
        if failure is not None:
            return Refused(failure.check, f"{primary(row['lang'])}-{row['target']}: {failure.detail}", made)
        return _sample(row, made, config)


def translated(row: Row, config: TranslationConfig, outcomes: Sequence[Outcome]) -> str | Refused:
    """The translation put together, or what is wrong with the answers themselves."""
    return _assembled(pieces_of(row["text"], config.segment_characters), outcomes)


def _assembled(pieces: Sequence[Piece], outcomes: Sequence[Outcome]) -> str | Refused:
    answers = iter(outcomes)
    parts: list[str] = []
    for piece in pieces:
        part = _part(piece, next(answers)) if piece.has_words else restored(piece.masked, piece.pieces)
        if isinstance(part, Refused):
            return part
        parts.append(part)
    return JOINT.join(parts)


def _part(piece: Piece, outcome: Outcome) -> str | Refused:
    if isinstance(outcome, ContentError):
        return Refused("no_answer", str(outcome))
    if outcome.finish_reason != "stop":
        return Refused("finish", f"finish_reason `{outcome.finish_reason}`", outcome.content)
    answer = outcome.content.strip()
    inner = answer.removeprefix(OPEN).removesuffix(CLOSE)
    if len(answer) - len(inner) != 2 or OPEN in inner or CLOSE in inner:
        return Refused("brackets", f"not in {OPEN} {CLOSE}: {answer[:40]} … {answer[-40:]}", answer)
    inner = inner.strip("\n ")
    for pattern, what in ((HEADING, "headings"), (ITEM, "list items")):
        given, wanted = len(pattern.findall(inner)), len(pattern.findall(piece.masked))
        if given != wanted:
            return Refused("structure", f"{given} {what}, the source has {wanted}", answer)
    if len(paragraphs(inner)) != len(paragraphs(piece.masked)):
        return Refused("structure", f"{len(paragraphs(inner))} paragraphs for {len(paragraphs(piece.masked))}", answer)
    try:
        return restored(inner, piece.pieces)
    except MarkError as error:
        return Refused("placeholders", str(error), answer)


def _failure(row: Row, made: str, config: TranslationConfig) -> Refused | None:
    """The first check of the whole translation that fails."""
    source, target = Side(row["text"], primary(row["lang"])), Side(made, row["target"])
    prose = [MARK.sub("□", mask(side.text)[0]) for side in (source, target)]
    for language in dict.fromkeys((target.language, "en")):
        for match in leakage_pattern(language).finditer(prose[1]):
            if match.group().lower() not in source.text.lower():
                return Refused("leakage", match.group())
    units = [WORDS.findall(text.lower()) for text in prose]
    copied = copied_share(units[1], units[0])
    if copied > config.maximum_copied_share:
        return Refused("untranslated", f"{copied:.2f} of the translation stands in the source word by word")
    looped = repeated_share(units[1], LOOP_GRAM) - repeated_share(units[0], LOOP_GRAM)
    if looped > config.maximum_repeated_share:
        return Refused("loop", f"{looped:.2f} more of the translation is said again than of the source")
    # What was masked is the same on both sides, in the source's notation of numbers: the prose alone is compared.
    sides = [Side(text, side.language) for text, side in zip(prose, (source, target), strict=True)]
    failure = check_pair(sides[0], sides[1], config.length_band)
    return Refused(failure.check, failure.detail) if failure is not None else None


def copied_share(units: list[str], source: list[str]) -> float:
    """Share of the n-grams of words that stand in the source."""
    known = {tuple(source[i : i + COPIED_GRAM]) for i in range(len(source) - COPIED_GRAM + 1)}
    grams = Counter(tuple(units[i : i + COPIED_GRAM]) for i in range(len(units) - COPIED_GRAM + 1))
    return sum(count for gram, count in grams.items() if gram in known) / max(1, grams.total())


def _round_trip(row: Row, made: str, config: TranslationConfig, outcomes: Sequence[Outcome]) -> Refused | None:
    if config.minimum_round_trip == 0:
        return None
    back = _assembled(pieces_of(made, config.segment_characters), outcomes)
    if isinstance(back, Refused):
        return Refused("round_trip", f"the way back: {back.check}, {back.detail}")
    likeness = chrf(back, row["text"])
    too_far = likeness < config.minimum_round_trip
    return Refused("round_trip", f"chrF {likeness:.2f} of the way back") if too_far else None


def _sample(row: Row, made: str, config: TranslationConfig) -> Made:
    languages = [primary(row["lang"]), row["target"]]
    extra = {"layout": config.layout, "languages": languages}
    if config.layout == "translation":
        columns = {"lang": row["target"], "lang_score": None, "parallel_id": row["parallel_id"] or row["id"]}
        return Made(made, columns, extra)
    if config.layout == "documents":
        parts = [(row["text"], False), (made, True)]
    else:
        sides = [[(part, ours) for part in paragraphs(text)] for text, ours in ((row["text"], False), (made, True))]
        parts = list(chain.from_iterable(zip(*sides, strict=True)))
    text, written = woven(parts, JOINT)
    return Made(text, {"lang": MULTILINGUAL, "lang_score": None}, {**extra, WRITTEN: written})


WORK = EndpointWork(TranslationMaker())
