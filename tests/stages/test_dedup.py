"""Deduplication: segmenter, signatures against datasketch, survivors, order-independence, real near-duplicates."""

from __future__ import annotations

import os
import random
import unicodedata
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.config import Config
from pipeline.core.documents import (
    document_id,
    read_documents,
    read_dropped,
    table_from_rows,
    text_hash,
    write_documents,
)
from pipeline.core.errors import ConfigError, InputError
from pipeline.core.steps import StepOutput, StepTask
from stages.dedup import exact, minhash
from stages.dedup.cluster import clusters
from stages.dedup.segment import segment_text
from stages.dedup.signatures import band_keys, shingles, signatures

DATA = Path(os.environ.get("SEODANG_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
WORDS = [
    "the",
    "river",
    "snow",
    "melts",
    "water",
    "spring",
    "mountain",
    "village",
    "bridge",
    "stone",
    "summer",
    "winter",
    "market",
    "horse",
    "road",
    "bread",
]


def prose(seed: int, words: int = 120) -> str:
    generator = random.Random(seed)
    return " ".join(generator.choice(WORDS) + str(generator.randrange(40)) for _ in range(words))


def row(record: str, text: str, source: str = "web", **columns: object) -> dict[str, object]:
    text = unicodedata.normalize("NFC", text)
    return {"id": document_id(source, record), "text_hash": text_hash(text), "text": text, "source": source, **columns}


def task(tmp_path: Path, shards: list[list[dict[str, object]]], config: Config, name: str) -> StepTask:
    """A step over one input per source folder, its documents in the given shards."""
    folder = tmp_path / f"in-{name}"
    for number, rows in enumerate(shards):
        write_documents(folder, number, table_from_rows(rows))
    inputs = {"documents": StepOutput("in", folder)}
    return StepTask(name, name, config, inputs, tmp_path / name, tmp_path, {})


def run(work: exact.ExactWork | minhash.MinhashWork, step: StepTask) -> tuple[list[dict], list[dict], dict]:
    results = [work.make_shard(step, shard) for shard in range(work.shard_count(step))]
    kept = [document for table in read_documents(step.folder) for document in table.to_pylist()]
    dropped = [document for table in read_dropped(step.folder) for document in table.to_pylist()]
    for result in results:
        assert result.counts["documents_in"] == result.counts["documents_out"] + sum(result.dropped.values())
    return kept, dropped, dict(work.finish(step, results))


@pytest.mark.parametrize(
    ("text", "tokens", "weight"),
    [
        ("The river, the sea!", 4, 8),
        ("대통령의 권한으로 옳지 않은 것은?", 5, 15),
        ("プログラムが動く。", 8, 8),
        ("Nước sông dâng lên", 4, 8),
        ("iPhone은 2024년", 4, 10),
        ("—… !?", 0, 0),
        ("", 0, 0),
    ],
)
def test_tokens_per_script(text: str, tokens: int, weight: int) -> None:
    hashes, weights = segment_text(text)
    assert (len(hashes), int(weights.sum())) == (tokens, weight)


@pytest.mark.parametrize(
    ("one", "other"), [("が", "か"), ("プログラム", "フロクラム"), ("nước", "nuoc"), ("가", "각"), ("año", "ano")]
)
def test_marks_are_kept(one: str, other: str) -> None:
    assert segment_text(one)[0].tolist() != segment_text(other)[0].tolist()


def test_case_and_punctuation_do_not_matter() -> None:
    assert segment_text("Über den Fluss!")[0].tolist() == segment_text("über  den «FLUSS»")[0].tolist()


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_segmenter_stays_in_bounds_on_any_text(text: str) -> None:
    hashes, weights = segment_text(text)
    assert len(hashes) <= len(text.encode()) // 2 + 1
    assert (weights > 0).all()


def test_signatures_estimate_jaccard_like_datasketch() -> None:
    from datasketch import MinHash

    ours, theirs = [], []
    for seed in range(60):
        words = prose(seed).split()
        changed = [w if random.Random(seed * 999 + i).random() > 0.06 else "x" for i, w in enumerate(words)]
        texts = [" ".join(words), " ".join(changed)]
        sets = [set(shingles(text, 5).tolist()) for text in texts]
        true = len(sets[0] & sets[1]) / len(sets[0] | sets[1])
        values = signatures(pa.array(texts, pa.large_string()), 5, 112)
        ours.append(float((values[0] == values[1]).mean()) - true)
        sketches = []
        for shingle_set in sets:
            sketch = MinHash(num_perm=112, seed=1)
            sketch.update_batch([value.to_bytes(8, "little") for value in sorted(shingle_set)])
            sketches.append(sketch)
        theirs.append(sketches[0].jaccard(sketches[1]) - true)
    ours_error, theirs_error = np.sqrt(np.mean(np.square(ours))), np.sqrt(np.mean(np.square(theirs)))
    assert ours_error < 0.06
    assert ours_error < theirs_error * 1.4
    assert abs(np.mean(ours)) < 0.02


def test_buckets_agree_with_datasketch_lsh() -> None:
    from datasketch import MinHash, MinHashLSH

    texts = []
    for seed in range(80):
        words = prose(seed).split()
        texts += [" ".join(words), " ".join(w if i % 61 != seed % 61 else "y" for i, w in enumerate(words))]
    values = signatures(pa.array(texts, pa.large_string()), 5, 112)
    labels = clusters(values, band_keys(values, 14, 8), 0.0)
    index = MinHashLSH(num_perm=112, params=(14, 8))
    sketches = []
    for number, text in enumerate(texts):
        sketch = MinHash(num_perm=112, seed=1)
        sketch.update_batch([value.to_bytes(8, "little") for value in shingles(text, 5).tolist()])
        sketches.append(sketch)
        index.insert(str(number), sketch)
    near = [(2 * i, 2 * i + 1) for i in range(80)]
    ours = {pair for pair in near if labels[pair[0]] == labels[pair[1]]}
    theirs = {pair for pair in near if str(pair[1]) in index.query(sketches[pair[0]])}
    assert len(ours) >= len(theirs) - 4  # both miss at random near the threshold
    assert len(ours & theirs) >= 0.9 * len(theirs)
    wrong = sum(labels[i] == labels[j] for i in range(160) for j in range(i + 1, 160) if i // 2 != j // 2)
    assert wrong == 0


def test_exact_keeps_the_smallest_id_and_counts_copies(tmp_path: Path) -> None:
    rows = [row("a", "same text"), row("b", "other"), row("c", "same text", cluster_size=3), row("d", "same text")]
    kept, dropped, facts = run(exact.WORK, task(tmp_path, [rows[:2], rows[2:]], exact.ExactConfig(), "exact"))
    best = min(rows[i]["id"] for i in (0, 2, 3))
    assert sorted((d["id"], d["cluster_size"]) for d in kept) == sorted([(best, 5), (rows[1]["id"], 1)])
    assert {d["detail"] for d in dropped} == {best}
    assert {d["reason"] for d in dropped} == {"dedup.exact"}
    assert all(d["text"] == "same text" for d in dropped)
    assert facts["by_source"] == {"web": {"in": 4, "out": 2, "dropped": {"dedup.exact": 2}}}
    assert facts["cluster_sizes"] == {"1": 1, "5": 1}


def test_chats_with_equal_text_are_not_copies(tmp_path: Path) -> None:
    chats = [row(str(i), "", messages=[{"role": "user", "content": f"question {i % 2}"}]) for i in range(3)]
    kept, dropped, _ = run(exact.WORK, task(tmp_path, [chats], exact.ExactConfig(), "chats"))
    assert (len(kept), len(dropped)) == (2, 1)


def test_longest_survives_unless_a_quality_signal_says_otherwise(tmp_path: Path) -> None:
    text = prose(1)
    rows = [row("short", text), row("long", text + " and one more sentence"), row("far", prose(2))]
    step = task(tmp_path, [rows], minhash.MinhashConfig(), "length")
    kept, dropped, _ = run(minhash.WORK, step)
    assert {d["id"] for d in kept} == {rows[1]["id"], rows[2]["id"]}
    assert [d["detail"] for d in dropped] == [rows[1]["id"]]

    step = task(tmp_path, [rows], minhash.MinhashConfig(quality_signal="score@1"), "quality")
    signals = pa.table({"id": [r["id"] for r in rows], "score@1": [0.9, 0.2, 0.5]})
    (step.inputs["documents"].folder / "signals").mkdir()
    pq.write_table(signals, step.inputs["documents"].folder / "signals" / "00000.parquet")
    kept, _, _ = run(minhash.WORK, step)
    assert {d["id"] for d in kept} == {rows[0]["id"], rows[2]["id"]}

    wrong = StepTask(
        "w", "w", minhash.MinhashConfig(quality_signal="scores@1"), step.inputs, tmp_path / "w", tmp_path, {}
    )
    with pytest.raises(ConfigError, match=r"did you mean `score@1`"):
        minhash.WORK.make_shard(wrong, 0)


@pytest.mark.parametrize("text", ["네 단어로 된 글", "four short words here", "短い文", "!!! ???", ""])
def test_short_documents_are_deduplicated(tmp_path: Path, text: str) -> None:
    rows = [row("a", text), row("b", text), row("c", "something else entirely")]
    kept, dropped, _ = run(minhash.WORK, task(tmp_path, [rows], minhash.MinhashConfig(), "short"))
    assert {d["id"] for d in kept} == {min(rows[0]["id"], rows[1]["id"]), rows[2]["id"]}
    assert len(dropped) == 1


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), shards=st.integers(1, 5))
def test_survivors_do_not_depend_on_order_or_sharding(
    tmp_path_factory: pytest.TempPathFactory, seed: int, shards: int
) -> None:
    rows = []
    for number in range(12):
        words = prose(number // 3).split()
        for k in range(number % 3):
            words[(k * 50 + 7) % len(words)] = f"edit{number}{k}"
        rows.append(row(str(number), " ".join(words)))
    tmp_path = tmp_path_factory.mktemp("order")
    reference, _, _ = run(minhash.WORK, task(tmp_path, [rows], minhash.MinhashConfig(), "one"))
    shuffled = random.Random(seed).sample(rows, len(rows))
    parts = [shuffled[i::shards] for i in range(shards)]
    kept, dropped, _ = run(minhash.WORK, task(tmp_path, parts, minhash.MinhashConfig(), "many"))
    key = lambda d: (d["id"], d["cluster_size"])  # noqa: E731
    assert sorted(map(key, kept)) == sorted(map(key, reference))
    survivors = {d["id"] for d in kept}
    assert all(d["detail"] in survivors for d in dropped)


def test_changed_input_is_refused(tmp_path: Path) -> None:
    step = task(tmp_path, [[row("a", "one"), row("b", "two")]], exact.ExactConfig(), "changed")
    exact.WORK.make_shard(step, 0)
    write_documents(step.inputs["documents"].folder, 0, table_from_rows([row("b", "two"), row("a", "one")]))
    with pytest.raises(InputError, match="documents changed"):
        exact.WORK.make_shard(step, 0)


def test_nothing_to_do_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no documents"):
        exact.WORK.shard_count(task(tmp_path, [], exact.ExactConfig(), "none"))


@pytest.mark.skipif(
    not (DATA / "neardup_docs.parquet").is_file(), reason="needs SEODANG_DATA with neardup_docs.parquet"
)
def test_recall_and_precision_on_real_revisions() -> None:
    documents = pq.read_table(DATA / "neardup_docs.parquet", columns=["id", "text"]).sort_by("id")
    pairs = pq.read_table(DATA / "neardup_pairs.parquet").to_pylist()
    values = signatures(documents["text"].cast(pa.large_string()), 5, 112)
    labels = clusters(values, band_keys(values, 14, 8), 0.7)
    place = {identity: number for number, identity in enumerate(documents["id"].to_pylist())}
    found = {label: [] for label in ("exact", "near_dup", "related", "hard_negative")}
    for pair in pairs:
        if pair["label"] in found:
            found[pair["label"]].append(labels[place[pair["id_a"]]] == labels[place[pair["id_b"]]])
    assert np.mean(found["near_dup"]) > 0.97
    assert np.mean(found["exact"]) > 0.95  # two of 65 differ in a long header, equal only after markup is stripped
    assert np.mean(found["related"]) < 0.05
    assert not any(found["hard_negative"])
