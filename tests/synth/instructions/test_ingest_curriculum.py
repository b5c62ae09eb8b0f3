"""Ingest sets in a curriculum file: which sources they may name, what follows them, and the command line."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipeline.core.errors import ConfigError
from pipeline.recipe import open_curriculum

TOWNS = "town;people\nUlm;126329\nBonn;330579\nKiel;246243\nJena;110731\n"


def curriculum(folder: Path, **changes: Any) -> Path:
    """The mini curriculum with a table of towns that an `ingest` set maps."""
    data = YAML(typ="safe").load(Path("tests/mini.yaml").read_text(encoding="utf-8"))
    (folder / "towns.csv").write_text(TOWNS, encoding="utf-8")
    data["store"] = str(folder / "store")
    read = {"kind": "csv", "paths": [str(folder / "towns.csv")], "text_key": "town"}
    data["sources"]["towns"] = {"read": read, "card": "samples/cards/articles.yaml", "use": "ingest"} | changes.get(
        "source", {}
    )
    mapping = {"task": "table", "key": "town", "numbers": ["people"], "language": "de", "questions_per_table": 8}
    data["synth"]["towns-asked"] = {"kind": "ingest", "from": changes.get("from_", "towns"), "mapping": mapping}
    if "component" in changes:
        data["mixes"]["foundation"]["components"]["text"]["from"].append(changes["component"])
    path = folder / "curriculum.yaml"
    with path.open("w", encoding="utf-8") as handle:
        YAML().dump(data, handle)
    return path


def test_the_whole_way_through_the_command_line(
    tmp_path: Path, command_line: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = command_line("synth", str(curriculum(tmp_path)), "towns-asked", "--json")
    assert done.returncode == 0, done.stderr
    (shown,) = json.loads(done.stdout).values()
    assert shown["documents_out"] >= 3
    assert {one["reason"] for one in shown["filters"]} >= {"ingest.empty", "ingest.ambiguous", "ingest.duplicate"}
    assert set(shown["by_language"]) == {"de"}


def test_a_source_is_running_text_or_for_ingest_sets(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"`towns` is read as running text(.|\n)*add `use: ingest`"):
        open_curriculum(curriculum(tmp_path, source={"use": "corpus"}), ())
    with pytest.raises(ConfigError, match="unknown source or synthetic set `towns`"):
        open_curriculum(curriculum(tmp_path, component="towns"), ())
    with pytest.raises(ConfigError, match="unknown source `towns`"):
        open_curriculum(curriculum(tmp_path), ["synth.think.from=towns"])
    opened = open_curriculum(curriculum(tmp_path), ())
    node = opened.graph.node("synth.towns-asked")
    assert dict(node.step.inputs) == {"documents": "clean.towns"}
    assert "clean.towns" not in opened.graph.node("split").step.inputs.values()
    guarded = [block.name for block in opened.graph.node("guard.towns-asked").step.config.blocks]
    assert guarded == ["pii", "decontaminate"]


def test_without_running_text_a_set_made_from_documents_says_what_is_missing(tmp_path: Path) -> None:
    path = curriculum(tmp_path)
    data = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    data["sources"] = {"towns": data["sources"]["towns"]}
    with path.open("w", encoding="utf-8") as handle:
        YAML().dump(data, handle)
    with pytest.raises(ConfigError, match=r"every source has `use: ingest`(.|\n)*add a source of running text"):
        open_curriculum(path, ())
