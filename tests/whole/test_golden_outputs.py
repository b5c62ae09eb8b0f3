"""Golden outputs: what each kind of step makes of the samples, by content. A changed hash with an unchanged version is
a mistake: either the change was not meant, or the kind's version must go up (and `golden_outputs.json` be renewed with
`python tests/whole/test_golden_outputs.py`)."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash

from pipeline.core.files import list_files
from pipeline.core.record import read_record

CommandLine = Callable[..., subprocess.CompletedProcess[str]]
ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(__file__).with_name("golden_outputs.json")
CONFIG = "tests/golden.yaml"
# Libraries whose own output is in ours: another version of one of them may rightly change a hash.
LIBRARIES = ("ftfy", "polars", "py3langid", "tokenizers", "trafilatura")
KEPT_OUT = ("record.json", "run.json", "step.json", "shards")


def content_hash(path: Path) -> str:
    """Of a table's rows, whatever Parquet, Arrow or SQLite version wrote them; of the bytes of anything else."""
    if path.suffix == ".parquet":
        return xxhash.xxh3_128_hexdigest(repr(pq.read_table(path).to_pylist()).encode())
    if path.suffix == ".arrow":
        with pa.memory_map(str(path)) as source:
            return xxhash.xxh3_128_hexdigest(repr(pa.ipc.open_file(source).read_all().to_pydict()).encode())
    if path.suffix == ".sqlite":
        with closing(sqlite3.connect(path)) as index:
            index.execute("CREATE VIRTUAL TABLE temp.vocabulary USING fts5vocab(main, terms, row)")
            rows = [index.execute(f"SELECT * FROM {name}").fetchall() for name in ("pages", "temp.vocabulary")]
        return xxhash.xxh3_128_hexdigest(repr(rows).encode())
    return xxhash.xxh3_128_hexdigest(path.read_bytes())


def step_hashes(store: Path) -> dict[str, dict[str, str | int]]:
    """For each finished step: kind, version and one hash over its output files."""
    found: dict[str, dict[str, str | int]] = {}
    for path in sorted(store.glob("*/record.json")):
        record = read_record(path.parent)
        digest = xxhash.xxh3_128()
        for file in list_files(path.parent):
            relative = file.relative_to(path.parent)
            if relative.parts[0] not in KEPT_OUT and relative.name not in ("segments.json", "stats.json"):
                digest.update(f"{relative.as_posix()} {content_hash(file)}".encode())
        found[record.step] = {"kind": record.kind, "version": record.kind_version, "hash": digest.hexdigest()}
    return found


def made(store: Path) -> dict[str, dict[str, dict[str, str | int]] | dict[str, str]]:
    return {"libraries": {name: version(name) for name in LIBRARIES}, "steps": step_hashes(store)}


@pytest.fixture(scope="module")
def golden_store(tmp_path_factory: pytest.TempPathFactory, command_line: CommandLine) -> Path:
    store = tmp_path_factory.mktemp("golden") / "store"
    done = command_line("run", CONFIG, "--set", f"store={store}")
    assert done.returncode == 0, done.stderr
    return store


def test_no_kind_of_step_writes_other_content_under_its_old_version(golden_store: Path) -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    now = made(golden_store)
    drift = {
        name: (old, now["libraries"][name])
        for name, old in golden["libraries"].items()
        if now["libraries"][name] != old
    }
    if drift:
        pytest.skip(f"recorded with other library versions: {drift}")
    assert set(now["steps"]) == set(golden["steps"])
    changed = [name for name, step in now["steps"].items() if step != golden["steps"][name]]
    assert not changed, f"first step in running order is at fault; raise its version if the change is meant: {changed}"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pipeline.cli", "run", CONFIG, "--set", f"store={folder}/store"]
        subprocess.run(command, cwd=ROOT, check=True)
        GOLDEN.write_text(json.dumps(made(Path(folder) / "store"), indent=1, sort_keys=True) + "\n", encoding="utf-8")
