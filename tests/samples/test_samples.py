"""The bundled samples: enough of them, built as committed, and every document with a stated fate."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
import unicodedata
import zlib
from collections import defaultdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from ruamel.yaml import YAML
from warcio.archiveiterator import ArchiveIterator

from pipeline.core.provenance import load_card

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
LANGUAGES = ("ko", "en", "es", "de", "ja", "vi")
PARALLEL = {"parallel-water-cycle", "parallel-bicycle-repair", "parallel-library-rules", "parallel-compound-interest"}
BUILT = (
    *(f"web/{name}.warc.gz" for name in (*LANGUAGES, "bad", "truncated")),
    "articles/articles.jsonl.gz",
    "notes/notes.parquet",
    "forbidden/forbidden.jsonl.gz",
    "expected.json",
)


def _build(into: Path) -> Path:
    command = [sys.executable, str(SAMPLES / "build.py"), "--into", str(into)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return into


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _build(tmp_path_factory.mktemp("rebuilt"))


@pytest.fixture(scope="module")
def expected() -> dict[str, dict[str, Any]]:
    return json.loads((SAMPLES / "expected.json").read_text(encoding="utf-8"))["sources"]


def _members(data: bytes) -> list[bytes]:
    """The content of each whole gzip member, and of a cut one as far as it goes, without its unreliable end."""
    contents = []
    while data:
        engine = zlib.decompressobj(31)
        content = engine.decompress(data)
        contents.append(content if engine.eof else content[:100])
        data = engine.unused_data
    return contents


def _content(path: Path) -> Any:
    """What a built file says, whatever compressor or Parquet writer wrote it."""
    if path.suffix == ".gz":
        return _members(path.read_bytes())
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pydict()
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", BUILT)
def test_committed_files_are_what_the_texts_give(rebuilt: Path, name: str) -> None:
    assert _content(rebuilt / name) == _content(SAMPLES / name), "run `python samples/build.py`"


def test_building_twice_gives_the_same_bytes(rebuilt: Path, tmp_path: Path) -> None:
    again = _build(tmp_path)
    assert {p.relative_to(again).as_posix() for p in again.rglob("*") if p.is_file()} == set(BUILT)
    for name in BUILT:
        assert (again / name).read_bytes() == (rebuilt / name).read_bytes(), name


def _front(path: Path) -> tuple[dict[str, Any], str]:
    _, front, body = path.read_text(encoding="utf-8").split("---\n", 2)
    return YAML(typ="safe", pure=True).load(front), body.strip()


@pytest.mark.parametrize("lang", LANGUAGES)
def test_each_language_has_its_documents(lang: str) -> None:
    paths = sorted((SAMPLES / "texts" / lang).glob("*.md"))
    texts = {path.stem: _front(path) for path in paths}
    assert len(texts) >= 12
    assert set(texts) >= PARALLEL
    for slug, (front, body) in texts.items():
        size = len(body.encode())
        assert 1000 <= size <= 6144, f"{lang}/{slug}: {size} bytes"
        assert unicodedata.is_normalized("NFC", body), slug
        assert front["parallel"] == (slug if slug in PARALLEL else "none"), slug
    assert {front["carrier"] for front, _ in texts.values()} == {"web", "jsonl", "parquet"}
    assert len({front["domain"] for front, _ in texts.values()}) >= 6
    assert len({front["register"] for front, _ in texts.values()}) >= 5


@pytest.mark.parametrize("slug", sorted(PARALLEL))
def test_translations_have_the_same_structure(slug: str) -> None:
    shapes = {}
    for lang in LANGUAGES:
        _, body = _front(SAMPLES / "texts" / lang / f"{slug}.md")
        shapes[lang] = [block.split(" ")[0] if block[:2] in ("##", "- ", "$$") else "p" for block in body.split("\n\n")]
    assert all(shape == shapes["en"] for shape in shapes.values()), shapes


def _records() -> dict[str, list[str]]:
    """Keys of everything in the built files: response URLs, record ids, places of what cannot be read."""
    keys: dict[str, list[str]] = defaultdict(list)
    for path in sorted((SAMPLES / "web").glob("*.warc.gz")):
        data, offset = path.read_bytes(), 0
        while offset < len(data):
            engine = zlib.decompressobj(31)
            member = engine.decompress(data[offset:])
            if not engine.eof:
                keys["web"].append(f"{path.name}@{offset}")
                break
            for record in ArchiveIterator(io.BytesIO(member)):
                if record.rec_type == "response":
                    keys["web"].append(record.rec_headers.get_header("WARC-Target-URI"))
            offset = len(data) - len(engine.unused_data)
    for source, name in (("articles", "articles.jsonl.gz"), ("forbidden", "forbidden.jsonl.gz")):
        offset = 0
        for line in gzip.decompress((SAMPLES / source / name).read_bytes()).splitlines(keepends=True):
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                record = {}
            keys[source].append(record["id"] if "text" in record else f"{name}@{offset}")
            offset += len(line)
    keys["notes"] = pq.read_table(SAMPLES / "notes" / "notes.parquet")["id"].to_pylist()
    return keys


def test_every_document_has_an_expected_outcome(expected: dict[str, dict[str, Any]]) -> None:
    keys = _records()
    assert {source: sorted(found) for source, found in keys.items()} == {
        source: sorted(entries) for source, entries in expected.items()
    }


def test_every_good_text_is_expected_to_be_kept(expected: dict[str, dict[str, Any]]) -> None:
    kept = sum(entry["outcome"] == "kept" for entries in expected.values() for entry in entries.values())
    texts = len(list((SAMPLES / "texts").glob("*/*.md")))
    cut, copies, repaired = 1, 3, 7  # one lies in the cut member; copies count in groups; bad pages that can be saved
    assert kept == texts - cut + copies + repaired


def test_expectations_are_well_formed(expected: dict[str, dict[str, Any]]) -> None:
    groups: dict[str, int] = defaultdict(int)
    for entries in expected.values():
        for key, entry in entries.items():
            assert entry["outcome"] in ("kept", "dropped"), key
            assert len(entry["why"]) > 8, key
            assert (entry["outcome"] == "kept") == ("lang" in entry), key
            assert entry["outcome"] == "kept" or entry["reasons"], key
            if "group" in entry:
                groups[entry["group"]] += 1
    assert groups == {"exact-copy-en": 2, "near-copy-en": 2, "near-copy-ko": 2}


def test_no_invented_number_belongs_to_a_real_person() -> None:
    _, body = _front(SAMPLES / "bad" / "pii-ko.md")
    digits = [int(char) for char in "9912313123455"]
    weights = (2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5)
    check = (11 - sum(d * w for d, w in zip(digits, weights, strict=False)) % 11) % 10
    assert check == digits[-1], "the number must look valid, or nothing would mask it"
    assert "991231-3123455" in body  # the seventh digit 3 makes it a birth in 2099


def test_cards_are_complete() -> None:
    cards = {path.stem: load_card(path) for path in sorted((SAMPLES / "cards").glob("*.yaml"))}
    assert set(cards) == {"articles", "forbidden", "notes", "python-stdlib", "web"}
    assert [name for name, card in cards.items() if card.review_training != "approved"] == ["forbidden"]


def test_benchmark_questions_are_not_in_the_texts() -> None:
    questions = [
        json.loads(line)
        for path in sorted((SAMPLES / "benchmarks").glob("*.jsonl"))
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    assert len({one["id"] for one in questions}) == len(questions) >= 20
    assert {one["lang"] for one in questions} == set(LANGUAGES)
    texts = "\n".join(path.read_text(encoding="utf-8") for path in sorted((SAMPLES / "texts").glob("*/*.md")))
    for one in questions:
        assert one["question"][:30] not in texts, one["id"]
