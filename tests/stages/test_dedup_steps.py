"""Deduplication as steps: who survives, whatever the sharding and workers; against earlier crawls; faults."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dedup_run import Run, row
from dedup_texts import families, prose
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.documents import DOCUMENT_SCHEMA, read_table, table_from_rows, write_documents
from pipeline.core.errors import ConfigError, InputError
from pipeline.core.files import hash_file, list_files
from pipeline.core.record import read_record
from stages.catalog import load
from stages.dedup import clusters, forests, pairs


def test_exact_keeps_the_smallest_id_and_counts_copies(tmp_path: Path) -> None:
    rows = [row("a", "same text"), row("b", "other"), row("c", "same text", cluster_size=3), row("d", "same text")]
    done = Run(tmp_path, [rows[:2], rows[2:]], "dedup.exact").make()
    best = min(rows[i]["id"] for i in (0, 2, 3))
    assert sorted((d["id"], d["cluster_size"]) for d in done.kept) == sorted([(best, 5), (rows[1]["id"], 1)])
    assert {(d["detail"], d["reason"], d["text"]) for d in done.dropped} == {(best, "dedup.exact", "same text")}
    assert done.facts["by_source"] == {"web": {"in": 4, "out": 2, "dropped": {"dedup.exact": 2}}}
    assert done.facts["cluster_sizes"] == {"1": 1, "5": 1}


def test_chats_with_equal_text_are_not_copies(tmp_path: Path) -> None:
    chats = [row(str(i), "", messages=[{"role": "user", "content": f"question {i % 2}"}]) for i in range(3)]
    done = Run(tmp_path, [chats], "dedup.exact").make()
    assert (len(done.kept), len(done.dropped)) == (2, 1)


def test_longest_survives_unless_a_quality_signal_says_otherwise(tmp_path: Path) -> None:
    text = prose(1)
    rows = [row("short", text), row("long", text + " and one more sentence"), row("far", prose(2))]
    done = Run(tmp_path, [rows], "dedup.minhash").make()
    assert {d["id"] for d in done.kept} == {rows[1]["id"], rows[2]["id"]}
    assert [d["detail"] for d in done.dropped] == [rows[1]["id"]]

    scored = Run(tmp_path, [rows], "dedup.minhash", quality_signal="score@1")
    (scored.input / "signals").mkdir()
    signals = pa.table({"id": [r["id"] for r in rows], "score@1": [0.9, 0.2, 0.5]})
    pq.write_table(signals, scored.input / "signals" / "00000.parquet")
    scored.make()
    assert {d["id"] for d in scored.kept} == {rows[0]["id"], rows[2]["id"]}
    handed_on = pq.read_table(scored.folder("dedup.minhash") / "signals" / "00000.parquet")
    assert handed_on.to_pydict() == {"id": [rows[0]["id"], rows[2]["id"]], "score@1": [0.9, 0.5]}

    wrong = Run(tmp_path, [rows], "dedup.minhash", quality_signal="scores@1")
    shutil.copytree(scored.input / "signals", wrong.input / "signals")
    with pytest.raises(ConfigError, match=r"did you mean `score@1`"):
        wrong.make()


@pytest.mark.parametrize("text", ["네 단어로 된 글", "four short words here", "短い文", "!!! ???", ""])
def test_short_documents_are_deduplicated(tmp_path: Path, text: str) -> None:
    rows = [row("a", text), row("b", text), row("c", "something else entirely")]
    done = Run(tmp_path, [rows], "dedup.minhash").make()
    assert {d["id"] for d in done.kept} == {min(rows[0]["id"], rows[1]["id"]), rows[2]["id"]}
    assert len(done.dropped) == 1


@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    shards=st.integers(1, 5),
    ranges=st.integers(1, 7),
    forest_documents=st.integers(1, 30),
    part_joins=st.integers(1, 9),
)
def test_survivors_do_not_depend_on_order_sharding_or_parts(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    shards: int,
    ranges: int,
    forest_documents: int,
    part_joins: int,
) -> None:
    rows = families()
    tmp_path = tmp_path_factory.mktemp("order")
    reference = Run(tmp_path / "one", [rows], "dedup.minhash").make()
    shuffled = random.Random(seed).sample(rows, len(rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairs, "RANGE_DOCUMENTS", -(-len(rows) // ranges))
        patch.setattr(forests, "FOREST_DOCUMENTS", forest_documents)
        patch.setattr(clusters, "PART_JOINS", part_joins)
        many = Run(tmp_path / "many", [shuffled[i::shards] for i in range(shards)], "dedup.minhash").make()
    key = lambda d: (d["id"], d["cluster_size"])  # noqa: E731
    assert sorted(map(key, many.kept)) == sorted(map(key, reference.kept))
    trace = lambda d: (d["id"], d["detail"])  # noqa: E731
    assert sorted(map(trace, many.dropped)) == sorted(map(trace, reference.dropped))
    assert {d["detail"] for d in many.dropped} <= {d["id"] for d in many.kept}
    assert len(many.dropped) == 8
    counts = [{**read_record(run.folder("clusters.minhash")).counts} for run in (many, reference)]
    assert counts[0] == counts[1]
    parts = list((many.folder("clusters.minhash") / "decisions").iterdir())
    joins = read_record(many.folder("forests.minhash")).counts["joins"]
    assert len(parts) == -(-joins // part_joins)


@pytest.mark.slow
def test_workers_change_no_byte(tmp_path: Path) -> None:
    rows = families(30)
    parts = [rows[i::4] for i in range(4)]
    found = []
    for workers in (1, 3):
        done = Run(tmp_path / str(workers), parts, "dedup.minhash", workers=workers).make()
        folders = [node.folder for name, node in done.graph.nodes.items() if name != "given"]
        found.append(
            {
                p.relative_to(f).as_posix() + f.name: hash_file(p)
                for f in folders
                for p in list_files(f)
                if p.name != "run.json"
            }
        )
    assert found[0] == found[1]


def test_a_new_crawl_is_compared_with_earlier_signatures_only(tmp_path: Path) -> None:
    first_rows = [
        row("old-short", prose(1)),
        row("old-long", prose(1) + " more words here"),
        row("old-other", prose(2)),
    ]
    first = Run(tmp_path / "first", [first_rows], "dedup.minhash").make()
    assert {d["id"] for d in first.kept} == {first_rows[1]["id"], first_rows[2]["id"]}
    shutil.rmtree(first.input)  # the earlier texts are gone
    shutil.rmtree(first.folder("dedup.minhash"))

    second_rows = [row("new-copy", prose(1) + " and very much more is said about it"), row("new", prose(3))]
    earlier = str(first.folder("signatures.minhash"))
    second = Run(tmp_path / "second", [second_rows], "dedup.minhash", against=(earlier,)).make()
    assert {d["id"] for d in second.kept} == {second_rows[1]["id"]}
    assert [(d["id"], d["detail"], d["reason"]) for d in second.dropped] == [
        (second_rows[0]["id"], first_rows[1]["id"], "dedup.minhash.earlier")
    ]
    counted = pq.read_table(second.folder("clusters.minhash") / "earlier").to_pylist()
    assert counted == [{"id": first_rows[1]["id"], "documents": 1}]

    third_rows = [row("third-copy", prose(3)), row("third-copy-2", prose(1)), row("third", prose(4))]
    folders = (earlier, str(second.folder("signatures.minhash")))
    third = Run(tmp_path / "third", [third_rows], "dedup.minhash", against=folders).make()
    assert {(d["id"], d["detail"]) for d in third.dropped} == {
        (third_rows[0]["id"], second_rows[1]["id"]),
        (third_rows[1]["id"], first_rows[1]["id"]),  # not the second crawl's copy, which was dropped
    }


def test_the_same_crawl_again_leaves_nothing(tmp_path: Path) -> None:
    rows = families()
    first = Run(tmp_path / "first", [rows], "dedup.minhash").make()
    earlier = str(first.folder("signatures.minhash"))
    again = Run(tmp_path / "again", [rows[:5], rows[5:]], "dedup.minhash", against=(earlier,)).make()
    assert again.kept == []
    kept = {d["id"] for d in first.kept}
    assert {d["detail"] for d in again.dropped} == kept


def test_earlier_signatures_count_by_content_and_must_fit(tmp_path: Path) -> None:
    first = Run(tmp_path / "first", [families()], "dedup.minhash").make()
    earlier = first.folder("signatures.minhash")
    moved = tmp_path / "elsewhere"
    shutil.copytree(earlier, moved)
    runs = [Run(tmp_path / "x", [families(3)], "dedup.minhash", against=(str(f),)) for f in (earlier, moved)]
    alone = Run(tmp_path / "x", [families(3)], "dedup.minhash")
    names = ("signatures.minhash", "pairs.minhash", "dedup.minhash")
    prints = [[run.graph.node(name).fingerprint for name in names] for run in (*runs, alone)]
    assert prints[0] == prints[1]
    assert prints[0][0] == prints[2][0]  # the new crawl's signatures are its own
    assert prints[0][1:] != prints[2][1:]
    with pytest.raises(ConfigError, match="other options|made with"):
        Run(tmp_path / "y", [families(3)], "dedup.minhash", against=(str(earlier),), shingle=4)
    with pytest.raises(InputError, match="no finished signature step"):
        Run(tmp_path / "y", [families(3)], "dedup.minhash", against=(str(tmp_path / "nowhere"),))
    with pytest.raises(InputError, match="holds no signatures"):
        Run(tmp_path / "y", [families(3)], "dedup.minhash", against=(str(first.folder("dedup.minhash")),))


def test_another_threshold_signs_no_text_again(tmp_path: Path) -> None:
    strict, loose = (Run(tmp_path, [families()], "dedup.minhash", minimum_similarity=value) for value in (0.9, 0.2))
    assert strict.folder("pairs.minhash") != loose.folder("pairs.minhash")
    assert strict.folder("signatures.minhash").name.startswith("signatures.minhash-")
    one, other = (run.graph.node("signatures.minhash").step.config for run in (strict, loose))
    assert one == other


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("http://www.Example.org/a/?utm_source=x&b=2&a=1#top", "https://example.org/a?a=1&b=2", True),
        ("https://example.org:443/", "http://example.org", True),
        ("https://example.org/a?page=2", "https://example.org/a?page=3", False),
        ("https://example.org/A", "https://example.org/a", False),
        ("https://example.org:8080/a", "https://example.org/a", False),
        ("https://예시.kr/글?fbclid=1", "https://예시.kr/글", True),
    ],
)
def test_pages_of_one_url(tmp_path: Path, one: str, other: str, same: bool) -> None:
    rows = [row("1", "first version", url=one), row("2", "a second, longer version", url=other)]
    rows += [row("3", "no address"), row("4", "no address either")]
    done = Run(tmp_path, [rows[:1], rows[1:]], "dedup.url").make()
    assert len(done.kept) == (3 if same else 4)
    assert [d["detail"] for d in done.dropped] == ([rows[1]["id"]] if same else [])


def test_changed_input_is_refused(tmp_path: Path) -> None:
    rows = [row("a", "one"), row("b", "one"), row("c", "two")]
    done = Run(tmp_path, [rows], "dedup.exact").make()
    task = done.graph.task(done.graph.node("dedup.exact"))
    write_documents(done.input, 0, table_from_rows(rows[::-1]))
    with pytest.raises(InputError, match="documents changed"):
        load("stages.dedup.survivors:WORK").make_shard(task, 0)


def test_nothing_to_do_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no documents"):
        Run(tmp_path, [], "dedup.exact").make()


def test_an_id_that_is_no_hash_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="32 hex digits"):
        Run(tmp_path, [[{**row("a", "one"), "id": "my-document"}]], "dedup.minhash").make()


def test_empty_shards_are_well(tmp_path: Path) -> None:
    rows = families(3)
    done = Run(tmp_path, [[], rows, []], "dedup.minhash").make()
    assert len(done.kept) == 1
    assert read_table(done.folder("dedup.minhash") / "documents" / "00000.parquet", DOCUMENT_SCHEMA).num_rows == 0
