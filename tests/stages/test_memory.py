"""A worker's memory with documents of nearly 64 MB, block by block, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = """
import json, sys
from pathlib import Path
from pipeline.core.config import Located
from pipeline.core.provenance import SourceTerms
from pipeline.core.steps import StepOutput, StepTask
from stages.catalog import block_config, resolve
from stages.clean import WORK
from stages.config import CleanConfig, ReadConfig
from stages.sources import expand_paths, step_paths

folder = Path(sys.argv[1])

def blocks(*names):
    options = {"rules": {"preset": "c4_scripts"}}
    return tuple(
        resolve(name, block_config(name, Located(options.get(name, {}))), at, Path()).spec for at, name in enumerate(names)
    )

read = ReadConfig(kind="jsonl", paths=("*.jsonl",))
first = CleanConfig(source="books", read=read.replaced(paths=()), card=SourceTerms(license="CC0-1.0"),
                    blocks=blocks("extract", "normalise", "language", "signals"))
task = StepTask("clean.books", "0", first, {}, folder / "clean", folder, step_paths(expand_paths(read, folder)))
kept = [WORK.make_shard(task, 0).counts["documents_out"]]
second = CleanConfig(blocks=blocks("rules", "toxicity", "pii"))
inputs = {"documents": StepOutput("clean.books", folder / "clean")}
kept.append(WORK.make_shard(StepTask("filter.books", "0", second, inputs, folder / "filter", folder, {}), 0).counts["documents_in"])
most = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(json.dumps({"kept": kept, "most_kib": int(most.split()[1])}))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="peak memory is read from Linux's /proc")
@pytest.mark.parametrize("lang", ["ko", "es"])
def test_a_document_of_62_megabytes_takes_a_worker_less_than_a_gibibyte(
    lang: str, data_root: Path, tmp_path: Path
) -> None:
    rows = pq.read_table(data_root / "long_docs.parquet", columns=["text", "lang"]).to_pylist()
    unit = "\n\n".join(row["text"] for row in rows if row["lang"] == lang)
    measured(tmp_path / "short", unit.encode()[:100_000].decode(errors="ignore"))  # compiles what is not yet compiled
    text = unit * (62_000_000 // len(unit.encode()) + 1)
    found = measured(tmp_path / "long", text.encode()[:62_000_000].decode(errors="ignore"))
    assert found["kept"] == [1, 1]
    assert found["most_kib"] <= 1 << 20


def measured(folder: Path, text: str) -> dict[str, Any]:
    """What a process of its own says of a corpus of this one document."""
    folder.mkdir()
    line = json.dumps({"text": text.replace("{", "(")}, ensure_ascii=False)
    (folder / "one.jsonl").write_text(line + "\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
