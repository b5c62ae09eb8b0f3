"""The licence of a text made from several: an SPDX expression that holds for all of it."""

from __future__ import annotations

from collections.abc import Iterable


def joined_licence(licences: Iterable[str | None]) -> str | None:
    """The distinct licences joined with `AND`, a choice (`OR`, which binds weaker) in parentheses; unknown when one is.

    Terms that several of them name stand once.
    """
    terms: set[str] = set()
    for licence in licences:
        if not licence:
            return None
        terms.update(_terms(licence))
    found = sorted(terms)
    return found[0] if len(found) == 1 else " AND ".join(f"({one})" if " OR " in one else one for one in found) or None


def _terms(licence: str) -> list[str]:
    """The parts of an expression that stand between `AND`s outside parentheses; the whole where an `OR` does."""
    depth, words, parts = 0, list[str](), list[str]()
    for word in licence.split():
        if depth == 0 and word == "OR":
            return [licence]
        if depth == 0 and word == "AND":
            parts.append(" ".join(words))
            words = []
            continue
        depth += word.count("(") - word.count(")")
        words.append(word)
    parts.append(" ".join(words))
    return [_bare(part) for part in parts]


def _bare(part: str) -> str:
    """Without parentheses around all of it."""
    inner = part[1:-1]
    whole = part.startswith("(") and part.endswith(")") and "(" not in inner and ")" not in inner
    return inner if whole else part
