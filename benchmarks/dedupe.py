"""Near-duplicate removal, text to survivors: ours against datatrove's four stages and LSH pipelines of two libraries.

Contract: our default bands and rows over word 5-grams on each side (`benchmarks.dedupe_peers`). Quality is recall of
the labelled near-duplicates and exact copies (pairs in one cluster); precision, over these and the labelled pairs that
are related or hard negatives, is told beside it. Without the labelled documents, planted ones stand in: copies with a
tenth of their sentences replaced. datatrove is measured once, without a warm-up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from benchmarks.datatrove_peer import WORD_PACKAGES
from benchmarks.dedupe_peers import SIMILARITY, Datatrove, datasketch_labels, rensa_labels
from benchmarks.inputs import Corpus, documents, parquet_rows
from benchmarks.measure import interleaved
from benchmarks.minhash import BANDS, ROWS, SHINGLE, VALUES
from benchmarks.peers import against
from benchmarks.result import Comparison, Found, Spread
from benchmarks.settings import Settings, SizeName
from pipeline.core.tokenizer import nfc
from stages.dedup.cluster import clusters
from stages.dedup.signatures import band_keys, signatures

NAME = "dedupe"
DUPLICATES = ("near_dup", "exact")
NEGATIVES = ("related", "hard_negative")
Labels = Callable[[], np.ndarray]


@dataclass(frozen=True)
class Load:
    most_documents: int
    bytes_of_language: int  # of generated input
    rounds: int


LOADS: dict[SizeName, Load] = {"full": Load(1_000_000, 400_000, 3), "quick": Load(60, 10_000, 1)}


@dataclass(frozen=True)
class Labelled:
    corpus: Corpus
    duplicates: np.ndarray  # [pairs, 2] rows
    negatives: np.ndarray  # [pairs, 2] rows


def run(settings: Settings) -> Iterator[Found]:
    """Against datatrove, datasketch and rensa."""
    load = LOADS[settings.size]
    given = labelled(load)
    texts = given.corpus.texts
    needed = ("datatrove", "xxhash", *dict.fromkeys(name for found in WORD_PACKAGES.values() for name in found))
    yield from against(
        "datatrove minhash",
        needed,
        lambda: _compared(given, 1, 0, "datatrove's four minhash stages", Datatrove(texts, given.corpus.languages)),
    )
    yield from against(
        "datasketch MinHashLSH",
        ("datasketch",),
        lambda: _compared(given, load.rounds, 1, "datasketch MinHashLSH", lambda: datasketch_labels(texts)),
    )
    yield from against(
        "rensa RMinHashLSH",
        ("rensa",),
        lambda: _compared(given, load.rounds, 1, "rensa RMinHashLSH", lambda: rensa_labels(texts)),
    )


def labelled(load: Load) -> Labelled:
    """Documents with pairs known to be near-duplicates or known not to be."""
    rows = parquet_rows("neardup_docs.parquet", ("id", "text", "lang"))
    pairs = parquet_rows("neardup_pairs.parquet", ("id_a", "id_b", "label"))
    if rows is None or pairs is None:
        return _planted(documents(load.bytes_of_language))
    row_of = {row["id"]: number for number, row in enumerate(rows)}
    wanted = [(row_of[pair["id_a"]], row_of[pair["id_b"]], pair["label"]) for pair in pairs]
    kept = sorted({row for pair in wanted for row in pair[:2]})[: load.most_documents]
    place = {row: number for number, row in enumerate(kept)}
    ids, texts, languages = zip(
        *((rows[row]["id"], nfc(rows[row]["text"]), rows[row]["lang"]) for row in kept), strict=True
    )
    corpus = Corpus(ids, texts, languages, "")
    label = f"SEODANG_DATA labelled revisions, {len(ids)} documents, {corpus.megabytes:.1f} MB"

    def rows_of(labels: Sequence[str]) -> np.ndarray:
        found = [(place[a], place[b]) for a, b, name in wanted if name in labels and a in place and b in place]
        return np.array(found, np.int64).reshape(-1, 2)

    return Labelled(Corpus(ids, texts, languages, label), rows_of(DUPLICATES), rows_of(NEGATIVES))


def _planted(corpus: Corpus) -> Labelled:
    count = len(corpus.ids)
    copies = tuple(
        f"{text[: len(text) * 9 // 10]} {corpus.texts[row - 1][:40]}" for row, text in enumerate(corpus.texts)
    )
    whole = Corpus(
        (*corpus.ids, *(f"{identity}-copy" for identity in corpus.ids)),
        (*corpus.texts, *copies),
        corpus.languages * 2,
        f"{corpus.label}, and a changed copy of each",
    )
    rows = np.arange(count)
    return Labelled(whole, np.stack([rows, rows + count], 1), np.stack([rows[:-1], rows[1:]], 1))


def _compared(given: Labelled, rounds: int, warm_ups: int, peer_name: str, theirs: Labels) -> Comparison:
    texts = pa.array(given.corpus.texts, pa.large_string())

    def ours() -> np.ndarray:
        values = signatures(texts, SHINGLE, VALUES)
        return clusters(values, band_keys(values, BANDS, ROWS), SIMILARITY)

    found: dict[str, np.ndarray] = {}
    sides = [lambda: found.update(ours=ours()), lambda: found.update(peer=theirs())]
    ours()
    seconds = interleaved(sides, rounds, warm_ups)
    recall = {side: _share(labels, given.duplicates) for side, labels in found.items()}
    precision = {side: _precision(labels, given) for side, labels in found.items()}
    return Comparison(
        NAME,
        "text to clusters",
        "MB/s",
        Spread.rate(given.corpus.megabytes, seconds[0]),
        Spread.rate(given.corpus.megabytes, seconds[1]),
        peer_name,
        given.corpus.label,
        quality_ours=recall["ours"],
        quality_peer=recall["peer"],
        quality=f"precision {precision['ours']:.4g} / {precision['peer']:.4g}, recall",
        notes={
            "survivors": {side: len(np.unique(labels)) for side, labels in found.items()},
            "precision": precision,
        },
    )


def _precision(labels: np.ndarray, given: Labelled) -> float:
    """Of the labelled pairs that are in one cluster, the share of near-duplicates and copies."""
    right = _share(labels, given.duplicates) * len(given.duplicates)
    wrong = _share(labels, given.negatives) * len(given.negatives)
    return right / (right + wrong)


def _share(labels: np.ndarray, pairs: np.ndarray) -> float:
    """Share of the pairs that are in one cluster; 1 for no pairs."""
    return float((labels[pairs[:, 0]] == labels[pairs[:, 1]]).mean()) if len(pairs) else 1.0
