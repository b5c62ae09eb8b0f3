"""Repositories: README first, then files in dependency order, tests last, each under a line with its path.

Contract: a file comes after the files it imports, except inside a cycle; among files that do not need each other paths
decide, tests after all others. A test that another file imports comes before it all the same.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence

from synth.long.dependencies import ordered
from synth.long.groups import Part
from synth.long.imports import GO_MODULE, needed
from synth.long.naming import natural
from synth.long.tree import Tree

README = re.compile(r"^readme(?:\.|$)", re.I)
TEST = re.compile(r"(?i:(?:^|[_.-])(?:tests?|spec)(?:[_.-]|$)|^conftest\.)|(?:Test|Tests|Spec)\.")
TEST_FOLDERS = frozenset({"test", "tests", "testing", "spec", "specs", "__tests__", "testdata"})


def header(part: Part) -> str:
    """The line above a file."""
    return f"=== {part.name} ===\n\n"


def arranged(parts: Sequence[Part], texts: Mapping[str, str]) -> tuple[list[Part], list[list[str]]]:
    """(files in order, the cycles of imports by path)."""
    by_path: dict[str, list[Part]] = {}
    for part in sorted(parts, key=lambda one: (_place(one.name), one.id)):
        by_path.setdefault(part.name, []).append(part)
    modules = [
        name
        for path, same in by_path.items()
        if posixpath.basename(path) == "go.mod"
        for name in GO_MODULE.findall(texts[same[0].id])
    ]
    tree = Tree(by_path, modules)
    needs = {path: needed(path, texts[same[0].id], tree) for path, same in by_path.items()}
    now = {path: [need.path for need in found if need.now] for path, found in needs.items()}
    later = {path: [need.path for need in found if not need.now] for path, found in needs.items()}
    order, cycles = ordered(list(by_path), now, later)
    return [part for path in order for part in by_path[path]], cycles


def _place(path: str) -> tuple[object, ...]:
    """READMEs from the outermost, then other files, then tests; by path."""
    *folders, name = path.split("/")
    readme = bool(README.match(name))
    rank = 0 if readme else 2 if is_test(path) else 1
    return (rank, len(folders) if readme else 0, [natural(folder) for folder in folders], natural(name))


def is_test(path: str) -> bool:
    *folders, name = path.split("/")
    return bool(TEST.search(name)) or any(folder.lower() in TEST_FOLDERS for folder in folders)
