"""Long documents: whole, byte for byte their parts, nothing lost; what says too little goes; any sharding is the same."""

from __future__ import annotations

import ast
import base64
import json
import os
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import networkx
import pyarrow.parquet as pq
import pytest
import zstandard

from pipeline.core.documents import (
    document_id,
    read_documents,
    read_dropped,
    table_from_rows,
    text_hash,
    write_documents,
)
from pipeline.core.errors import InputError
from pipeline.core.record import ShardResult
from pipeline.core.steps import StepTask
from synth.acceptance import FILTERS
from synth.config import LANGUAGES, LongConfig
from synth.licences import joined_licence
from synth.long.groups import TEXT_BATCH_ROWS, text_lengths
from synth.long.information import measured
from synth.long.repositories import is_test
from synth.long.work import JOINTS, MOST_MISSING, WORK

DATA = Path(os.environ.get("SEODANG_DATA", "../shared/data"))
STDLIB = Path(sysconfig.get_path("stdlib"))
PACKAGES = ("asyncio", "concurrent", "email", "json", "logging", "multiprocessing", "unittest", "xml")
Row = Mapping[str, Any]
Make = Callable[..., StepTask]


def row(name: str, text: str, source: str = "s", **columns: Any) -> dict[str, Any]:
    base = {"id": document_id(source, name), "text": text, "text_hash": text_hash(text), "source": source}
    base |= {"lang": "en", "license": "CC0-1.0", "domain": "science"}
    extra = columns.pop("extra", None)
    return {**base, "extra": None if extra is None else json.dumps(extra), **columns}


def config(form: str, **more: Any) -> LongConfig:
    given = {"kind": "long", "form": form, "from": "s", "minimum_tokens": 1, **more}
    return LongConfig.model_validate(given)


def made(task: StepTask) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[ShardResult]]:
    results = [WORK.make_shard(task, shard) for shard in range(WORK.shard_count(task))]
    kept = [one for table in read_documents(task.folder) for one in table.to_pylist()]
    return kept, [one for table in read_dropped(task.folder) for one in table.to_pylist()], results


def prose(seed: int, words: int = 400) -> str:
    """Text that compresses like prose: words of a small vocabulary in random order."""
    dice = Random(seed)
    vocabulary = ["".join(dice.choices("abcdefghijklmnoprstuvw", k=dice.randint(2, 9))) for _ in range(200)]
    return " ".join(dice.choice(vocabulary) for _ in range(words))


def parts_of(document: Row) -> list[str]:
    return [document["text"][start:end] for start, end in json.loads(document["extra"])["parts"]]


def total(results: Sequence[ShardResult], name: str) -> int:
    return sum(result.counts.get(name, 0) for result in results)


def test_a_book_is_joined_in_order_from_all_its_shards(make_task: Make) -> None:
    chapters = [row(f"c{n}", prose(n), title=f"Emma, Chapter {n}", license=f"L{n % 2}") for n in (10, 2, 1, 3, 5, 4)]
    rest = [row(f"c{n}", prose(n), title=f"Emma, Chapter {n}", lang="de") for n in (6, 9, 8, 7)]
    task = make_task("synth.long", config("books"), [chapters, rest])
    (book,), dropped, results = made(task)
    assert book["text"] == "\n\n".join(prose(n) for n in range(1, 11))
    assert book["parents"] == [document_id("s", f"c{n}") for n in range(1, 11)]
    assert parts_of(book) == [prose(n) for n in range(1, 11)]
    assert (book["lang"], book["domain"], book["maker"]) == ("en", "science", None)
    assert book["license"] == "CC0-1.0 AND L0 AND L1"
    assert dropped == []
    assert [total(results, f"parts_{name}") for name in ("in", "out", "dropped")] == [10, 10, 0]


def test_a_book_with_a_missing_chapter_is_dropped_or_kept_with_a_note(make_task: Make) -> None:
    shards = [[row(f"c{n}", prose(n), title=f"Emma, Chapter {n}") for n in (1, 2, 4)]]
    kept, (gone,), results = made(make_task("synth.a", config("books"), shards))
    assert kept == []
    assert (gone["reason"], gone["detail"]) == ("long.incomplete", "Emma, Chapter 1: 1 missing of 4")
    assert results[0].dropped == {"long.incomplete": 1}
    (book,), _, _ = made(make_task("synth.b", config("books", incomplete="keep"), shards))
    assert json.loads(book["extra"])["missing"] == 1


@pytest.mark.parametrize(("last", "missing"), [(2**63, 2**63 - 2), (2**64 + 1, MOST_MISSING), (10**600, MOST_MISSING)])
def test_numbers_of_parts_beyond_64_bits_are_missed_in_a_number_that_can_be_written(
    make_task: Make, last: int, missing: int
) -> None:
    shards = [[row(f"c{n}", prose(len(str(n))), extra={"book": "b", "chapter": str(n)}) for n in (last, 1)]]
    (book,), dropped, _ = made(make_task("synth.a", config("books", incomplete="keep"), shards))
    assert (json.loads(book["extra"])["missing"], dropped) == (missing, [])
    assert book["parents"] == [document_id("s", f"c{n}") for n in (1, last)]
    kept, (gone,), _ = made(make_task("synth.b", config("books"), shards))
    assert (kept, gone["reason"]) == ([], "long.incomplete")
    assert gone["detail"].endswith(f": {last - 2} missing of {last}")


def test_a_whole_book_with_a_number_in_its_record_is_no_part(make_task: Make) -> None:
    (book,), dropped, _ = made(make_task("synth.long", config("books"), [[row("a", prose(1), extra={"index": 57})]]))
    assert (book["text"], dropped) == (prose(1), [])


def test_pieces_of_a_text_too_large_to_be_read_whole_come_together_again(make_task: Make) -> None:
    pieces = [row(f"p{n}", prose(n), parents=["whole"], extra={"piece": n}) for n in (2, 0, 1)]
    (book,), _, _ = made(make_task("synth.long", config("books"), [pieces]))
    assert parts_of(book) == [prose(0), prose(1), prose(2)]


def test_threads_are_connected_through_parents(make_task: Make) -> None:
    posts = [
        row("q", prose(1), date="2024-01-01", extra={"post_id": "q"}),
        row("a2", prose(3), date="2024-01-03", extra={"post_id": "a2", "parent_id": "q"}),
        row("a1", prose(2), date="2024-01-02", extra={"parent_id": "q"}),
        row("other", prose(9), date="2024-01-02"),
    ]
    kept, _, _ = made(make_task("synth.long", config("threads", minimum_parts=2), [posts[:2], posts[2:]]))
    assert [one["text"] for one in kept] == ["\n\n---\n\n".join(prose(n) for n in (1, 2, 3))]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Buy now! Click here.\n" * 2000, "long.repetitive"),
        (base64.b64encode(Random(0).randbytes(30_000)).decode(), "long.incompressible"),
        (Random(1).randbytes(30_000).hex(), "long.incompressible"),
        (prose(1, 9000) + prose(1, 9000), "long.repeated"),
        ("\n".join(f"{n},{Random(n).random()},{Random(n).randint(0, 10**6)}" for n in range(4000)), "long.unrelated"),
        ("A short note.", "long.too_short"),
    ],
)
def test_what_says_too_little_goes_with_its_reason(make_task: Make, text: str, reason: str) -> None:
    shards = [[row("a", text, title="A")]]
    kept, dropped, results = made(make_task("synth.long", config("books", minimum_tokens=100), shards))
    assert kept == []
    assert [one["reason"] for one in dropped] == [reason]
    assert reason.removeprefix("long.") in FILTERS["long"]
    assert dropped[0]["text"] == text[:2000]  # shown, not kept: the document is whole or gone
    assert results[0].counts["documents_in"] == 1


def test_longer_documents_are_dropped_whole_or_divided_at_folders(make_task: Make) -> None:
    files = {
        name: prose(n) for n, name in enumerate(("setup.py", "a/x.md", "a/y.md", "b/x.md", "b/c/z.md", "b/c/w.md"))
    }
    shards = [[row(name, text, title=name) for name, text in files.items()]]
    most = {"maximum_tokens": 1800}
    _, (gone,), _ = made(make_task("synth.a", config("repositories", **most), shards))
    assert gone["reason"] == "long.too_long"
    kept, dropped, results = made(make_task("synth.b", config("repositories", longer="folders", **most), shards))
    assert dropped == []
    assert {one["title"]: len(one["parents"]) for one in kept} == {"setup.py": 1, "a": 2, "b/x.md": 1, "b/c": 2}
    assert total(results, "parts_out") == len(files)


def test_any_number_of_shards_holds_the_same_documents(make_task: Make) -> None:
    """How the input is cut, how many groups share a shard, and the order of making change nothing."""
    rows = [
        row(f"{b}-{n}", prose(10 * b + n), title=f"Book {b}: x, Chapter {n}", extra={"book": b})
        for b in range(5)
        for n in (1, 2)
    ]
    whole, _, _ = made(make_task("synth.a", config("books"), [rows]))
    shards = [rows[:3], rows[3:4], rows[4:]]
    task = make_task("synth.a", config("books", documents_per_shard=2), shards)
    for shard in (2, 0, 1):
        WORK.make_shard(task, shard)
    cut = [one for table in read_documents(task.folder) for one in table.to_pylist()]
    assert [one["id"] for one in cut] == [one["id"] for one in whole]
    assert [one["text"] for one in cut] == [one["text"] for one in whole]
    assert WORK.shard_count(make_task("synth.b", config("books", shard_bytes=1), shards)) == 5
    fewer = make_task("synth.c", config("books", documents=3), shards)
    assert [one["text"] for one in made(fewer)[0]] == [one["text"] for one in whole[:3]]


def test_languages_are_those_of_whole_groups(make_task: Make) -> None:
    rows = [row("a", prose(1), lang="de", extra={"book": 1}), row("b", prose(2, 900), lang="en", extra={"book": 1})]
    (one,), _, _ = made(make_task("synth.a", config("books", languages=("en",)), [rows]))
    assert len(one["parents"]) == 2
    with pytest.raises(InputError, match="no document of s in de"):
        made(make_task("synth.b", config("books", languages=("de",)), [rows]))
    with pytest.raises(InputError, match="no source matches `x`"):
        made(make_task("synth.c", config("books", **{"from": "x"}), [rows]))


def test_makers_of_parts_stay_and_joining_adds_none(make_task: Make) -> None:
    rows = [row("a", prose(1), maker="m2", extra={"book": 1}), row("b", prose(2), maker="m1", extra={"book": 1})]
    (one,), _, _ = made(make_task("synth.a", config("books"), [rows]))
    assert one["maker"] == "m1 + m2"


@pytest.mark.parametrize(
    ("licences", "expected"),
    [
        (["MIT", "MIT"], "MIT"),
        (["MIT", "Apache-2.0"], "Apache-2.0 AND MIT"),
        (["MIT OR GPL-2.0-only", "BSD-3-Clause"], "BSD-3-Clause AND (MIT OR GPL-2.0-only)"),
        (["A AND B", "B", "(C OR D) AND A"], "A AND B AND (C OR D)"),
        (["A AND B OR C", "A"], "A AND (A AND B OR C)"),
        (["A OR B"], "A OR B"),
        (["(GPL-2.0-only OR MIT) AND Apache-2.0", "MIT"], "Apache-2.0 AND (GPL-2.0-only OR MIT) AND MIT"),
        (["MIT", None], None),
        ([], None),
    ],
)
def test_licences_hold_together(licences: list[str | None], expected: str | None) -> None:
    assert joined_licence(licences) == expected


def test_wrong_options_say_what_would_work() -> None:
    with pytest.raises(ValueError, match="needs maximum_tokens"):
        config("books", longer="folders", maximum_tokens=10)
    with pytest.raises(ValueError, match="is below minimum_tokens"):
        config("books", minimum_tokens=20, maximum_tokens=10)
    with pytest.raises(ValueError, match=r"`shelf` is no column(.|\n)*or `extra\.shelf`"):
        config("books", group_keys=("shelf",))


def test_a_key_that_no_document_has_is_named(make_task: Make) -> None:
    rows = [row(f"c{number}", prose(number), extra={"shelf": "a", "page": number}) for number in (1, 2)]
    right = make_task("synth.right", config("books", group_keys=("extra.shelf",), order_keys=("extra.page",)), [rows])
    assert [len(parts_of(one)) for one in made(right)[0]] == [2]
    wrong = make_task("synth.wrong", config("books", group_keys=("extra.shelf",), order_keys=("extra.pgae",)), [rows])
    with pytest.raises(InputError, match=r"order_keys: no document of s has `extra\.pgae`"):
        WORK.shard_count(wrong)


def stdlib_rows() -> list[dict[str, Any]]:
    files = sorted(path for package in PACKAGES for path in (STDLIB / package).rglob("*.py"))
    names = [path.relative_to(STDLIB).as_posix() for path in files]
    return [
        row(name, path.read_text(encoding="utf-8"), title=name, domain="code", license="PSF-2.0")
        for name, path in zip(names, files, strict=True)
        if not is_test(name) and path.stat().st_size
    ]


def absolute_imports(name: str, text: str) -> set[str]:
    """Dotted names that a file imports, read without our own parser; relative ones made absolute."""
    package = name.split("/")[:-1]
    found: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            whole = ".".join([*base, *([node.module] if node.module else [])])
            found |= {f"{whole}.{alias.name}" for alias in node.names} | {whole}
    return found


def test_the_interpreter_s_own_library_in_dependency_order(make_task: Make) -> None:
    """Every module imported by name comes before, except inside cycles; every file is there, byte for byte."""
    rows = stdlib_rows()
    texts = {one["title"]: one["text"] for one in rows}
    by_id = {one["id"]: one["title"] for one in rows}
    task = make_task("synth.long", config("repositories"), [rows[::2], rows[1::2]])
    (document,), dropped, _ = made(task)
    order = [by_id[parent] for parent in document["parents"]]
    assert dropped == []
    assert sorted(order) == sorted(texts)
    assert parts_of(document) == [texts[name] for name in order]
    assert document["text"] == "\n\n".join(f"=== {name} ===\n\n{texts[name]}" for name in order)
    file_of = {name.removesuffix(".py").replace("/", "."): name for name in texts}
    graph = networkx.DiGraph(
        (name, file_of[module])
        for name, text in texts.items()
        for module in absolute_imports(name, text)
        if module in file_of
    )
    assert graph.number_of_edges() > 200
    cycles = {name: number for number, one in enumerate(networkx.strongly_connected_components(graph)) for name in one}
    place = {name: number for number, name in enumerate(order)}
    early = [(a, b) for a, b in graph.edges if cycles[a] != cycles[b] and place[b] > place[a]]
    cyclic = {name for cycle in json.loads(document["extra"])["cycles"] for name in cycle}
    assert [pair for pair in early if not set(pair) <= cyclic] == []
    json_order = [name for name in order if name.startswith("json/")]
    assert json_order == ["json/scanner.py", "json/decoder.py", "json/encoder.py", "json/__init__.py", "json/tool.py"]


def manual_rows() -> list[dict[str, Any]]:
    path = DATA / "docs_parallel.jsonl.zst"
    if not path.is_file():
        pytest.skip("needs the development data (SEODANG_DATA)")
    found: list[dict[str, Any]] = []
    with zstandard.open(path, "rt", encoding="utf-8") as lines:
        for one in map(json.loads, lines):
            if one["source"].startswith("debian:"):
                title = json.loads(one["meta"])["title"]
                columns = {"lang": one["lang"], "url": one["url"], "title": title, "license": one["licence"]}
                found.append(row(one["id"], one["text"], **columns))
    return found


def test_a_real_manual_in_six_languages(make_task: Make) -> None:
    """Debian's installation guide: one document a language, every page once, chapters in order, appendices behind."""
    rows = manual_rows()
    kept, dropped, results = made(make_task("synth.long", config("manuals", minimum_tokens=8192), [rows]))
    assert dropped == []
    assert sorted(one["lang"] for one in kept) == sorted(LANGUAGES)
    assert total(results, "parts_out") == len(rows)
    texts = {one["id"]: one["text"] for one in rows}
    names = {one["id"]: one["url"].rpartition("/")[2] for one in rows}
    for one in kept:
        assert one["text"] == JOINTS["manuals"].join(texts[parent] for parent in one["parents"])
        assert one["license"] == "GPL-2.0-only"
        order = [names[parent] for parent in one["parents"]]
        assert order[0] == "index.html"
        chapters = [name for name in order if name.startswith("ch")]
        assert chapters == sorted(chapters)  # their numbers have two digits


def test_real_long_documents_are_informative() -> None:
    """At least 95 of 100 stay under the default thresholds."""
    path = DATA / "long_docs.parquet"
    if not path.is_file():
        pytest.skip("needs the development data (SEODANG_DATA)")
    import pyarrow.parquet as pq

    from synth.long.information import refusal

    limits = config("books")
    small = [one for one in pq.read_table(path, columns=["text", "lang"]).to_pylist() if len(one["text"]) < 400_000]
    refused = [refusal(measured(one["text"]), one["lang"], limits) for one in small]
    assert len(refused) >= 40
    assert sum(one is not None for one in refused) <= 0.05 * len(refused), refused


def test_lengths_are_streamed_in_the_order_of_the_rows(tmp_path: Path) -> None:
    texts = ["가é𝄞a"[: n % 5] * (n // 7) for n in range(2 * TEXT_BATCH_ROWS + 3)]
    rows = [{"id": str(n), "text_hash": "h", "text": text, "source": "s"} for n, text in enumerate(texts)]
    path = write_documents(tmp_path, 0, table_from_rows(rows))
    assert text_lengths(path) == (list(map(len, texts)), [len(text.encode()) for text in texts])


def test_texts_that_cannot_be_read_are_an_error_naming_the_file(tmp_path: Path) -> None:
    path = write_documents(tmp_path, 0, table_from_rows([{"id": "1", "text_hash": "h", "text": "a", "source": "s"}]))
    pq.write_table(pq.read_table(path).drop_columns(["text"]), tmp_path / "other.parquet")
    with pytest.raises(InputError, match=r"other\.parquet.*missing \['text'\]"):
        text_lengths(tmp_path / "other.parquet")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match=r"00000\.parquet.*not a readable Parquet file"):
        text_lengths(path)
