"""The step graph: run, resume, identity, why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.config import Config
from pipeline.core.errors import ConfigError, InputError
from pipeline.core.files import list_files, write_text
from pipeline.core.record import ShardResult, read_record
from pipeline.core.steps import Step
from pipeline.executors import LocalExecutor
from pipeline.graph import Graph, Silent, locked

WORK = "toy_step_work:WORK"

TOY = """
from pathlib import Path
from pipeline.core.files import write_text
from pipeline.core.record import ShardResult

class Toy:
    def shard_count(self, task):
        return task.config.shards
    def make_shard(self, task, shard):
        trouble = Path(task.paths["trouble"][0]) if "trouble" in task.paths else None
        if trouble is not None and trouble.exists() and shard == int(trouble.read_text()):
            raise OSError(f"no space left for shard {shard}")
        write_text(task.folder / "out" / f"{shard}.txt", f"{task.config.word} {shard}\\n")
        return ShardResult(counts={"lines": 1}, dropped={"odd": shard % 2})
    def finish(self, task, results):
        return {"shards": len(results)}

WORK = Toy()
"""


class ToyConfig(Config):
    word: str = "a"
    shards: int = 4


@pytest.fixture(autouse=True)
def toy_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "toy_step_work.py").write_text(TOY)
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "lib"))


def steps(word: str = "a", shards: int = 4, paths: Mapping[str, tuple[str, ...]] | None = None) -> list[Step]:
    first = Step("first", "toy", 1, ToyConfig(word=word, shards=shards), {}, WORK, paths=paths or {})
    second = Step("second", "toy", 1, ToyConfig(word="b", shards=1), {"documents": "first"}, WORK)
    return [first, second]


def test_run_leaves_records_and_runs_nothing_twice(tmp_path: Path) -> None:
    graph = Graph(tmp_path / "store", steps())
    records = graph.run(["second"], LocalExecutor(1), Silent())
    assert [record.step for record in records] == ["first", "second"]
    assert records[0].counts == {"lines": 4}
    assert records[0].dropped == {"odd": 2}
    assert records[0].facts == {"shards": 4}
    assert sorted(records[0].files) == [f"out/{k}.txt" for k in range(4)]
    before = {path: path.stat().st_mtime_ns for path in list_files(tmp_path / "store")}
    Graph(tmp_path / "store", steps()).run(["second"], LocalExecutor(1), Silent())
    assert {path: path.stat().st_mtime_ns for path in list_files(tmp_path / "store")} == before


def test_a_changed_config_makes_a_new_folder_downstream_too(tmp_path: Path) -> None:
    old, new = Graph(tmp_path, steps("a")), Graph(tmp_path, steps("z"))
    assert old.node("first").fingerprint != new.node("first").fingerprint
    assert old.node("second").folder != new.node("second").folder


def test_workers_and_paths_are_not_identity(tmp_path: Path) -> None:
    one = Graph(tmp_path / "one", steps())
    two = Graph(tmp_path / "two", steps(paths={"trouble": (str(tmp_path / "nowhere"),)}))
    one.run(["first"], LocalExecutor(1), Silent())
    two.run(["first"], LocalExecutor(3), Silent())
    assert one.node("first").fingerprint == two.node("first").fingerprint
    records = [read_record(graph.node("first").folder) for graph in (one, two)]
    assert records[0] == records[1]


def test_a_failed_step_keeps_its_finished_shards_and_looks_unfinished(tmp_path: Path) -> None:
    trouble = tmp_path / "trouble"
    trouble.write_text("2")
    graph = Graph(tmp_path / "store", steps(paths={"trouble": (str(trouble),)}))
    node = graph.node("first")
    with pytest.raises(OSError, match="no space left for shard 2"):
        graph.run(["first"], LocalExecutor(1), Silent())
    assert not node.finished
    kept = (node.folder / "out" / "1.txt").stat().st_mtime_ns
    write_text(node.folder / "out" / ".partial-1-2.txt", "half")
    trouble.unlink()
    graph.run(["first"], LocalExecutor(1), Silent())
    assert node.finished
    assert (node.folder / "out" / "1.txt").stat().st_mtime_ns == kept
    assert not list(node.folder.rglob(".partial-*"))


def test_why_names_the_changed_field(tmp_path: Path) -> None:
    Graph(tmp_path, steps("a")).run(["second"], LocalExecutor(1), Silent())
    changed = Graph(tmp_path, steps("z"))
    assert changed.why("first") == ["config.word: 'a' → 'z'"]
    assert changed.why("second")[0].startswith("inputs.documents: ")
    assert "is finished" in Graph(tmp_path, steps("a")).why("first")[0]


def test_an_unknown_step_names_its_neighbours(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown step `frist`") as caught:
        Graph(tmp_path, steps()).node("frist")
    assert "did you mean `first`?" in caught.value.fix


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(InputError, match="another seodang process"), locked(tmp_path):
        pass


def test_shard_results_are_summed_by_key() -> None:
    """`ShardResult` adds up whatever it is given."""
    results: Sequence[ShardResult] = [ShardResult(counts={"a": 1}), ShardResult(counts={"a": 2, "b": 1})]
    from pipeline.core.record import summed

    totals: tuple[dict[str, Any], ...] = summed(results)
    assert totals[0] == {"a": 3, "b": 1}
