"""The data card of one mix: which sources it holds, under which licences, and what their reviews say.

Contract: a row for every source and synthetic set with planned tokens, most tokens first; a set's row names the
sources it is made from, and its reviews are the strictest of theirs. Pure functions over `stats.json` and the cards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pipeline.core.provenance import SourceCard

COLUMNS = (
    "source", "tokens", "share", "licence", "made_from", "personal_data", "collection", "training", "release", "origin",
)  # fmt: skip
REVIEWS = ("approved", "pending", "refused")  # rising
PERSONAL_DATA = ("none", "masked", "unmasked")
GENERATED = "generated"


def data_card(
    statistics: Mapping[str, Any], cards: Mapping[str, SourceCard], origins: Callable[[Iterable[str]], Sequence[str]]
) -> list[dict[str, Any]]:
    """Rows with `COLUMNS`.

    Args:
        statistics: A segment's `stats.json`.
        cards: By source.
        origins: The sources behind names of sources and synthetic sets; one without a card counts as generated.
    """
    planned = {name: int(row["tokens"]) for name, row in statistics["by_source"].items() if row["tokens"]}
    total = sum(planned.values())
    ordered = sorted(planned.items(), key=lambda item: (-item[1], item[0]))
    return [_row(name, tokens, total, cards, list(origins([name]))) for name, tokens in ordered]


def _row(name: str, tokens: int, total: int, cards: Mapping[str, SourceCard], behind: Sequence[str]) -> dict[str, Any]:
    found = [cards[source] for source in behind if source in cards]
    own = name in cards
    return {
        "source": name,
        "tokens": tokens,
        "share": tokens / total,
        "licence": " AND ".join(sorted({card.license for card in found})) or GENERATED,
        "made_from": [] if own else list(behind),
        "personal_data": _strictest([card.personal_data for card in found], PERSONAL_DATA),
        **{
            point: _strictest([getattr(card, f"review_{point}") for card in found], REVIEWS)
            for point in ("collection", "training", "release")
        },
        "origin": cards[name].origin if own else GENERATED,
    }


def _strictest(values: Sequence[str], rising: Sequence[str]) -> str:
    """The last of `rising` that occurs; of nothing at all, the first."""
    return max(values, key=rising.index, default=rising[0])
