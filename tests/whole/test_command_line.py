"""The command line as a person meets it: help, exit codes, messages, JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[2]
CommandLine = Callable[..., subprocess.CompletedProcess[str]]
HEAVY = ("torch", "datatrove", "polars", "pyarrow", "transformers", "trafilatura", "numba")


def edited(folder: Path, change: str) -> Path:
    """tests/mini.yaml with one line of Python applied to its tree `c`."""
    yaml = YAML(typ="rt", pure=True)
    tree = yaml.load((ROOT / "tests" / "mini.yaml").read_text(encoding="utf-8"))
    tree["store"] = str(folder / "store")
    exec(change, {"c": tree})
    path = folder / "c.yaml"
    with path.open("w", encoding="utf-8") as handle:
        yaml.dump(tree, handle)
    return path


def test_help_starts_without_the_heavy_libraries() -> None:
    code = f"import sys, pipeline.cli; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "verb",
    [
        "plan",
        "run",
        "status",
        "cancel",
        "why",
        "peek",
        "synth",
        "stats",
        "report",
        "train",
        "eval",
        "generate",
        "export",
        "takedown",
        "doctor",
    ],
)
def test_every_verb_has_help_with_an_example(command_line: CommandLine, verb: str) -> None:
    done = command_line(verb, "--help")
    assert done.returncode == 0
    assert f"Example: seodang {verb}" in done.stdout


MISTAKES = [
    ("c['phases'][0]['learning_rat'] = {}", "unknown key `learning_rat` in phases.0", "did you mean `learning_rate`?"),
    (
        "c['sources']['web']['read']['paths'] = ['nowhere/*.warc.gz']",
        "no file matches `nowhere/*.warc.gz`",
        "check the path",
    ),
    (
        "c['sources']['web']['card'] = 'nowhere.yaml'",
        "source `web` has no card: no file `nowhere.yaml`",
        "samples/cards",
    ),
    ("c['phases'][1]['mix'] = 'longr'", "unknown mix `longr`", "did you mean `longer`?"),
    (
        "c['mixes']['longer']['components']['long']['from'] = ['bokks']",
        "unknown source or synthetic set `bokks`",
        "known:",
    ),
    ("c['clean'][3] = {'ruls': {}}", "unknown block `ruls`", "did you mean `rules`?"),
    (
        "c['phases'][1]['context_tokens'] = 8192; c['phases'][1]['budget_tokens'] = 10**6",
        "the model takes 4096",
        "model.max_context_tokens",
    ),
    ("c['phases'][0]['budget_tokens'] = 10", "budget_tokens", "640"),
    ("c['synth']['think']['endpoint'] = 'nowhere'", "unknown endpoint `nowhere`", "replay"),
    ("c['post'] = [{'kind': 'sft'}]", "post", "at most 0 items"),
    ("c['store'] = 's3://bucket/store'", "the store is a local or mounted folder", "store"),
    ("c['name'] = 7", "name: Input should be a valid string", "c.yaml:"),
]


@pytest.mark.parametrize(("change", "what", "fix"), MISTAKES, ids=[m[1] for m in MISTAKES])
def test_a_mistake_exits_2_says_what_where_and_what_works_and_writes_nothing(
    command_line: CommandLine, tmp_path: Path, change: str, what: str, fix: str
) -> None:
    config = edited(tmp_path, change)
    done = command_line("plan", str(config))
    assert done.returncode == 2, done.stderr
    assert what in done.stderr
    assert fix in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "store").glob("*-*"))


def test_plan_prints_json_on_stdout_only(command_line: CommandLine, tmp_path: Path) -> None:
    config = edited(tmp_path, "pass")
    done = command_line("plan", str(config), "--json")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert [phase["steps"] for phase in plan["phases"]] == [10, 5]
    assert plan["steps"][0]["name"] == "clean.web"
    assert {group["group"] for group in plan["model"]["groups"]} == {"muon", "adamw-decayed", "adamw-undecayed"}
    for launch, phase in zip(plan["launch"], plan["phases"], strict=True):
        assert (launch["name"], launch["processes"]) == (phase["name"], 1)
        assert 0 < launch["memory"]["weights"] < launch["memory_bytes"]
        assert launch["step_flops"] > 0
        assert launch["days"] == pytest.approx(phase["tokens"] / launch["tokens_per_second"] / 86_400, rel=0.2)


def test_training_that_does_not_fit_is_refused_before_anything_is_made(
    command_line: CommandLine, tmp_path: Path
) -> None:
    config = edited(tmp_path, "c['training'] = {'memory_gib': 0.01}")
    done = command_line("train", str(config))
    assert done.returncode == 2, done.stderr
    assert "GiB a process, training.memory_gib is 0.01" in done.stderr
    assert "hint: " in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "store").glob("*-*"))


def test_an_untrained_phase_is_named(command_line: CommandLine, tmp_path: Path) -> None:
    done = command_line("export", str(edited(tmp_path, "pass")))
    assert done.returncode == 2
    assert "phase `extend` is not trained" in done.stderr
    assert "seodang train" in done.stderr
