"""The whole way at its smallest: what a finished run holds, what the commands say of it, and what cannot change it."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from pipeline.core.files import list_files
from pipeline.core.plans import read_plan
from pipeline.core.record import read_record
from pipeline.core.runlog import read_lines
from stores import outputs

CommandLine = Callable[..., subprocess.CompletedProcess[str]]


def only(store: Path, pattern: str) -> Path:
    (found,) = store.glob(pattern)
    return found


def test_a_second_run_makes_nothing(mini_store: Path, command_line: CommandLine) -> None:
    before = {path: path.stat().st_mtime_ns for path in list_files(mini_store) if path.name != ".lock"}
    done = command_line("train", "tests/mini.yaml", "--set", f"store={mini_store}")
    assert done.returncode == 0, done.stderr
    assert "already there" in done.stderr
    assert {path: path.stat().st_mtime_ns for path in list_files(mini_store) if path.name != ".lock"} == before


def test_workers_change_no_byte(mini_store: Path, tmp_path: Path, command_line: CommandLine) -> None:
    done = command_line("run", "tests/mini.yaml", "--workers", "3", "--set", f"store={tmp_path}")
    assert done.returncode == 0, done.stderr
    theirs = outputs(mini_store)
    ours = outputs(tmp_path)
    assert len(ours) > 50
    assert {name: ours[name] for name in ours if name in theirs} == {
        name: theirs[name] for name in ours if name in theirs
    }
    assert {name for name in ours if name not in theirs} == set()


def test_every_step_accounts_for_every_document(mini_store: Path) -> None:
    checked = 0
    for path in mini_store.glob("*/record.json"):
        record = read_record(path.parent)
        if "documents_in" in record.counts:
            split = record.counts.get("documents_split", 0)
            dropped = sum(record.dropped.values())
            assert record.counts["documents_in"] + split == record.counts["documents_out"] + dropped, record.step
            checked += 1
    assert checked >= 15


def test_every_planned_token_was_trained_on(mini_store: Path) -> None:
    for name in ("pretrain", "extend"):
        folder = only(mini_store, f"train.{name}-*")
        mixes = read_record(folder).facts["mix_folders"]
        plan = read_plan(mini_store, mini_store / mixes[-1])
        own = [segment for segment in plan.segments if segment.folder in mixes]
        lines = list(read_lines(folder / "train.jsonl"))
        assert sum(line["tokens"] for line in lines) == sum(segment.tokens for segment in own)
        assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))


def test_a_red_gate_lengthens_the_plan_and_the_curriculum_goes_on(mini_store: Path) -> None:
    folder = only(mini_store, "train.extend-*")
    facts = read_record(folder).facts
    gates = [json.loads((folder / f"gate-{k}.json").read_text()) for k in range(len(facts["green"]))]
    assert [gate["green"] for gate in gates] == facts["green"]
    if not gates[0]["green"]:
        assert len(facts["mix_folders"]) == 2
        assert gates[0]["reasons"]


def test_the_forbidden_source_reaches_no_mix(mini_store: Path) -> None:
    folder = only(mini_store, "clean.forbidden-*")
    record = read_record(folder)
    assert record.dropped == {"compliance.training_refused": 3}
    for path in mini_store.glob("mix.*/segments.json"):
        assert "forbidden" not in path.read_text()


def test_stats_show_each_phase(mini_store: Path, command_line: CommandLine) -> None:
    done = command_line("stats", "tests/mini.yaml", "--json", "--set", f"store={mini_store}")
    assert done.returncode == 0, done.stderr
    stats = json.loads(done.stdout)
    assert {"pretrain", "extend"} <= set(stats)  # and the segments that a red gate appended
    assert done.stderr == ""
    shown = command_line("stats", "tests/mini.yaml", "extend", "--set", f"store={mini_store}")
    assert "rehearsal" in shown.stderr


def test_peek_shows_dropped_documents_with_their_reason(mini_store: Path, command_line: CommandLine) -> None:
    arguments = ("peek", "tests/mini.yaml", "clean.web", "--set", f"store={mini_store}")
    done = command_line(*arguments, "--dropped", "compliance.opt_out", "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert {row["reason"] for row in rows} == {"compliance.opt_out"}
    assert all(row["text"] for row in rows)
    wrong = command_line(*arguments, "--dropped", "compliance.opt_ou")
    assert wrong.returncode == 2
    assert "did you mean `compliance.opt_out`?" in wrong.stderr
    wrong = command_line(*arguments, "--where", "langg = 'ko'")
    assert wrong.returncode == 2
    assert "columns:" in wrong.stderr


def test_why_names_the_option_that_changed(mini_store: Path, command_line: CommandLine) -> None:
    changed = ("--set", f"store={mini_store}", "--set", "split.heldout_permille=90")
    done = command_line("why", "tests/mini.yaml", "split", *changed)
    assert done.stdout.splitlines() == ["config.heldout_permille: 100 → 90"]
    done = command_line("why", "tests/mini.yaml", "tokenizer", *changed)
    assert done.stdout.startswith("inputs.counts: ")


def test_status_generate_and_eval_answer(mini_store: Path, command_line: CommandLine) -> None:
    status = json.loads(command_line("status", "tests/mini.yaml", "--json", "--set", f"store={mini_store}").stdout)
    assert {row["state"] for row in status} == {"finished"}
    text = command_line("generate", "tests/mini.yaml", "The river", "--tokens", "5", "--set", f"store={mini_store}")
    assert text.returncode == 0, text.stderr
    assert text.stdout.strip()
    found = command_line("eval", "tests/mini.yaml", "--json", "--set", f"store={mini_store}")
    assert found.returncode == 0, found.stderr
    assert 0.0 <= json.loads(found.stdout)["niah_mean"] <= 1.0


def test_the_export_is_loaded_and_compared(mini_store: Path, command_line: CommandLine) -> None:
    done = command_line("export", "tests/mini.yaml", "--set", f"store={mini_store}")
    assert done.returncode == 0, done.stderr
    check = json.loads((mini_store / "export" / "extend" / "export-check.json").read_text())
    assert check["largest_logit_difference"] <= 1e-5
    shutil.rmtree(mini_store / "export")


def test_the_report_is_one_page_with_every_phase(mini_store: Path, command_line: CommandLine) -> None:
    done = command_line("report", "tests/mini.yaml", "--set", f"store={mini_store}")
    assert done.returncode == 0, done.stderr
    page = (mini_store / "report.html").read_text(encoding="utf-8")
    assert all(word in page for word in ("pretrain", "extend", "python-stdlib", "compliance.training_refused"))
    (mini_store / "report.html").unlink()


def test_mixes_are_previewed_traced_compared_and_exported(
    mini_store: Path, command_line: CommandLine, tmp_path: Path
) -> None:
    where = ("tests/mini.yaml", "--set", f"store={mini_store}")
    previews = json.loads(command_line("preview", *where, "--json").stdout)
    stats = json.loads(command_line("stats", *where, "--json").stdout)
    assert [one["rows"] for one in previews] == [stats[one["phase"]]["rows"] for one in previews]
    assert all(one["whole_documents_cut"] == 0 for one in previews)

    step = json.loads(command_line("trace", *where, "--phase", "extend", "--step", "2", "--json").stdout)
    assert {line["row"] for line in step["documents"]} == set(range(8))
    seen = step["documents"][0]
    steps = json.loads(command_line("trace", *where, "--document", seen["id"], "--json").stdout)
    assert {"phase": "extend", "step": 2, "row": seen["row"]}.items() <= next(
        line for line in steps if line["position"] == seen["position"]
    ).items()
    shown = command_line("trace", *where, "--step", "1", "--row", "0", "--text")
    assert "── row 0" in shown.stderr
    beyond = command_line("trace", *where, "--step", "999")
    assert beyond.returncode == 2
    assert "give --step 1 to" in beyond.stderr

    audited = json.loads(command_line("trace", *where, "--audit", "--json").stdout)
    assert all(one["problems"] == [] for one in audited.values())
    consumed = {name: sum(one["consumed"]["by_source"].values()) for name, one in stats.items()}
    assert sum(one["tokens"] for one in audited.values()) == sum(consumed.values())
    assert consumed["pretrain"] == stats["pretrain"]["tokens"]

    compared = json.loads(command_line("diff", "tests/mini.yaml", "pretrain", "extend", *where[1:], "--json").stdout)
    assert compared["facts"]["tokens"] == [stats["pretrain"]["tokens"], stats["extend"]["tokens"]]
    assert set(compared["shared"]) == {"rehearsal", "reasoning", "long"}
    table = command_line("stats", *where, "--csv").stdout.splitlines()
    assert table[0].startswith("segment,group,name,asked_tokens,planned_tokens")

    out = tmp_path / "rows"
    done = command_line(
        "mix", "export", "tests/mini.yaml", "pretrain", "--format", "megatron", "--out", str(out), *where[1:]
    )
    assert done.returncode == 0, done.stderr
    assert (out / "materialised.json").is_file()
