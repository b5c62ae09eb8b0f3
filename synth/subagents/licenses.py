"""The licence of what is made from several pages: all their conditions hold."""

from __future__ import annotations

from collections.abc import Iterable

AND, OR = " AND ", " OR "


def combined_license(licenses: Iterable[str | None]) -> str | None:
    """SPDX `AND` of all different ones, sorted, choices in brackets; unknown when one is unknown."""
    found: set[str] = set()
    for one in licenses:
        if not one:
            return None
        parts = _split(one, AND)
        found |= {one} if len(_split(one, OR)) > 1 else {_bare(part) for part in parts}
    return AND.join(sorted(f"({part})" if OR in part and len(found) > 1 else part for part in found)) or None


def _split(expression: str, word: str) -> list[str]:
    """The parts that `word` joins outside of brackets."""
    parts, depth = [""], 0
    for piece in expression.split(word):
        parts[-1] += piece if not parts[-1] or depth == 0 else f"{word}{piece}"
        depth += piece.count("(") - piece.count(")")
        if depth == 0:
            parts.append("")
    return [part for part in parts if part]


def _bare(part: str) -> str:
    return part[1:-1] if part.startswith("(") and part.endswith(")") else part
