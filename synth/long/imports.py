"""Which files of a repository a file needs: its import lines, resolved to paths of the repository.

Contract: `needed` is a pure function of a file's path and text and of the repository's paths; it gives paths of other
files, each once, in the order of mention, and whether the file needs them to be loaded at all (`now`) or only when a
function runs. What is outside the repository is passed over. Python is parsed (`ast`; by lines where it does not
parse); C and C++, JavaScript and TypeScript, Java, Kotlin, Scala, Go and Rust are read by lines that import. Cost:
about 10 MB/s for Python, 100 MB/s for the others.
"""

from __future__ import annotations

import ast
import posixpath
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from synth.long.tree import Tree

C_ENDINGS = ("c", "h", "cc", "cpp", "cxx", "hpp", "hh", "hxx", "m", "mm", "cu", "cuh")
SCRIPT_ENDINGS = ("js", "jsx", "ts", "tsx", "mjs", "cjs", "mts", "cts", "vue", "svelte")
JVM_ENDINGS = ("java", "kt", "scala", "groovy")
PYTHON_LINE = re.compile(r"^\s*(?:from\s+(\.*[\w.]*)\s+import\s+([\w, *()]+)|import\s+([\w., ]+))", re.M)
INCLUDE = re.compile(r'^[ \t]*#[ \t]*(?:include|import)[ \t]*(?:"([^"\n]+)"|<([^>\n]+)>)', re.M)
SCRIPT = re.compile(
    r"""(?:\bfrom\s*|\bimport\s*\(\s*|\brequire\s*\(\s*|^\s*import\s+)(['"])(\.{1,2}(?:/[^'"\n]*)?)\1""", re.M
)
JVM = re.compile(r"^[ \t]*import[ \t]+(?:static[ \t]+)?([\w.]+?)(\.[*_])?[ \t]*;?[ \t]*$", re.M)
GO_BLOCK = re.compile(r"^import\s*\(([^)]*)\)", re.M)
GO_LINE = re.compile(r'^import\s+(?:[\w.]+\s+)?"([^"\n]+)"', re.M)
QUOTED = re.compile(r'"([^"\n]+)"')
GO_MODULE = re.compile(r"^module\s+(\S+)", re.M)
RUST_MODULE = re.compile(r"^[ \t]*(?:pub(?:\([^)]*\))?[ \t]+)?mod[ \t]+(\w+)[ \t]*;", re.M)
RUST_USE = re.compile(r"^[ \t]*(?:pub(?:\([^)]*\))?[ \t]+)?use[ \t]+((?:crate|self|super)::[^;]+);", re.M)


@dataclass(frozen=True)
class Need:
    """A file that another needs; `now` when it cannot be loaded without it."""

    path: str
    now: bool = True


def needed(path: str, text: str, tree: Tree) -> list[Need]:
    """Every file of the tree that `path` imports."""
    ending = path.rpartition(".")[2].lower()
    if ending in ("py", "pyi"):
        found = _python(path, text, tree)
    elif ending in C_ENDINGS:
        found = _includes(path, text, tree)
    elif ending in SCRIPT_ENDINGS:
        found = (Need(one) for _, given in SCRIPT.findall(text) for one in tree.script(path, given))
    elif ending in JVM_ENDINGS:
        found = (Need(one) for given, star in JVM.findall(text) for one in _jvm(given, bool(star), tree))
    elif ending == "go":
        lines = [*GO_LINE.findall(text), *(one for block in GO_BLOCK.findall(text) for one in QUOTED.findall(block))]
        found = (Need(one) for given in lines for one in tree.go_package(given))
    elif ending == "rs":
        found = (Need(one) for one in _rust(path, text, tree))
    else:
        return []
    kept: dict[str, Need] = {}
    for need in found:
        if need.path != path and not (need.path in kept and kept[need.path].now):
            kept[need.path] = need
    return list(kept.values())


def _python(path: str, text: str, tree: Tree) -> Iterator[Need]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the parsed text: nobody here can mend it
            module = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        for origin, names, plain in PYTHON_LINE.findall(text):
            for given, wanted in _lines(origin, names, plain):
                yield from (Need(one) for one in tree.python(path, given, wanted))
        return
    for given, wanted, now in _import_nodes(module):
        yield from (Need(one, now) for one in tree.python(path, given, wanted))


def _import_nodes(module: ast.Module) -> Iterator[tuple[str, Sequence[str], bool]]:
    """(module with its dots, names, whether it is run on loading) of each import statement."""
    waiting: list[tuple[ast.AST, bool]] = [(module, True)]
    while waiting:
        node, now = waiting.pop()
        if isinstance(node, ast.Import):
            yield from ((alias.name, (), now) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or ""), [alias.name for alias in node.names], now
        elif not isinstance(node, ast.expr):
            later = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or _for_types(node)
            waiting += [(child, now and not later) for child in reversed(list(ast.iter_child_nodes(node)))]


def _for_types(node: ast.AST) -> bool:
    """`if TYPE_CHECKING:` runs for type checkers only."""
    if not isinstance(node, ast.If):
        return False
    # Walked, not dumped: `ast.dump` recurses, and generated code has conditions of a thousand terms.
    return any("TYPE_CHECKING" in (getattr(one, "id", ""), getattr(one, "attr", "")) for one in ast.walk(node.test))


def _lines(origin: str, names: str, plain: str) -> Iterator[tuple[str, Sequence[str]]]:
    if origin:
        yield origin, [name.split()[0] for name in names.strip("() ").split(",") if name.strip()]
    for given in plain.split(","):
        if given.strip():
            yield given.split()[0], ()


def _includes(path: str, text: str, tree: Tree) -> Iterator[Need]:
    for quoted, angled in INCLUDE.findall(text):
        own = posixpath.normpath(posixpath.join(posixpath.dirname(path), quoted)) if quoted else ""
        if own in tree.paths:
            yield Need(own)
        elif quoted or "/" in angled:
            yield from (Need(one) for one in tree.ending_with(path, quoted or angled))


def _jvm(given: str, star: bool, tree: Tree) -> list[str]:
    """A class (or the one around an inner class or static member), or every class of a package."""
    parts = given.split(".")
    if star and (members := tree.inside("/".join(parts), JVM_ENDINGS)):
        return members
    for length in range(len(parts), max(0, len(parts) - 3), -1):
        for ending in JVM_ENDINGS:
            if found := tree.ending_with("", f"{'/'.join(parts[:length])}.{ending}"):
                return found
    return []


def _rust(path: str, text: str, tree: Tree) -> Iterator[str]:
    stem = posixpath.basename(path).removesuffix(".rs")
    folder = posixpath.dirname(path)
    own = folder if stem in ("mod", "lib", "main") else posixpath.join(folder, stem)  # where its modules are
    for name in RUST_MODULE.findall(text):
        yield from tree.rust(own, [name])
    for given in RUST_USE.findall(text):
        for first, *rest in _rust_paths(given):
            base = {"crate": _crate(path, tree), "self": own, "super": posixpath.dirname(own)}[first]
            while rest and rest[0] == "super":
                base, rest = posixpath.dirname(base), rest[1:]
            yield from tree.rust(base, rest)


def _rust_paths(given: str) -> Iterator[list[str]]:
    """`crate::a::{b::C, d}` → crate a b C, crate a d; deeper braces are cut off."""
    head, brace, inner = given.partition("{")
    for tail in re.sub(r"::\{[^}]*\}", "", inner.rstrip("} \n\t")).split(",") if brace else [""]:
        whole = re.split(r"\s+as\s+", (head + tail.strip()).strip())[0]
        yield [part for part in re.sub(r"\s", "", whole).split("::") if part not in ("", "*")]


def _crate(path: str, tree: Tree) -> str:
    """The nearest folder above with a crate's root file."""
    folder = posixpath.dirname(path)
    while folder and not any(posixpath.join(folder, root) in tree.paths for root in ("lib.rs", "main.rs")):
        folder = posixpath.dirname(folder)
    return folder
