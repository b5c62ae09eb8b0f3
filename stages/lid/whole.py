"""From paragraphs to a document: its language, its score, and what it is mixed of.

Contract: a document's language is the one with most letters; its score is the letters' mean confidence in it.
A paragraph that is not settled on its own (short, technical, a relative's word in it) goes with the language that
settled paragraphs of the same document speak for. Pure functions of the paragraphs' findings.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from stages.lid.masking import mask
from stages.lid.models import UNDETERMINED
from stages.lid.second_look import Found

PARAGRAPH_LETTERS = 60  # characters; shorter ones are judged with their neighbours; ours
SETTLING_SHARE = 0.2  # settled letters for each unsettled one that vouch for it; ours
UNSETTLED_SCORE = 0.5  # answers below it are settled by the document, if short
SHORT_LETTERS = 200


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Lines [first, end) of a masked text, stripped and joined."""

    text: str
    first: int
    end: int


@dataclass(frozen=True)
class Whole:
    """A document: its language, score, and the letters of each language in it, most first."""

    lang: str
    score: float
    letters: tuple[tuple[str, int], ...]

    def shares(self) -> dict[str, float]:
        """Share of the letters whose language is known, by language."""
        total = sum(count for _, count in self.letters)
        return {lang: count / total for lang, count in self.letters}


def paragraphs(text: str) -> list[Paragraph]:
    """The paragraphs of a whole text."""
    return list(read_paragraphs([mask(text)]))


def read_paragraphs(masked: Iterable[str]) -> Iterator[Paragraph]:
    """Lines of prose; short ones are joined with what follows until there are `PARAGRAPH_LETTERS` characters.

    `masked` are the pieces of one masked text, each but the last ending behind a line feed.
    """
    held: list[str] = []
    before: Paragraph | None = None  # not given yet: what is left at the end goes with it
    size = first = number = base = 0
    for piece in masked:
        for number, line in enumerate(piece.split("\n"), base):
            stripped = line.strip()
            if not stripped:
                continue
            if not held:
                first = number
            held.append(stripped)
            size += len(stripped) + 1
            if size > PARAGRAPH_LETTERS:
                if before is not None:
                    yield before
                before = Paragraph(" ".join(held), first, number + 1)
                held, size = [], 0
        base = number  # the line that the piece's last line feed opens
    if held and before is not None:
        yield Paragraph(" ".join((before.text, *held)), before.first, number + 1)
    elif held:
        yield Paragraph(" ".join(held), first, number + 1)
    elif before is not None:
        yield before


def settle(found: Sequence[Found]) -> list[Found]:
    """The findings with unsettled paragraphs given to the language that the rest of the document vouches for."""
    sure: Counter[str] = Counter()
    unsettled: Counter[str] = Counter()
    for one in found:
        if one.how in ("weak", "relative"):
            unsettled[one.guess] += one.letters
        elif _is_settled(one):
            sure[one.lang] += one.letters
    main = most(sure)
    return [_settled(one, sure, unsettled, main) for one in found]


def _is_settled(one: Found) -> bool:
    return one.lang != UNDETERMINED and (one.score >= UNSETTLED_SCORE or one.letters >= SHORT_LETTERS)


def _settled(one: Found, sure: Counter[str], unsettled: Counter[str], main: str) -> Found:
    if one.how in ("weak", "relative"):
        if sure[one.guess] and sure[one.guess] >= SETTLING_SHARE * unsettled[one.guess]:
            return replace(one, lang=one.guess, score=one.guess_score)
    elif one.letters and not _is_settled(one) and sure[main] * 2 > sure.total():
        return replace(one, lang=main, score=0.5)
    return one


def whole(found: Iterable[Found]) -> Whole:
    """The document that settled paragraphs make; `und` and 0 when no language is known."""
    letters: Counter[str] = Counter()
    confidence: dict[str, float] = {}
    total = 0
    for one in found:
        total += one.letters
        if one.lang != UNDETERMINED:
            letters[one.lang] += one.letters
            confidence[one.lang] = confidence.get(one.lang, 0.0) + one.letters * one.score
    best = most(letters)
    if not best:
        return Whole(UNDETERMINED, 0.0, ())
    ordered = tuple(sorted(letters.items(), key=lambda item: (-item[1], item[0])))
    return Whole(best, confidence[best] / total, ordered)


def most(counts: Counter[str]) -> str:
    """The name with the largest count, the first in order of name among equals; an empty string for none."""
    return min(counts, key=lambda name: (-counts[name], name), default="")


def split_lines(text: str, places: Sequence[tuple[int, int]], found: Sequence[Found]) -> list[tuple[str, str]]:
    """(language, text) for each language of a document, in order of appearance.

    `places` are the lines [first, end) of each paragraph.

    Every line goes to its paragraph's language; lines of no paragraph or no language (blank, code, formulas) go with
    the paragraph before them, those at the head with the first one. No line is lost.
    """
    lines = text.split("\n")
    langs = [UNDETERMINED] * len(lines)
    for (first, end), one in zip(places, found, strict=True):
        langs[first:end] = [one.lang] * (end - first)
    current = next((lang for lang in langs if lang != UNDETERMINED), UNDETERMINED)
    held: dict[str, list[str]] = {}
    for line, lang in zip(lines, langs, strict=True):
        current = current if lang == UNDETERMINED else lang
        held.setdefault(current, []).append(line)
    return [(lang, "\n".join(own).strip("\n")) for lang, own in held.items()]
