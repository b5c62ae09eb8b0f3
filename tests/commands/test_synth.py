"""`seodang synth` as a person meets it: acceptance of each filter, samples of what was rejected, plain mistakes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

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


PAID = """
name: paid
store: {store}
sources:
  articles:
    read: {{kind: jsonl, paths: ["samples/articles/*.jsonl.gz"], domain_key: domain}}
    card: samples/cards/articles.yaml
clean: [{{normalise: {{}}}}, {{language: {{keep: [ko, en, es, de, ja, vi]}}}}]
endpoints:
  replay: {{responses: samples/responses.jsonl}}
  free: {{url: "http://y/v1", model: f}}
  dear:
    url: "http://x/v1"
    model: d
    price: {{prompt_per_million_tokens: 2, completion_per_million_tokens: 10, currency: EUR}}
    budget: {{money: 0.5}}
synth:
  reason: {{kind: reasoning, documents: 20}}
  pairs: {{kind: crosslingual, from: articles}}
  think: {{kind: thinking, from: articles, endpoint: replay}}
  tools:
    {{kind: tools, documents: 8, source: endpoint, endpoint: dear, samples: 3, max_tokens: 1000,
      judge: {{permille: 1000}}}}
  graded: {{kind: tools, documents: 8, endpoint: dear, judge: {{permille: 1000}}}}
  search: {{kind: search, from: articles, questions: 8, agent: endpoint, endpoint: free, maximum_steps: 10}}
tokenizer: {{train: {{vocabulary: 1024}}}}
mixes: {{all: {{components: {{text: {{from: [articles], weight: 1}}}}}}}}
phases:
  - {{name: p, mix: all, context_tokens: 64, budget_tokens: 640, rows_per_batch: 10, learning_rate: {{peak: 1e-3}}}}
"""


def test_every_set_is_in_the_estimate_with_its_judge_or_says_why_not(command_line: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "paid.yaml"
    path.write_text(PAID.format(store=tmp_path / "store"))
    done = command_line("synth", str(path), "--estimate", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    sets = told["sets"]
    assert set(sets) == {"synth.think", "synth.tools", "synth.graded", "synth.search"}
    assert set(told["asks_nothing"]) == {"synth.reason", "synth.pairs"}
    assert {name: set(one["parts"]) for name, one in sets.items()} == {
        "synth.think": {"answers"}, "synth.tools": {"answers", "judge"}, "synth.graded": {"judge"},
        "synth.search": {"agent"},
    }  # fmt: skip
    answers, judge = sets["synth.tools"]["parts"]["answers"], sets["synth.tools"]["parts"]["judge"]
    assert (answers["requests_at_most"], answers["completion_tokens_at_most"]) == (24, 24_000)
    assert answers["prompt_tokens_at_most"] > 24 * 500
    assert (judge["requests_at_most"], judge["completion_tokens_at_most"]) == (8, 8 * 2048)
    assert judge["money_at_most"] == pytest.approx((judge["prompt_tokens_at_most"] * 2 + 8 * 2048 * 10) / 1e6)
    assert sets["synth.graded"]["total"]["requests_at_most"] == 8
    agent = sets["synth.search"]["parts"]["agent"]
    assert (agent["requests_at_most"], agent["completion_tokens_at_most"]) == (80, 80 * 4096)
    assert 0 < agent["prompt_tokens_expected"] < agent["prompt_tokens_at_most"]
    assert 0 < agent["completion_tokens_expected"] < agent["completion_tokens_at_most"]
    assert (agent["money_at_most"], sets["synth.think"]["total"]["money_at_most"]) == (None, None)
    dear = told["endpoints"]["dear"]
    assert set(told["endpoints"]) == {"dear", "free", "replay"}
    assert dear["requests_at_most"] == 24 + 8 + 8
    both = sets["synth.tools"]["total"]["money_at_most"] + sets["synth.graded"]["total"]["money_at_most"]
    assert told["money"] == {"EUR": {"at_most": pytest.approx(both), "expected": None}}
    assert dear["money_at_most"] == told["money"]["EUR"]["at_most"]
    budget, search = (next(one for one in told["remarks"] if one.startswith(name)) for name in ("synth.t", "synth.s"))
    assert "may reach the budget of `endpoints.dear` (0.50 EUR)" in budget
    assert "at most is every question at its last step" in search
    assert command_line("synth", str(path), "think").returncode == 0
    shown = " ".join(command_line("synth", str(path), "--estimate").stderr.split())
    assert "All together at most" in shown
    assert "`endpoints.free` is not in the money: it has no price" in shown
    assert "synth.reason asks nothing: our own code makes it" in shown
    assert "synth.think asks nothing: it is made already" in shown
    unknown = command_line("synth", str(path), "tools", "--estimate", "--set", "synth.tools.endpoint=deer")
    assert unknown.returncode == 2
    assert "did you mean `dear`" in unknown.stderr
