"""The takedown filter: by id, by parent, by address and by the page's own canonical address, leaving no text behind."""

from __future__ import annotations

import json
from pathlib import Path

from pipeline.core.documents import read_dropped, table_from_rows
from pipeline.core.takedown import Takedown, add_takedowns
from stages.block import verify
from stages.clean_output import opened
from stages.read import ReadBatch
from stages.takedown import TAKEDOWNS, takedown_filters

A, B = "a" * 32, "b" * 32


def entry(kind: str, pattern: str, **more: object) -> Takedown:
    return Takedown.model_validate({"kind": kind, "pattern": pattern, "asked": "2025-05-01", **more})


def test_everything_that_fits_goes_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "list.jsonl"
    add_takedowns(path, [entry("id", A, documents={"web": (A, B)}), entry("domain", "gone.example")])
    add_takedowns(path, [entry("url", "https://e.example/u/*")])
    (block,) = takedown_filters({TAKEDOWNS: (str(path),)})
    cases: list[tuple[dict[str, object], str | None]] = [
        ({"id": A}, A),
        ({"id": B}, B),
        ({"id": "c" * 32, "parents": ["d" * 32, B]}, B),
        ({"id": "d" * 32, "parents": []}, None),
        ({"id": "1" * 32, "url": "https://www.gone.example/x"}, "gone.example"),
        ({"id": "2" * 32, "url": "https://e.example/u/1"}, "https://e.example/u/*"),
        ({"id": "3" * 32, "url": "https://e.example/user"}, None),
        (
            {"id": "4" * 32, "url": "https://m.example", "extra": json.dumps({"canonical_url": "http://gone.example"})},
            "gone.example",
        ),
        ({"id": "5" * 32, "extra": json.dumps({"canonical_url": None, "note": "gone.example"})}, None),
    ]
    table = table_from_rows([{"text_hash": "0", "text": "secret", "source": "web", **columns} for columns, _ in cases])
    result = block.apply(table)
    verify(table, result)
    found = dict(zip(result.dropped_at.tolist(), result.details, strict=True))
    assert [found.get(row) for row in range(len(cases))] == [pattern for _, pattern in cases]
    assert set(result.reasons) == {"compliance.takedown"}
    with opened(tmp_path / "step", 0) as output:
        output.block(output.read(ReadBatch(table)), result)
        output.keep(result.kept)
    (dropped,) = read_dropped(tmp_path / "step")
    assert dropped["text"].to_pylist() == [None] * 6


def test_a_step_without_a_list_has_no_filter() -> None:
    assert takedown_filters({}) == []
