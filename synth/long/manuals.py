"""Manuals: the pages of one in the order of its table of contents.

Contract: numbered pages (`order`, `weight`, … of every page) come by number. Else, where a page (`index`, `SUMMARY`,
`README`, or one titled as contents) names at least half of the other pages, by link or by a line with their title,
its order counts, and a page it leaves out follows the page before it in path order. Else pages come by path, numbers in
it as numbers, each folder's index first and its files before its subfolders.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence

from synth.long.groups import Part
from synth.long.naming import natural

INDEX = re.compile(r"^_?(?:index|readme|summary|toc|contents|home|introduction|intro)(?:\.|$)", re.I)
CONTENTS = re.compile(
    r"^(?:table of contents|contents|summary|inhalt(?:sverzeichnis)?|[ií]ndice|contenidos?|m[uụ]c l[uụ]c|목차|차례"
    r"|目次)$",
    re.I,
)
LINK = re.compile(r"\]\(<?([^)\s>#]+)|href=[\"']([^\"'#]+)|^\s*[-*\d.]*\s*:doc:`([^`]+)`", re.M)
NAMED_SHARE = 2  # a table of contents names at least one in so many of the other pages; ours


def arranged(parts: Sequence[Part], texts: Mapping[str, str]) -> list[Part]:
    """The pages in reading order."""
    by_path = sorted(parts, key=path_key)
    if all(part.number is not None for part in parts):
        return sorted(by_path, key=lambda part: part.number or ())
    for page in by_path:
        if INDEX.match(posixpath.basename(page.name)) or CONTENTS.match(page.title.strip()):
            named = _named(page, by_path, texts[page.id])
            if named and NAMED_SHARE * len(named) >= len(parts) - 1:
                return _filled([page.id, *named], by_path)
    return by_path


def path_key(part: Part) -> tuple[object, ...]:
    """By path: a folder's index, its files, its subfolders."""
    *folders, name = part.name.split("/")
    inside = (0 if INDEX.match(name) else 1, natural(name))
    return (*((2, natural(folder)) for folder in folders), inside, part.id)


def _named(contents: Part, parts: Sequence[Part], text: str) -> list[str]:
    """Ids of the pages in the order in which `text` first names them."""
    places: dict[str, int] = {}
    folder = posixpath.dirname(contents.name)
    by_target = {target: part.id for part in reversed(parts) for target in _targets(part.name)}
    for match in LINK.finditer(text):
        target = next(filter(None, match.groups()), "")
        found = by_target.get(posixpath.normpath(posixpath.join(folder, target)).strip("/"))
        if found:
            places.setdefault(found, match.start())
    by_title = {part.title.strip(): part.id for part in reversed(parts) if part.title.strip()}
    start = 0
    for line in text.split("\n"):
        found = by_title.get(line.strip(" \t-*•"))
        if found:
            places.setdefault(found, start)
        start += len(line) + 1
    places.pop(contents.id, None)
    return sorted(places, key=lambda identity: (places[identity], identity))


def _targets(name: str) -> list[str]:
    """What a link may call a page: its path, without its ending, its folder where it is the folder's index."""
    stem = name.rpartition(".")[0] or name
    folder = [posixpath.dirname(name)] if INDEX.match(posixpath.basename(name)) and "/" in name else []
    return [name, stem, *folder]


def _filled(named: Sequence[str], by_path: Sequence[Part]) -> list[Part]:
    """The named pages in their order, every other one behind the page before it by path."""
    known = {part.id: part for part in by_path}
    is_named = set(named)
    following: dict[str, list[str]] = {}
    before = named[0]
    for part in by_path:
        if part.id in is_named:
            before = part.id
        else:
            following.setdefault(before, []).append(part.id)
    return [known[one] for page in named for one in (page, *following.get(page, ()))]
