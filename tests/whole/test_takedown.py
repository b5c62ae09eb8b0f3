"""A takedown over a whole run: every place of one document is named, and a later run holds it nowhere."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest

from mixes.trace import positions_of
from pipeline.core.plans import read_plan
from pipeline.core.record import read_record
from pipeline.core.shards import TokenShard

CommandLine = Callable[..., subprocess.CompletedProcess[str]]
URL = "https://articles.example/ko/parallel-bicycle-repair"  # served in a mix, with a thought and a pair made of it


@pytest.fixture
def store(mini_store: Path, tmp_path: Path) -> Path:
    """A copy of the finished store, to be written to."""
    return Path(shutil.copytree(mini_store, tmp_path / "store"))


@pytest.fixture
def seodang(store: Path, command_line: CommandLine) -> Callable[..., Any]:
    """Runs a verb on the copy and gives its JSON, or its messages."""

    def run(verb: str, *arguments: str, code: int = 0, config: str = "tests/mini.yaml") -> Any:
        done = command_line(verb, config, *arguments, "--set", f"store={store}")
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout) if "--json" in arguments else done.stderr

    return run


def tables(folder: Path) -> Iterator[tuple[Path, pl.DataFrame]]:
    """Every table below a folder that has ids, whatever it is called."""
    for path in sorted(folder.rglob("*.parquet")):
        if "id" in pq.read_schema(path).names:
            yield path, pl.read_parquet(path, use_pyarrow=True)


def mentions(store: Path, ids: list[str]) -> set[str]:
    """Tables that hold one of the ids in any column that has ids."""
    found = set()
    for path, table in tables(store):
        hit = table["id"].is_in(ids).any()
        if "parents" in table.columns:
            hit |= any(identity in ids for row in table["parents"].to_list() for identity in row or ())
        if hit:
            found.add(path.relative_to(store).as_posix())
    return found


def test_a_document_is_found_everywhere_and_a_later_run_holds_it_nowhere(
    store: Path, seodang: Callable[..., Any]
) -> None:
    looked = seodang("takedown", "--url", URL, "--look", "--json")["found"][0]
    by_source = {row["source"]: row for row in looked["documents"]}
    assert set(by_source) == {"articles", "think", "pairs"}
    article = by_source["articles"]["id"]
    assert by_source["think"]["made_from"] == by_source["pairs"]["made_from"] == [article]
    ids = [row["id"] for row in looked["documents"]]

    # Every table with one of the ids, by looking through all of them, is what the command names.
    named = {f"{one['folder']}/{one['file']}" for one in looked["holdings"]}
    assert named == mentions(store, ids)
    assert {one["table"] for one in looked["holdings"]} == {"documents", "signals", "tokens"}
    for one in looked["holdings"]:
        held = pl.read_parquet(store / one["folder"] / one["file"], use_pyarrow=True)["id"]
        assert held.gather(one["rows"]).to_list() == one["ids"]
        for row, (start, length) in zip(one["rows"], one["tokens"], strict=False):
            shard = TokenShard.open(store / one["folder"] / one["file"].removesuffix(".docs.parquet"))
            assert (shard.token_ids[start : start + length] == shard.document(row)).all()

    # Mix rows are those of the trace; the steps that served them and the checkpoints behind them are named.
    (train,) = store.glob("train.extend-*")
    plan = read_plan(store, store / read_record(train).facts["mix_folders"][-1])
    positions = set(positions_of(plan, article)["position"].to_list())
    assert positions
    assert {row for mix in looked["mixes"] if mix["id"] == article for row in mix["positions"]} == positions
    log = [json.loads(line) for line in (train / "train.jsonl").read_text().splitlines()]
    steps = {line["step"] for line in log for at in positions if 0 <= at - line["position"] < line["rows"]}
    (trained,) = looked["training"]
    assert {step for first, last in trained["ranges"] for step in range(first, last + 1)} >= steps
    checkpoints = {row["checkpoint"] for row in looked["checkpoints"]}
    assert checkpoints == {f"checkpoints/{path.name}" for path in (train / "checkpoints").iterdir()}
    assert not any(name.startswith("train.pretrain") for name in (row["folder"] for row in looked["checkpoints"]))
    assert any(name.startswith("tokenizer-") for name in looked["readers"])

    # Looking writes nothing; taking down does, and only the steps it concerns are to be made again.
    listed = store.with_name("store.takedowns.jsonl")
    assert not listed.exists()
    done = seodang("takedown", "--url", URL, "--reason", "asked", "--json")
    assert listed.is_file()
    assert {"clean.articles", "split", "encode.think", "train.extend"} <= set(done["stale_steps"])
    assert not {"clean.web", "clean.notes", "synth.reason"} & set(done["stale_steps"])
    seodang("run")
    assert "to be made again" not in seodang("takedown", "--url", URL, "--look")

    steps_now = {step["name"]: Path(step["folder"]) for step in seodang("plan", "--json")["steps"]}
    made = [folder for name, folder in steps_now.items() if not name.startswith("train.")]
    assert all((folder / "record.json").is_file() for folder in made)
    left = {hit for folder in made for hit in mentions(folder, ids)}
    assert left == {"dropped/00000.parquet"}
    gone = pl.read_parquet(steps_now["clean.articles"] / "dropped" / "00000.parquet", use_pyarrow=True)
    (row,) = gone.filter(pl.col("id").is_in(ids)).to_dicts()
    assert (row["id"], row["reason"], row["text"]) == (article, "compliance.takedown", None)
    assert read_record(steps_now["clean.articles"]).dropped["compliance.takedown"] == 1


def test_a_synthetic_sample_can_be_taken_down_alone(store: Path, seodang: Callable[..., Any]) -> None:
    (guard,) = store.glob("guard.reason-*")
    sample = next(table for _, table in tables(guard / "documents"))["id"][0]
    done = seodang("takedown", "--id", sample, "--json")
    assert "guard.reason" in done["stale_steps"]
    assert "split" not in done["stale_steps"]
    seodang("run", "guard.reason")
    (again,) = (path for path in store.glob("guard.reason-*") if path != guard)
    assert read_record(again).dropped == {"compliance.takedown": 1}
    assert sample not in pl.concat(table for _, table in tables(again / "documents"))["id"]


def test_a_domain_nobody_has_changes_no_finished_step(store: Path, seodang: Callable[..., Any]) -> None:
    done = seodang("takedown", "--domain", "nobody.example", "--json")
    assert done["stale_steps"] == []
    assert done["found"][0]["documents"] == []
    assert "nobody.example" in store.with_name("store.takedowns.jsonl").read_text()


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ((), "nothing is named"),
        (("--id", "f" * 32), "no table below the store holds document"),
        (("--id", "xyz"), "32 hexadecimal digits"),
        (("--domain", "https://a.example/b"), "host name without path"),
    ],
)
def test_mistakes_exit_2_and_write_nothing(
    store: Path, seodang: Callable[..., Any], arguments: tuple[str, ...], what: str
) -> None:
    assert what in seodang("takedown", *arguments, code=2)
    assert not store.with_name("store.takedowns.jsonl").exists()


def test_release_is_refused_until_the_card_says_otherwise(
    store: Path, seodang: Callable[..., Any], tmp_path: Path
) -> None:
    card = tmp_path / "web.yaml"
    card.write_text(
        Path("samples/cards/web.yaml").read_text(encoding="utf-8") + "review_release: pending\n", encoding="utf-8"
    )
    other = ("--set", f"sources.web.card={card}")
    refused = seodang("export", *other, code=2)
    assert "phase `extend` may not be released" in refused
    assert f"`web`: review_release is pending ({card})" in refused
    assert not (store / "export").exists()
    card.write_text(card.read_text(encoding="utf-8").replace("pending", "approved"), encoding="utf-8")
    assert "exported" in seodang("export", *other)  # and nothing had to be trained again
    looked = seodang("takedown", "--url", URL, "--look", "--json")["found"][0]
    assert looked["exports"] == ["export/extend"]


def test_a_mix_that_names_a_forbidden_source_is_refused(seodang: Callable[..., Any]) -> None:
    names = "mixes.longer.components.long.from=[python-stdlib, forbidden]"
    refused = seodang("plan", "--set", names, code=2)
    assert "component `long` of mix `longer` takes source `forbidden`, whose review_training is refused" in refused
    assert "samples/cards/forbidden.yaml" in refused
