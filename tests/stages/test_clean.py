"""The cleaning step: conservation of documents, funnel, shards, compliance first, clean twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline.core.config import Located
from pipeline.core.documents import document_files, read_documents, read_dropped
from pipeline.core.errors import ConfigError, InputError
from pipeline.core.fingerprint import fingerprint
from pipeline.core.provenance import SourceCard
from pipeline.core.record import Record, ShardResult
from pipeline.core.steps import Step, StepOutput, StepTask
from pipeline.executors import LocalExecutor
from pipeline.graph import Graph, Silent
from stages.catalog import BLOCKS, block_config, load, resolve
from stages.clean import WORK
from stages.clean_output import KEPT_SAMPLES
from stages.config import CleanConfig, ReadConfig
from stages.repeated_ids import repeated_ids
from stages.sources import expand_paths, source_content, step_paths

CARD = SourceCard(
    origin="invented",
    license="CC-BY-4.0",
    basis="own work",
    collected="2025-01-01",
    opt_out="none",
    contact="x@example.org",
)
GOOD = (
    "도서관은 매주 월요일에 문을 닫으며, 화요일부터는 아침 아홉 시에 다시 문을 연다. 책을 빌리려면 회원증을 가지고 가야 하고, "
    "빌린 책은 두 주 안에 돌려주는 것이 규칙이다. {n}번 서가에는 마을의 역사를 다룬 낡은 책이 있는데, 아이들은 그 이야기를 무척 좋아한다. "
    "사서는 날마다 책을 정리하고, 저녁이 되면 불을 끄고 집으로 돌아간다. 비가 오는 날에는 창가 자리가 가장 먼저 찬다."
)


def task(folder: Path, config: CleanConfig, paths: Any = (), inputs: Any = ()) -> StepTask:
    return StepTask("clean.web", "f" * 64, config, dict(inputs), folder, folder.parent, dict(paths))


def made(one: StepTask) -> tuple[list[ShardResult], Any]:
    results = [WORK.make_shard(one, shard) for shard in range(WORK.shard_count(one))]
    return results, WORK.finish(one, results)


def blocks(*listed: tuple[str, dict[str, Any]], base: Path = Path()) -> list[Any]:
    return [
        resolve(name, block_config(name, Located(options)), number, base)
        for number, (name, options) in enumerate(listed)
    ]


def source(tmp_path: Path, lines: list[str], *, card: SourceCard = CARD, shard_bytes: int = 1 << 20) -> StepTask:
    data = tmp_path / "data"
    data.mkdir()
    for number, line in enumerate(lines):
        (data / f"{number:03d}.jsonl").write_text(line + "\n", encoding="utf-8")
    read = ReadConfig(kind="jsonl", paths=("*.jsonl",), shard_bytes=shard_bytes)
    chosen = blocks(("normalise", {}), ("language", {"keep": ("ko",)}), ("rules", {}))
    config = CleanConfig(
        source="web", read=read.replaced(paths=()), card=card, blocks=tuple(one.spec for one in chosen)
    )
    return task(tmp_path / "out", config, step_paths(expand_paths(read, data)))


def lines() -> list[str]:
    english = "The library closes early on Mondays, so please bring your books back before the weekend is over."
    texts = [GOOD.format(n=n) for n in range(5)] + [english, "이 글은 너무 짧다.", "\u200b"]
    rows = [json.dumps({"id": f"d{n}", "text": text}, ensure_ascii=False) for n, text in enumerate(texts)]
    return [*rows, "{broken", rows[0]]


@pytest.mark.parametrize("shard_bytes", [1000, 1 << 20])
def test_every_document_is_kept_or_dropped_with_a_reason(tmp_path: Path, shard_bytes: int) -> None:
    one = source(tmp_path, lines()[:9], shard_bytes=shard_bytes)
    results, facts = made(one)
    assert len(results) == (5 if shard_bytes == 1000 else 1)
    for result in results:
        assert result.counts["documents_in"] == result.counts["documents_out"] + sum(result.dropped.values())
    kept = [row for part in read_documents(one.folder) for row in part.to_pylist()]
    dropped = [row for part in read_dropped(one.folder) for row in part.to_pylist()]
    assert [row["lang"] for row in kept] == ["ko"] * 5
    assert {row["license"] for row in kept} == {"CC-BY-4.0"}
    assert sorted(row["reason"] for row in dropped) == [
        "language.other", "normalise.empty", "read.bad_record", "rules.gopher_too_short",
    ]  # fmt: skip
    assert facts["by_source"]["web"]["in"] == 9
    assert facts["by_language"]["ko"] == {"in": 6, "out": 5, "dropped": {"rules.gopher_too_short": 1}}
    assert facts["by_language"]["en"]["dropped"] == {"language.other": 1}
    assert "nothing_left" not in facts


def test_the_same_bytes_whatever_is_made_first(tmp_path: Path) -> None:
    one = source(tmp_path, lines(), shard_bytes=1000)
    made(one)
    other = StepTask(one.name, one.fingerprint, one.config, one.inputs, tmp_path / "again", one.store, one.paths)
    for shard in reversed(range(WORK.shard_count(other))):
        WORK.make_shard(other, shard)
    first, again = (
        {p.relative_to(f): p.read_bytes() for p in f.rglob("*.parquet")} for f in (one.folder, other.folder)
    )
    assert first == again
    assert any(path.parts[0] == "signals" for path in first)


def test_a_repeated_id_in_a_shard_is_dropped_by_name(tmp_path: Path) -> None:
    results, _ = made(source(tmp_path, lines()))
    assert results[0].dropped["read.duplicate_id"] == 1


def test_a_source_whose_card_forbids_training_is_counted_and_dropped(tmp_path: Path) -> None:
    one = source(tmp_path, lines()[:3], card=CARD.replaced(review_training="refused"))
    results, facts = made(one)
    assert results[0].counts["documents_out"] == 0
    assert results[0].dropped == {"compliance.training_refused": 3}
    assert facts["nothing_left"] is True


def test_dropped_text_is_kept_for_the_first_of_each_reason(tmp_path: Path) -> None:
    rows = [
        json.dumps({"id": str(n), "text": f"이 글은 너무 짧다 {n}."}, ensure_ascii=False)
        for n in range(KEPT_SAMPLES + 7)
    ]
    one = source(tmp_path, ["\n".join(rows)])
    made(one)
    texts = [row["text"] for part in read_dropped(one.folder) for row in part.to_pylist()]
    assert [text is not None for text in texts] == [True] * KEPT_SAMPLES + [False] * 7


def test_an_empty_source_is_the_users_error(tmp_path: Path) -> None:
    one = source(tmp_path, [""])
    with pytest.raises(InputError, match="no documents"):
        made(one)


def test_documents_of_steps_are_cleaned_further_in_role_order(tmp_path: Path) -> None:
    first = source(tmp_path, lines()[:5])
    made(first)
    config = CleanConfig(
        blocks=tuple(one.spec for one in blocks(("rules", {"thresholds": {"ko": {"gopher_too_short": 9999}}})))
    )
    inputs = {"documents": StepOutput("clean.web", first.folder)}
    second = task(tmp_path / "second", config, inputs=inputs)
    results, _ = made(second)
    assert results[0].counts["documents_in"] == 5
    assert results[0].dropped == {"rules.gopher_too_short": 5}
    table = pq.read_table(second.folder / "signals" / "00000.parquet")
    assert table.num_rows == 0  # signals are handed on with the documents that stay
    assert table.schema.field("id").type == "string"


def test_paths_are_execution_and_content_is_identity(tmp_path: Path) -> None:
    for folder, text in (("a", "x"), ("b", "x"), ("c", "y")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "bench.jsonl").write_text(json.dumps({"question": text}) + "\n")
    here, there, other = (
        blocks(("decontaminate", {"against": ("bench.jsonl",)}), base=tmp_path / folder)[0] for folder in "abc"
    )
    assert fingerprint(here.spec, dict(here.content)) == fingerprint(there.spec, dict(there.content))
    assert dict(here.content) != dict(other.content)
    assert here.paths["0.decontaminate.against"] == (str(tmp_path / "a" / "bench.jsonl"),)


def test_every_entry_of_the_catalog_can_be_loaded() -> None:
    for one in BLOCKS.values():
        made_by, config = load(one.make), load(one.config)
        assert callable(made_by) or one.scope == "global"
        assert set(one.path_fields) <= set(config.model_fields)
    with pytest.raises(ConfigError, match="did you mean `dedup.minhash`"):
        block_config("dedup.minhsh", Located({}))


def test_ids_that_several_shards_hold_are_counted_and_named(tmp_path: Path) -> None:
    rows = lines()
    one = source(tmp_path, [rows[0], rows[1], rows[0].replace("빌린", "고른"), rows[2], rows[1]], shard_bytes=600)
    results, facts = made(one)
    kept = [row["id"] for part in read_documents(one.folder) for row in part.to_pylist()]
    twice = sorted({name for name in kept if kept.count(name) == 2})
    assert len(results) == 5
    assert facts["repeated_ids"] == {
        "ids": 2,
        "documents": 4,
        "first": {name: [f"{n:05d}" for n in range(5) if kept[n] == name] for name in twice},
    }
    files = document_files(one.folder)
    assert repeated_ids(files, keys=1) | {"first": 0} == facts["repeated_ids"] | {"first": 0}
    assert repeated_ids(files[:2]) == {}


def test_changed_inputs_make_a_new_step_and_task_counts_change_nothing(tmp_path: Path) -> None:
    first = source(tmp_path, lines(), shard_bytes=1000)

    def run(store: str, workers: int) -> Record:
        read = ReadConfig(kind="jsonl", paths=("*.jsonl",))
        files = expand_paths(read, tmp_path / "data")
        content = {"source": source_content(files)}
        step = Step("clean.web", "stages.clean", 1, first.config, {}, "stages.clean:WORK", content, step_paths(files))
        graph = Graph(tmp_path / store, [step])
        return graph.run(["clean.web"], LocalExecutor(workers), Silent())[0]

    alone, together = run("a", 1), run("b", 2)
    assert alone == together
    (tmp_path / "data" / "new.jsonl").write_text(json.dumps({"id": "new", "text": GOOD.format(n=99)}) + "\n")
    after = run("a", 1)
    assert after.fingerprint != alone.fingerprint
    assert after.counts["documents_in"] == alone.counts["documents_in"] + 1
    assert after.counts["documents_out"] == alone.counts["documents_out"] + 1
    assert run("a", 1) == after
