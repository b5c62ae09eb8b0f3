"""Precision and recall of the personal-data rules on labelled text: what they are worth there.

Contract: a labelled text has `text` and `spans`, each with `start`, `end` (characters) and `kind`; `lang` may be there.
A find is right when it overlaps a label of its kind, a label is hit when a find of its kind overlaps it. Labels of
kinds that the rules do not know (`person`, `address`, …) are not counted; what is found inside one of them is neither
right nor wrong: somebody labelled it as personal too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.core.config import Config
from stages.pii import FindNames, Span, find
from stages.pii_rules import KINDS


class LabelledSpan(Config):
    """A piece of personal data in a text."""

    start: int
    end: int
    kind: str


class Labelled(Config):
    """A labelled text."""

    text: str
    spans: tuple[LabelledSpan, ...] = ()
    lang: str | None = None


@dataclass(frozen=True)
class Accuracy:
    """One kind in one language. `missed` and `false`: the first of each, as they stand in the text."""

    lang: str
    kind: str
    labelled: int
    hit: int
    found: int
    right: int
    missed: tuple[str, ...]
    false: tuple[str, ...]

    @property
    def precision(self) -> float | None:
        """None where nothing was found."""
        return self.right / self.found if self.found else None

    @property
    def recall(self) -> float | None:
        """None where nothing is labelled."""
        return self.hit / self.labelled if self.labelled else None


EXAMPLES = 5  # missed and false ones kept of each kind


def accuracy(texts: Iterable[Labelled], names: FindNames | None = None) -> list[Accuracy]:
    """By language and kind, those that were labelled or found."""
    counts: Counter[tuple[str, str, str]] = Counter()
    examples: dict[tuple[str, str, str], list[str]] = {}

    def count(lang: str, kind: str, what: str, text: str = "") -> None:
        counts[lang, kind, what] += 1
        own = examples.setdefault((lang, kind, what), [])
        if text and len(own) < EXAMPLES:
            own.append(text)

    for one in texts:
        lang = one.lang or "und"
        found = find(one.text, names=names(one.text, one.lang) if names is not None else ())
        for label in one.spans:
            if label.kind not in KINDS:
                continue
            count(lang, label.kind, "labelled")
            if any(_meet(label, span) and span[2] == label.kind for span in found):
                count(lang, label.kind, "hit")
            else:
                count(lang, label.kind, "missed", one.text[label.start : label.end])
        for span in found:
            meeting = [label.kind for label in one.spans if _meet(label, span)]
            if span[2] in meeting:
                count(lang, span[2], "right")
            elif not any(kind not in KINDS for kind in meeting):
                count(lang, span[2], "false", one.text[span[0] : span[1]])
    return [_row(lang, kind, counts, examples) for lang, kind in sorted({key[:2] for key in counts})]


def _meet(label: LabelledSpan, span: Span) -> bool:
    return span[0] < label.end and span[1] > label.start


def _row(lang: str, kind: str, counts: Mapping[Any, int], examples: Mapping[Any, list[str]]) -> Accuracy:
    labelled, hit, right, false = (counts.get((lang, kind, what), 0) for what in ("labelled", "hit", "right", "false"))
    missed, wrong = (tuple(examples.get((lang, kind, what), ())) for what in ("missed", "false"))
    return Accuracy(lang, kind, labelled, hit, right + false, right, missed, wrong)
