"""CSV sources: the delimiter of the header, legacy encodings, quoted line breaks, broken rows named and counted."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from pipeline.core.documents import document_id
from stages.config import ReadConfig
from stages.read import read_parts
from stages.rows import Origin
from stages.sources import expand_paths, shard_parts

ORIGIN = Origin("towns", "CC-BY-4.0", "general", None)


def run(path: Path, **options: str) -> tuple[list[dict], list[dict]]:
    read = ReadConfig.model_validate({"kind": "csv", "paths": (str(path),), "text_key": "name", **options})
    documents, dropped = [], []
    for parts in shard_parts(expand_paths(read, Path()), read.kind, 10):
        for batch in read_parts(parts, read.replaced(paths=()), ORIGIN):
            documents += batch.documents.to_pylist()
            dropped += batch.dropped
    return documents, dropped


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_the_delimiter_is_the_headers(tmp_path: Path, mark: str) -> None:
    path = tmp_path / "towns.csv"
    path.write_text(f"id{mark}name{mark}people\nt1{mark}Ulm{mark}126\n{mark}Bonn{mark}\n", encoding="utf-8")
    (first, second), dropped = run(path)
    assert (first["id"], first["text"], json.loads(first["extra"])) == (
        document_id("towns", "t1"),
        "Ulm",
        {"people": "126"},
    )
    assert json.loads(second["extra"]) == {"people": ""}
    assert dropped == []


def test_quoted_fields_and_compressed_files(tmp_path: Path) -> None:
    path = tmp_path / "towns.csv.gz"
    path.write_bytes(gzip.compress('\ufeffname,note\nUlm,"two\nlines, ""quoted"""\n'.encode()))
    ((only,), dropped) = run(path)
    assert json.loads(only["extra"]) == {"note": 'two\nlines, "quoted"'}
    assert dropped == []


def test_legacy_encodings_are_named_and_set(tmp_path: Path) -> None:
    path = tmp_path / "towns.csv"
    path.write_bytes("name,note\n서울,수도\n".encode("cp949"))
    documents, (fault,) = run(path)
    assert documents == []
    assert fault["reason"] == "read.unknown_charset"
    assert "set `read.charset`" in fault["detail"]
    for label in ("cp949", "EUC-KR"):  # labels mean what they mean on the web
        ((only,), _) = run(path, charset=label)
        assert only["text"] == "서울"
    for label in ("cp994", "", "hex"):
        with pytest.raises(ValueError, match="no character encoding is called"):
            run(path, charset=label)


def test_broken_rows_are_named(tmp_path: Path) -> None:
    path = tmp_path / "towns.csv"
    path.write_text("name,note\nUlm\n\nBonn,a,b\nKöln,c\n", encoding="utf-8")
    ((only,), dropped) = run(path)
    assert only["text"] == "Köln"
    assert [(row["reason"], row["detail"]) for row in dropped] == [
        ("read.bad_record", "towns.csv:2: 1 fields, the header names 2"),
        ("read.bad_record", "towns.csv:4: 3 fields, the header names 2"),
    ]
    (tmp_path / "empty.csv").write_text("", encoding="utf-8")
    assert run(tmp_path / "empty.csv") == ([], [])


def test_a_wrong_text_column_names_the_columns(tmp_path: Path) -> None:
    path = tmp_path / "towns.csv"
    path.write_text("name,note\nUlm,a\n", encoding="utf-8")
    documents, (fault,) = run(path, text_key="nam")
    assert documents == []
    assert "no text field `nam`; fields: name, note" in fault["detail"]
