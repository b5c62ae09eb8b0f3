"""Where documents lie, on small stores made by hand: generations of children, canonical addresses, answers of models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.documents import DROPPED_SCHEMA, table_from_rows, write_documents, write_dropped
from pipeline.core.takedown import Kind, Takedown
from pipeline.report.whereabouts import ranges, whereabouts

A, B, C, D, OTHER = ("a" * 32, "b" * 32, "c" * 32, "d" * 32, "e" * 32)


def row(identity: str, **columns: Any) -> dict[str, Any]:
    return {"id": identity, "text_hash": "0", "text": "x", "source": "web", **columns}


def asked(kind: Kind, pattern: str) -> Takedown:
    return Takedown(kind=kind, pattern=pattern, asked="2025-05-01")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    rows = [row(OTHER, url="https://e.example/other"), row(A, url="https://e.example/a")]
    write_documents(tmp_path / "clean.web-1", 0, table_from_rows(rows))
    # A child before its parent's table is read, a grandchild, and a stranger with another parent.
    write_documents(tmp_path / "a.synth-1", 0, table_from_rows([row(C, source="second", parents=[OTHER, B])]))
    write_documents(tmp_path / "synth.first-1", 0, table_from_rows([row(B, source="first", parents=[A])]))
    write_documents(tmp_path / "synth.first-1", 1, table_from_rows([row("f" * 32, source="first", parents=[OTHER])]))
    gone = {"id": D, "source": "web", "reason": "dedup.exact", "url": "https://e.example/d"}
    write_dropped(tmp_path / "unfinished-1", 0, table_from_rows([gone], DROPPED_SCHEMA))
    (tmp_path / "responses").mkdir()
    lines = [{"document": f"web {name} title"} for name in (OTHER, A)]
    (tmp_path / "responses" / "w.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines) + '{"cut')
    return tmp_path


def test_children_of_children_are_found_whatever_order_tables_stand_in(store: Path) -> None:
    found = whereabouts(store, asked("id", A))
    assert {one.id: one.made_from for one in found.documents} == {A: (), B: (A,), C: (B,)}
    assert [(one.folder, one.table, one.rows, one.ids) for one in found.holdings] == [
        ("a.synth-1", "documents", (0,), (C,)),
        ("clean.web-1", "documents", (1,), (A,)),
        ("synth.first-1", "documents", (0,), (B,)),
        ("responses", "responses", (1,), (A,)),
    ]
    assert found.folders == ("a.synth-1", "clean.web-1", "responses", "synth.first-1")


def test_dropped_documents_of_unfinished_steps_are_found_by_address(store: Path) -> None:
    found = whereabouts(store, asked("url", "http://E.example/d/"))
    assert [(one.id, one.url) for one in found.documents] == [(D, "https://e.example/d")]
    assert [(one.folder, one.table) for one in found.holdings] == [("unfinished-1", "dropped")]
    assert {one.id for one in whereabouts(store, asked("domain", "e.example")).documents} >= {A, OTHER, D}


def test_a_page_is_found_by_its_canonical_address(tmp_path: Path) -> None:
    mirror = row(A, url="https://mirror.example/1", extra=json.dumps({"canonical_url": "https://own.example/x"}))
    write_documents(tmp_path / "clean.web-1", 0, table_from_rows([mirror, row(B, url=None, extra="{}")]))
    assert [one.id for one in whereabouts(tmp_path, asked("url", "https://own.example/x")).documents] == [A]


def test_nothing_found_is_nothing(store: Path) -> None:
    found = whereabouts(store, asked("domain", "nobody.example"))
    assert (found.documents, found.holdings, found.folders) == ((), (), ())


def test_runs_of_numbers() -> None:
    assert ranges([3, 1, 2, 7, 9, 8, 8]) == [(1, 3), (7, 9)]
    assert ranges([]) == []
