"""The paths of a repository, and what a name written in a file may mean among them.

Contract: every answer is paths of the tree, deterministic: of several files that a name fits, the one that shares most
folders with the file that names it, then the shortest, then the first path. Cost: proportional to the files that have
the same last name.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Sequence

SOURCE_ROOTS = ("", "src", "lib", "python")
SCRIPT_RESOLVED = (
    "", ".ts", ".tsx", ".d.ts", ".js", ".jsx", ".mjs", ".cjs", ".mts", ".cts", ".vue", ".svelte", ".json",
)  # fmt: skip
SCRIPT_INDEX = ("index.ts", "index.tsx", "index.js", "index.jsx", "index.mjs")


class Tree:
    """The files of one repository."""

    def __init__(self, paths: Iterable[str], go_modules: Sequence[str] = ()) -> None:
        """`go_modules` are the names in its `go.mod` files."""
        self.paths = frozenset(paths)
        self._by_name: dict[str, list[str]] = {}
        self._by_folder: dict[str, list[str]] = {}
        for path in sorted(self.paths):
            self._by_name.setdefault(posixpath.basename(path), []).append(path)
            self._by_folder.setdefault(posixpath.dirname(path), []).append(path)
        self._go_modules = tuple(sorted(go_modules, key=len, reverse=True))
        packages = {folder for folder, files in self._by_folder.items() if f"{folder}/__init__.py".lstrip("/") in files}
        self._packages = packages
        tops = {posixpath.dirname(folder) for folder in packages if posixpath.dirname(folder) not in packages}
        self._roots = tuple(dict.fromkeys((*SOURCE_ROOTS, *sorted(tops))))

    def ending_with(self, path: str, suffix: str) -> list[str]:
        """The one file whose path ends with whole segments `suffix`, or none."""
        suffix = posixpath.normpath(suffix).lstrip("./")
        named = self._by_name.get(posixpath.basename(suffix), [])
        fits = [one for one in named if one == suffix or one.endswith(f"/{suffix}")]
        return [min(fits, key=lambda one: (-_shared(one, path), len(one), one))] if fits else []

    def inside(self, suffix: str, endings: Sequence[str]) -> list[str]:
        """The files directly in the folders whose path ends with `suffix`."""
        folders = [one for one in sorted(self._by_folder) if one == suffix or one.endswith(f"/{suffix}")]
        return [path for one in folders for path in self._by_folder[one] if path.rpartition(".")[2] in endings]

    def python(self, path: str, module: str, names: Sequence[str]) -> list[str]:
        """The files of `import module` or `from module import names`; leading dots are relative to `path`."""
        bare = module.lstrip(".")
        parts = bare.split(".") if bare else []
        if len(bare) < len(module):
            folder = posixpath.dirname(path)
            for _ in range(len(module) - len(bare) - 1):
                folder = posixpath.dirname(folder)
            return self._python_names(folder, parts, names)
        for root in self._python_roots(path):
            found = self._python_names(root, parts, names)
            if found:
                return found
        return []

    def _python_roots(self, path: str) -> list[str]:
        """Where absolute imports may start: folders above the file that are no packages, then the tree's roots."""
        above, folder = [], posixpath.dirname(path)
        while folder:
            above += [] if folder in self._packages else [folder]
            folder = posixpath.dirname(folder)
        return list(dict.fromkeys((*above, *self._roots)))

    def _python_names(self, root: str, parts: Sequence[str], names: Sequence[str]) -> list[str]:
        whole = posixpath.join(root, *parts)
        own = self._python_file(whole) if whole else "__init__.py" if "__init__.py" in self.paths else ""
        found, elsewhere = list[str](), not names
        for name in names:
            one = self._python_file(posixpath.join(whole, name)) if name != "*" else ""
            found += [one] if one else []
            elsewhere = elsewhere or not one  # a name of the module itself
        return [own, *found] if own and elsewhere else found

    def _python_file(self, module: str) -> str:
        tried = (f"{module}.py", f"{module}/__init__.py", f"{module}.pyi", f"{module}/__init__.pyi")
        return next((one for one in tried if one in self.paths), "")

    def script(self, path: str, given: str) -> list[str]:
        """The file of a relative JavaScript or TypeScript import."""
        base = posixpath.normpath(posixpath.join(posixpath.dirname(path), given))
        stem = (
            base.rpartition(".")[0] if base.endswith((".js", ".jsx", ".mjs")) else base
        )  # TypeScript names its output
        tried = [*(base + ending for ending in SCRIPT_RESOLVED), *(posixpath.join(base, one) for one in SCRIPT_INDEX)]
        tried += [stem + ending for ending in (".ts", ".tsx", ".mts")]
        return next(([one] for one in tried if one in self.paths), [])

    def go_package(self, given: str) -> list[str]:
        """The files, tests apart, of a Go package: below one of the modules, or, without a `go.mod`, by its end."""
        folder = next((given[len(one) :].strip("/") for one in self._go_modules if _below(given, one)), None)
        if folder is None:
            if self._go_modules or "." not in given.split("/")[0]:
                return []
            segments = given.split("/")
            tails = ("/".join(segments[start:]) for start in range(1, len(segments)))
            folder = next((tail for tail in tails if tail in self._by_folder), None)
        files = self._by_folder.get(folder, []) if folder is not None else []
        return [path for path in files if path.endswith(".go") and not path.endswith("_test.go")]

    def rust(self, base: str, names: Sequence[str]) -> list[str]:
        """The file of the longest beginning of `names` that is a module below `base`."""
        for length in range(len(names), 0, -1):
            module = posixpath.join(base, *names[:length])
            for one in (f"{module}.rs", f"{module}/mod.rs"):
                if one in self.paths:
                    return [one]
        return []


def _below(given: str, module: str) -> bool:
    return given == module or given.startswith(f"{module}/")


def _shared(one: str, other: str) -> int:
    """How many folders two paths begin with."""
    pairs = zip(one.split("/")[:-1], other.split("/")[:-1], strict=False)
    return next((index for index, (a, b) in enumerate(pairs) if a != b), min(one.count("/"), other.count("/")))
