"""Whose superwords a vocabulary holds: classes of languages, and shares of a whole number met exactly.

The K-EXAONE report gives 20 % of the vocabulary to superwords, English : Korean : multilingual = 2 : 3 : 1 (section
2.2). Here English has source code in it, and multilingual is every other language. Japanese is written without spaces,
so that its phrases are few: its frequent strings become ordinary tokens in stage 1, and the multilingual share goes to
the other languages by their counts. What each language got is told in the step's facts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from stages.tokenizer.counts import CODE
from stages.tokenizer.phrases import ENGLISH, KOREAN

MULTILINGUAL = "multilingual"
CLASSES: tuple[str, ...] = (ENGLISH, KOREAN, MULTILINGUAL)


def class_of(column: str) -> str:
    """The class of a language, as `stages.tokenizer.phrases` names them."""
    return ENGLISH if column in (ENGLISH, CODE) else KOREAN if column == KOREAN else MULTILINGUAL


def parts(total: int, ratios: Sequence[int]) -> list[int]:
    """`total` in parts of these ratios, by largest remainder; of equal remainders the first is rounded up."""
    whole = sum(ratios)
    found = [total * ratio // whole for ratio in ratios]
    by_remainder = sorted(range(len(ratios)), key=lambda place: (-(total * ratios[place] % whole), place))
    for place in by_remainder[: total - sum(found)]:
        found[place] += 1
    return found


def quotas(superwords: int, ratios: Mapping[str, int]) -> dict[str, int]:
    """How many superwords each class gets."""
    return dict(zip(CLASSES, parts(superwords, [ratios.get(name, 0) for name in CLASSES]), strict=True))


def refilled(wanted: Mapping[str, int], reached: Mapping[str, int]) -> dict[str, int] | None:
    """Quotas with what some classes could not fill given to the full ones, by their quotas; None when none is full."""
    short = {name: reached[name] < wanted[name] for name in wanted}
    full = [name for name in wanted if not short[name] and wanted[name] > 0]
    if not full:
        return None
    missing = sum(wanted.values()) - sum(reached.values())
    more = dict(zip(full, parts(missing, [wanted[name] for name in full]), strict=True))
    return {name: reached[name] + more.get(name, 0) for name in wanted}
