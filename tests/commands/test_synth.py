"""`seodang synth` as a person meets it: acceptance of each filter, samples of what was rejected, plain mistakes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

CommandLine = Callable[..., subprocess.CompletedProcess[str]]


def test_a_set_is_made_and_its_filters_are_shown(command_line: CommandLine, tmp_path: Path) -> None:
    store = ("--set", f"store={tmp_path / 'store'}", "--set", "synth.reason.families=[committee]")
    small = ("--set", "synth.reason.documents=3000", "--set", "synth.reason.maximum_level=1")
    done = command_line("synth", "tests/mini.yaml", "reason", "--json", "--examples", "1", *store, *small)
    assert done.returncode == 0, done.stderr
    (shown,) = json.loads(done.stdout).values()
    filters = {one["reason"]: one for one in shown["filters"]}
    assert list(filters)[-2:] == ["reasoning.duplicate", "guard.duplicate"]
    duplicates, across = filters["reasoning.duplicate"], filters["guard.duplicate"]
    assert (duplicates["reached"], shown["documents_in"]) == (3000, 3000)
    assert across["reached"] == 3000 - duplicates["dropped"] < 3000
    assert shown["documents_out"] == across["reached"] - across["dropped"] < across["reached"]  # over two shards
    (rejected,) = shown["rejected"]["reasoning.duplicate"]
    assert rejected["detail"] == "the same problem stands earlier in the shard"
    (copy,) = shown["rejected"]["guard.duplicate"]
    assert copy["detail"] != copy["id"]  # the sample that stays
    again = command_line("synth", "tests/mini.yaml", "reason", *store, *small)
    assert again.returncode == 0
    assert "already there" in again.stderr
    assert "reasoning.duplicate" in again.stderr


def test_mistakes_are_named(command_line: CommandLine, tmp_path: Path) -> None:
    store = ("--set", f"store={tmp_path / 'store'}")
    unknown = command_line("synth", "tests/mini.yaml", "raeson", *store)
    assert unknown.returncode == 2
    assert "did you mean `reason`" in unknown.stderr
    free = command_line("synth", "tests/mini.yaml", "reason", "--estimate", *store)
    assert free.returncode == 2
    assert "no such set asks an endpoint" in free.stderr
