"""Which sources stand behind what is trained or released, and whether their reviews allow it.

Contract: a synthetic set stands for the sources it is made from. Training asks for approved reviews of collection and
of training of every source that a mix or a set names, release for an approved release review of every source whose
tokens a model was trained on. Only the card decides: there is no option that lifts a refusal.
Source: the three review points of the K-EXAONE report's AI compliance process (arXiv 2601.01739).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from pipeline.core.errors import ConfigError, InputError
from pipeline.core.provenance import SourceCard

TRAINING_POINTS = ("collection", "training")
RELEASE_POINTS = ("release",)


def origins(names: Iterable[str], sources: Iterable[str], sets: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """The sources behind `names`, sorted.

    Args:
        names: Sources and synthetic sets; others stand for nothing.
        sources: Every source.
        sets: Synthetic set -> patterns over the sources it is made from.
    """
    known, found = set(sources), set[str]()
    for name in names:
        found |= {name} & known
        found |= {source for source in known for pattern in sets.get(name, ()) if fnmatchcase(source, pattern)}
    return tuple(sorted(found))


def refusals(names: Iterable[str], cards: Mapping[str, SourceCard], points: Sequence[str]) -> list[tuple[str, str]]:
    """(source, `review_POINT is REVIEW`) of every review that is not approved."""
    reviews = ((name, f"review_{point}") for name in names for point in points)
    found = ((name, field, getattr(cards[name], field)) for name, field in reviews)
    return [(name, f"{field} is {review}") for name, field, review in found if review != "approved"]


def check_training(
    user: str, names: Iterable[str], cards: Mapping[str, SourceCard], card_files: Mapping[str, str], where: str
) -> None:
    """Raises `ConfigError` when `user` (a component, a synthetic set) names a source that may not be trained on."""
    for name, review in refusals(names, cards, TRAINING_POINTS):
        fix = f"take `{name}` out of `from`, or have the review approve it in {card_files[name]}"
        raise ConfigError(f"{user} takes source `{name}`, whose {review}", where=where, fix=fix)


def check_release(
    phase: str, names: Iterable[str], cards: Mapping[str, SourceCard], card_files: Mapping[str, str]
) -> None:
    """Raises `InputError` when a model was trained on a source that is not approved for release; names all of them."""
    found = refusals(names, cards, RELEASE_POINTS)
    if found:
        listed = "; ".join(f"`{name}`: {review} ({card_files[name]})" for name, review in found)
        raise InputError(
            f"the model of phase `{phase}` may not be released: {listed}",
            where="source cards",
            fix="a review must approve the release in the card itself, or the model be trained without the source",
        )
