"""A finished quickstart run held against `samples/expected.json`: every sample document has met its stated fate.

`quickstart_store` is the store of `configs/quickstart.yaml`, run as far as its split step. The documents that reached
training or evaluation are those of its split step; what was dropped on the way is in the steps before it.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.documents import document_id, read_documents, read_dropped
from pipeline.core.record import read_record
from stages.split import heldout_documents

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
SOURCES = ("web", "articles", "notes", "forbidden")
Row = dict[str, Any]


@dataclass(frozen=True)
class Outcomes:
    """What came of each document: kept rows by id and URL; dropped rows by id, URL and place."""

    kept: dict[tuple[str, str], Row]
    dropped: dict[tuple[str, str], Row]

    def of(self, source: str, key: str) -> tuple[Row | None, Row | None]:
        """(kept row, dropped row) of an entry of expected.json."""
        names = ((source, key), (source, document_id(source, key)))
        kept = next((self.kept[name] for name in names if name in self.kept), None)
        return kept, next((self.dropped[name] for name in names if name in self.dropped), None)


def _cleaning_folders(store: Path) -> tuple[Path, list[Path]]:
    """The split step's folder, and the folders of the steps it was made from, by their fingerprints."""
    records = sorted(store.glob("split-*/record.json"), key=lambda path: path.stat().st_mtime_ns)
    assert records, f"no finished split step in {store}"
    split = records[-1].parent
    found, waiting = [], [split]
    while waiting:
        for fingerprint in read_record(waiting.pop()).inputs.values():
            (folder,) = store.glob(f"*-{fingerprint[:8]}")
            if folder not in found:
                found.append(folder)
                waiting.append(folder)
    return split, found


@pytest.fixture(scope="module")
def outcomes(quickstart_store: Path) -> Outcomes:
    split, before = _cleaning_folders(quickstart_store)
    kept: dict[tuple[str, str], Row] = {}
    dropped: dict[tuple[str, str], Row] = {}
    for table in (*read_documents(split), heldout_documents(split)):
        for row in table.to_pylist():
            kept |= {(row["source"], name): row for name in (row["id"], row["url"]) if name}
    for folder in before:
        for table in read_dropped(folder):
            for row in table.to_pylist():
                place = (row["detail"] or "").split(": ")[0]
                dropped |= {(row["source"], name): row for name in (row["id"], row["url"], place) if name}
    return Outcomes(kept, dropped)


@pytest.fixture(scope="module")
def expected() -> dict[str, dict[str, Any]]:
    return json.loads((SAMPLES / "expected.json").read_text(encoding="utf-8"))["sources"]


def _problem(key: str, entry: dict[str, Any], kept: Row | None, dropped: Row | None) -> str:
    """What differs from the entry, in words; empty when nothing does."""
    if (kept is None) == (dropped is None):
        return f"{key}: {'lost without a trace' if kept is None else 'kept and dropped'}"
    if dropped is not None:
        said = f"{dropped['reason']} ({dropped['detail']})"
        if entry["outcome"] == "kept" and "group" not in entry:
            return f"{key}: dropped by {said}; should be kept: {entry['why']}"
        if not any(fnmatch(dropped["reason"], pattern) for pattern in entry["reasons"]):
            return f"{key}: dropped by {said}; should be one of {entry['reasons']}: {entry['why']}"
        return ""
    assert kept is not None
    if entry["outcome"] == "dropped":
        return f"{key}: kept; should be dropped by one of {entry['reasons']}: {entry['why']}"
    if kept["lang"] != entry["lang"]:
        return f"{key}: language {kept['lang']} ({kept['lang_score']}); should be {entry['lang']}"
    missing = [part for part in entry.get("contains", ()) if part not in kept["text"]]
    left = [part for part in entry.get("lacks", ()) if part in kept["text"]]
    return f"{key}: text misses {missing}, still has {left}" if missing or left else ""


@pytest.mark.parametrize("source", SOURCES)
def test_every_sample_met_its_fate(outcomes: Outcomes, expected: dict[str, dict[str, Any]], source: str) -> None:
    problems = [_problem(key, entry, *outcomes.of(source, key)) for key, entry in sorted(expected[source].items())]
    assert not any(problems), "\n".join(filter(None, problems))


def test_exactly_one_of_each_group_is_kept(outcomes: Outcomes, expected: dict[str, dict[str, Any]]) -> None:
    survivors: dict[str, list[str]] = defaultdict(list)
    for source, entries in expected.items():
        for key, entry in entries.items():
            if "group" in entry:
                survivors[entry["group"]] += [key] if outcomes.of(source, key)[0] is not None else []
    assert survivors
    assert all(len(keys) == 1 for keys in survivors.values()), dict(survivors)


def test_nothing_came_from_nowhere(outcomes: Outcomes, expected: dict[str, dict[str, Any]]) -> None:
    seen = {row["id"]: row for row in (*outcomes.kept.values(), *outcomes.dropped.values()) if row["source"] in SOURCES}
    assert len(seen) == sum(len(entries) for entries in expected.values())
