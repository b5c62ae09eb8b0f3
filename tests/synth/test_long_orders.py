"""Orders of parts: dependency order against networkx, import lines of each language, contents, replies, numbers."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import networkx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.documents import document_id
from synth.long import books, manuals, repositories, threads
from synth.long.config import LongConfig
from synth.long.dependencies import components, ordered
from synth.long.groups import Part
from synth.long.imports import needed
from synth.long.naming import Facts, group_of, name_of, natural, number_of
from synth.long.numerals import number_in
from synth.long.tree import Tree

NODES = "abcdefgh"
GRAPHS = st.dictionaries(st.sampled_from(NODES), st.lists(st.sampled_from(NODES), max_size=4), max_size=8)


def part(name: str, **more: Any) -> Part:
    columns: dict[str, Any] = {"file": 0, "row": 0, "source": "s", "domain": "", "licence": "MIT", "language": "en"}
    columns |= {"title": name, "date": "", "number": None, "own": "", "parent": "", "characters": 9, "size_bytes": 9}
    columns |= {"id": document_id("s", name), "name": name}
    columns |= more
    return Part(**columns)


def names(parts: Any) -> list[str]:
    return [one.name for one in parts]


def graph_of(needs: dict[str, list[str]]) -> networkx.DiGraph:
    graph = networkx.DiGraph((node, other) for node, others in needs.items() for other in others)
    graph.add_nodes_from(NODES)
    return graph


@given(needs=GRAPHS)
def test_components_are_networkx_s(needs: dict[str, list[str]]) -> None:
    ours = {frozenset(one) for one in components(NODES, needs)}
    assert ours == set(map(frozenset, networkx.strongly_connected_components(graph_of(needs))))


@given(now=GRAPHS, later=GRAPHS)
def test_what_is_needed_comes_first_except_inside_cycles(
    now: dict[str, list[str]], later: dict[str, list[str]]
) -> None:
    order, cycles = ordered(NODES, now, later)
    assert sorted(order) == sorted(NODES)
    together = {node: [*now.get(node, []), *later.get(node, [])] for node in NODES}
    cyclic = [set(one) for one in networkx.strongly_connected_components(graph_of(together)) if len(one) > 1]
    assert sorted(map(sorted, cycles)) == sorted(map(sorted, cyclic))
    for node, others in together.items():
        for other in others:
            same = any({node, other} <= cycle for cycle in cyclic)
            assert same or node == other or order.index(other) < order.index(node)


def test_a_cycle_is_opened_where_an_import_can_wait() -> None:
    """b needs a when it is loaded, a needs b when one of its functions runs: a comes first."""
    assert ordered(["b", "a"], {"b": ["a"]}, {"a": ["b"]}) == (["a", "b"], [["a", "b"]])
    assert ordered(["b", "a"], {"a": ["b"]}, {"b": ["a"]}) == (["b", "a"], [["b", "a"]])
    assert ordered(["b", "a"], {"a": ["b"], "b": ["a"]}, {})[0] == ["a", "b"]  # nothing can wait: by path


def test_without_needs_the_given_order_stays() -> None:
    assert ordered(list(NODES), {}, {}) == (list(NODES), [])


def test_a_chain_longer_than_the_stack_of_calls() -> None:
    chain = [f"{number:05}" for number in range(20_000)]
    assert ordered(chain[::-1], {b: [a] for a, b in pairwise(chain)}, {})[0] == chain


FILES = {
    "pkg/__init__.py": "from .core import run\nfrom . import tools\n",
    "pkg/core.py": "import os, json\nfrom pkg.tools import helper\nfrom ..pkg import missing\n",
    "pkg/tools/__init__.py": "",
    "pkg/tools/helper.py": "def late():\n    from pkg import core\n",
    "pkg/types.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from pkg.core import run\n"
    f"if {' + '.join(['x'] * 900)}:\n    pass\n",  # a condition that is deep, not one for type checkers
    "old/script.py": "print 'Python 2'\nimport shared\nfrom pkg.tools.helper import late\n",
    "old/shared.py": "x = 1\n",
    "src/native/main.c": '#include "main.h"\n#include <stdio.h>\n#include "util/list.h"\n#include <native/io.h>\n',
    "src/native/main.h": "",
    "src/native/io.h": "",
    "src/native/util/list.h": "",
    "web/app.tsx": "import React from 'react'\nimport { a } from './lib/a.js'\nexport * from \"./lib\"\nrequire('../web/b')\n",
    "web/lib/a.ts": "const x = await import('../b')\n",
    "web/lib/index.js": "",
    "web/b.js": "",
    "j/src/org/x/Main.java": "import org.x.util.Tool;\nimport static org.x.util.Other.call;\nimport org.y.*;\nimport java.util.List;\n",
    "j/src/org/x/util/Tool.java": "",
    "j/src/org/x/util/Other.java": "",
    "j/src/org/y/One.java": "",
    "j/src/org/y/Two.kt": "",
    "go.mod": "module example.org/tool\n",
    "main.go": 'import (\n\t"fmt"\n\tx "example.org/tool/store"\n)\n',
    "store/disk.go": "",
    "store/disk_test.go": "",
    "rust/src/lib.rs": "mod a;\npub mod b;\nuse crate::a::{deep::Thing, other};\n",
    "rust/src/a/mod.rs": "mod deep;\n",
    "rust/src/a/deep.rs": "use super::super::b::Item;\nuse std::fmt;\n",
    "rust/src/b.rs": "",
}


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("pkg/__init__.py", ["pkg/core.py", "pkg/tools/__init__.py"]),
        ("pkg/core.py", ["pkg/tools/helper.py", "pkg/__init__.py"]),
        ("pkg/tools/helper.py", ["pkg/core.py (later)"]),
        ("pkg/types.py", ["pkg/core.py (later)"]),
        ("old/script.py", ["old/shared.py", "pkg/tools/helper.py"]),
        ("src/native/main.c", ["src/native/main.h", "src/native/util/list.h", "src/native/io.h"]),
        ("web/app.tsx", ["web/lib/a.ts", "web/lib/index.js", "web/b.js"]),
        ("web/lib/a.ts", ["web/b.js"]),
        (
            "j/src/org/x/Main.java",
            [f"j/src/org/{one}" for one in ("x/util/Tool.java", "x/util/Other.java", "y/One.java", "y/Two.kt")],
        ),
        ("main.go", ["store/disk.go"]),
        ("rust/src/lib.rs", ["rust/src/a/mod.rs", "rust/src/b.rs", "rust/src/a/deep.rs"]),
        ("rust/src/a/mod.rs", ["rust/src/a/deep.rs"]),
        ("rust/src/a/deep.rs", ["rust/src/b.rs"]),
        ("go.mod", []),
    ],
)
def test_import_lines_name_files_of_the_repository(path: str, wanted: list[str]) -> None:
    tree = Tree(FILES, ["example.org/tool"])
    assert [need.path + ("" if need.now else " (later)") for need in needed(path, FILES[path], tree)] == wanted


def test_a_module_of_the_library_is_no_file_of_the_same_name_elsewhere() -> None:
    assert needed("a/b.py", "import json\nimport c\n", Tree(["a/b.py", "x/json.py", "x/c.py"])) == []


def test_go_packages_without_a_module_file_are_found_by_their_end() -> None:
    tree = Tree(["cmd/main.go", "store/disk.go"])
    assert [one.path for one in needed("cmd/main.go", 'import "example.org/x/store"\n', tree)] == ["store/disk.go"]


def test_repositories_begin_with_the_readme_and_end_with_tests() -> None:
    files = {
        "tests/test_core.py": "from core import run\n",
        "core.py": "import late\n",
        "late.py": "",
        "docs/README.md": "",
        "README.md": "",
        "test_tools.py": "",
        "Zebra.md": "",
        "contest.py": "",
    }
    parts = [part(name) for name in files]
    order, cycles = repositories.arranged(parts, {document_id("s", name): text for name, text in files.items()})
    assert names(order) == [
        "README.md", "docs/README.md", "contest.py", "late.py", "core.py", "Zebra.md", "test_tools.py",
        "tests/test_core.py",
    ]  # fmt: skip
    assert cycles == []


def test_manuals_follow_their_table_of_contents() -> None:
    pages = ["index.md", "a/one.md", "a/two.md", "b.md", "c10.md", "c2.md"]
    text = "[Two](a/two.md)\n[Beh](./b)\n[Ten](c10.md#part)\n[One](a/one.md)\n[elsewhere](https://example.org/c2.md)"
    texts = dict.fromkeys((document_id("s", name) for name in pages), "") | {document_id("s", "index.md"): text}
    order = names(manuals.arranged([part(name) for name in pages], texts))
    assert order == ["index.md", "a/two.md", "b.md", "c2.md", "c10.md", "a/one.md"]  # c2 is not named: behind b


def test_manuals_without_contents_come_by_path_with_numbers_as_numbers() -> None:
    pages = ["ch10.html", "ch2.html", "part/z.html", "index.html", "ch2/x.html", "part/index.html"]
    order = names(manuals.arranged([part(name) for name in pages], {document_id("s", name): "" for name in pages}))
    assert order == ["index.html", "ch2.html", "ch10.html", "ch2/x.html", "part/index.html", "part/z.html"]


def test_manuals_with_titles_as_contents_and_with_numbers() -> None:
    texts = {document_id("s", name): "Zwei\n- Eins\n" for name in ("x", "y", "z")}
    pages = [part("x", title="Inhaltsverzeichnis"), part("y", title="Eins"), part("z", title="Zwei")]
    assert names(manuals.arranged(pages, texts)) == ["x", "z", "y"]
    weighed = [part(name, number=(weight,)) for name, weight in (("x", 3), ("y", 1), ("z", 2))]
    assert names(manuals.arranged(weighed, texts)) == ["y", "z", "x"]


def test_answers_stand_behind_what_they_answer() -> None:
    """Parents are named by a message's own name, by its id, or by the record id that its id was made of."""
    messages = [
        part("root", own="m1", date="2024-01-01"),
        part("late", parent="m1", own="m3", date="2024-01-09"),
        part("early", parent=document_id("s", "root"), own="m2", date="2024-01-02"),
        part("deep", parent="early", own="m4", date="2024-01-20"),
        part("orphan", parent="gone", date="2024-01-03"),
    ]
    order, missing = threads.arranged(messages)
    assert names(order) == ["root", "early", "deep", "late", "orphan"]
    assert missing == 1


def test_messages_that_answer_each_other_in_a_circle_are_not_lost() -> None:
    order, missing = threads.arranged([part("a", parent="b", date="2"), part("b", parent="a", date="1")])
    assert (names(order), missing) == (["b", "a"], 0)


@pytest.mark.parametrize(
    ("numbers", "missing"), [([1, 2, 3], 0), ([0, 1, 2], 0), ([2, 3], 1), ([1, 2, 7], 4), ([10, 9, 8, 1], 6), ([], 0)]
)
def test_books_know_which_numbers_are_missing(numbers: list[int], missing: int) -> None:
    parts = [part(f"x{number}", number=(number,)) for number in numbers]
    order, found = books.arranged(parts)
    assert [one.number for one in order] == [(number,) for number in sorted(numbers)]
    assert found == missing


def test_a_preface_stays_where_its_name_stands() -> None:
    parts = [part("b 2", number=(2,)), part("a preface"), part("b 1", number=(1,)), part("z afterword")]
    assert names(books.arranged(parts)[0]) == ["a preface", "b 1", "b 2", "z afterword"]


def facts(**columns: Any) -> Facts:
    base: dict[str, Any] = {"id": "i", "source": "s", "language": "en", "url": "", "title": "", "date": ""}
    base |= {"parents": (), "extra": {}}
    base |= columns
    return Facts(**base)


def config(form: str, **more: Any) -> LongConfig:
    return LongConfig.model_validate({"kind": "long", "form": form, "from": "s", **more})


@pytest.mark.parametrize(
    ("form", "first", "second", "together"),
    [
        ("books", {"title": "Heidi, Kapitel 1"}, {"title": "Heidi – Kapitel II: Der Berg"}, True),
        ("books", {"title": "夜明け前 第一部 第三章"}, {"title": "夜明け前 第二部 第一章"}, True),
        ("books", {"title": "무정 제1장"}, {"title": "무정 제12장 봄"}, True),
        ("books", {"title": "Don Quijote, capítulo 1"}, {"title": "Niebla, capítulo 2"}, False),
        ("books", {"title": "Tắt đèn - Chương 3"}, {"title": "Tắt đèn - Chương 4"}, True),
        ("books", {"title": "Chapter 1"}, {"title": "Chapter 2"}, False),  # of which book?
        ("books", {"url": "http://x/emma/chapter-1.html"}, {"url": "http://x/emma/chapter-2.html"}, True),
        ("books", {"url": "http://x/emma/chapter-1.html"}, {"url": "http://x/persuasion/chapter-2.html"}, False),
        ("books", {"extra": {"book": "A"}, "source": "s"}, {"extra": {"book": "A"}, "source": "t"}, False),
        ("books", {"extra": {"piece": 0}, "parents": ("w",)}, {"extra": {"piece": 1}, "parents": ("w",)}, True),
        ("books", {"title": "Essay"}, {"title": "Essay"}, False),
        ("manuals", {"url": "http://x.org/en/a"}, {"url": "http://x.org/en/b", "language": "de"}, True),
        ("manuals", {"url": "http://x.org/en/a"}, {"url": "http://x.org/ko/a"}, False),
        ("manuals", {"url": "http://x.org/a.en.html"}, {"url": "http://x.org/b.ja.html"}, False),
        ("manuals", {"url": "pages/common/vi.md"}, {"url": "pages/common/ls.md"}, True),
        ("repositories", {"url": "https://github.com/o/r/blob/main/a.py"}, {"url": "https://github.com/o/r/b"}, True),
        ("repositories", {"url": "https://github.com/o/r/a"}, {"url": "https://github.com/o/q/a"}, False),
        ("repositories", {"title": "a/b.py"}, {"title": "c.py"}, True),  # a source tree is one repository
        ("threads", {"extra": {"thread_id": 4}}, {"extra": {"thread_id": 4}}, True),
    ],
)
def test_what_belongs_together(form: str, first: dict[str, Any], second: dict[str, Any], together: bool) -> None:
    one, two = (group_of(facts(id=i, **given_), config(form)) for i, given_ in (("1", first), ("2", second)))
    assert (one == two) is together


def test_keys_of_the_configuration_come_first() -> None:
    given_ = facts(title="Emma, Chapter 3", extra={"book": "A", "shelf": 7, "page": "12"})
    chosen = config("books", group_keys=("extra.shelf",), order_keys=("extra.page",))
    assert (group_of(given_, chosen), number_of(given_, chosen)) == ("s\x1f7", (12,))


def test_names_are_paths() -> None:
    url = "https://github.com/o/r/blob/main/src/a%20b.py"
    assert name_of(facts(url=url), config("repositories")) == "src/a b.py"
    assert name_of(facts(url="https://gitlab.com/o/r/-/raw/v1/c.rs"), config("repositories")) == "c.rs"
    raw = "https://raw.githubusercontent.com/o/r/main/d/e.go"
    assert name_of(facts(url=raw), config("repositories")) == "d/e.go"
    assert name_of(facts(title="lib/x.py", extra={"path": "y.py"}), config("repositories")) == "y.py"


@pytest.mark.parametrize(
    ("text", "number"),
    [("12", 12), ("XIV", 14), ("xc", 90), ("二十三", 23), ("百五", 105), ("一〇三", 103), (7, 7), (2.5, None), ("mix", None), ("", None)],
)  # fmt: skip
def test_numerals(text: Any, number: int | None) -> None:
    assert number_in(text) == number


def test_more_digits_than_python_reads_are_no_number() -> None:
    """Python refuses to make a number of more than 4,300 digits."""
    digits = "7" * 5000
    assert number_in(digits) is None
    assert number_in("〇" + "七" * 5000) is None
    assert number_in(float("inf")) is None
    assert number_in(float("nan")) is None
    assert number_of(facts(title=f"Chapter {digits}"), config("books")) is None
    assert natural(f"a{digits}") > natural("a10")


def test_natural_order() -> None:
    assert sorted(["b10", "b9", "a", "B1", "10", "9"], key=natural) == ["9", "10", "a", "B1", "b9", "b10"]
    assert json.dumps(natural("a1")) == '[[1, 0, "a"], [0, 1, ""]]'
