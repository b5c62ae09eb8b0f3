"""`seodang synth` as a person meets it: acceptance of each filter, samples of what was rejected, plain mistakes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

from stores import outputs
from synth.tools.scenario import Scenario
from synth.tools.work import read_environments

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


def test_tool_environments_are_made_shown_and_read_back(command_line: CommandLine, tmp_path: Path) -> None:
    more = (
        "--set",
        f"store={tmp_path / 'store'}",
        "--set",
        "synth.tools={kind: tools, documents: 60, documents_per_shard: 25}",
    )
    done = command_line("synth", "tests/mini.yaml", "tools", "--workers", "2", "--json", *more)
    assert done.returncode == 0, done.stderr
    (shown,) = json.loads(done.stdout).values()
    assert (shown["documents_in"], shown["documents_out"], shown["rejected"]) == (60, 60, {})
    assert [one["reason"] for one in shown["filters"]][:3] == [
        "tools.no_answer", "tools.schema_invalid", "tools.reference_fails",
    ]  # fmt: skip
    assert len(shown["by_language"]) == 6
    assert sum(1 for _ in read_environments(Path(shown["folder"]))) == 60
    single = [part.replace(str(tmp_path / "store"), str(tmp_path / "single")) for part in more]
    assert command_line("synth", "tests/mini.yaml", "tools", "--workers", "1", *single).returncode == 0
    assert outputs(tmp_path / "single") == outputs(tmp_path / "store")
    arguments = ("peek", "tests/mini.yaml", "synth.tools", "--limit", "1", *more)
    assert "[tool] {" in command_line(*arguments).stderr
    (row,) = json.loads(command_line(*arguments, "--table", "environments", "--json").stdout)
    scenario = Scenario.from_json(row["scenario"])
    environment = scenario.environment()
    for call in scenario.calls:
        environment.call(call.name, call.arguments)
    assert environment.passes(scenario.reply).passed


def test_asking_a_model_for_environments_can_be_estimated(command_line: CommandLine, tmp_path: Path) -> None:
    asked = "{kind: tools, documents: 8, source: endpoint, endpoint: replay, samples: 3, judge: {permille: 250}}"
    more = ("--set", f"store={tmp_path / 'store'}", "--set", f"synth.tools={asked}")
    done = command_line("synth", "tests/mini.yaml", "tools", "--estimate", "--json", *more)
    assert done.returncode == 0, done.stderr
    estimated = json.loads(done.stdout)["synth.tools"]
    assert estimated["requests"] == 24
    assert estimated["not_counted"] == ["a judge about 250 of 1,000 samples that pass"]
    assert estimated["prompt_tokens"] > 24 * 500
    unknown = command_line(
        "synth", "tests/mini.yaml", "tools", *more[:2], "--set", f"synth.tools={asked.replace('replay', 'reply')}"
    )
    assert unknown.returncode == 2
    assert "did you mean `replay`" in unknown.stderr
