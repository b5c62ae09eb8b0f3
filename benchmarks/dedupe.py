"""Near-duplicate removal, text to survivors: ours against LSH pipelines of datasketch and rensa.

Contract: 14 bands of 8 values over word 5-grams on each side; the peers' shingles are words split at what is no letter
or digit, clusters are made of their LSH's answers by union-find. Quality is recall of the labelled near-duplicates
(pairs in one cluster); how many labelled hard negatives are in one cluster is in the notes. Without the labelled
documents, planted ones stand in: copies with a tenth of their sentences replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.inputs import Corpus, documents, parquet_rows
from benchmarks.measure import interleaved
from benchmarks.minhash import SEED, SHINGLE, VALUES, word_shingles
from benchmarks.peers import against, peer
from benchmarks.result import Comparison, Found, Spread
from benchmarks.settings import Settings, SizeName
from pipeline.core.tokenizer import nfc
from stages.dedup.cluster import clusters
from stages.dedup.signatures import band_keys, signatures

NAME = "dedupe"
BANDS, ROWS = 14, 8
SIMILARITY = 0.7
DUPLICATES = ("near_dup", "exact")
NEGATIVES = ("hard_negative",)
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
    """Against datasketch and rensa."""
    load = LOADS[settings.size]
    given = labelled(load)
    yield from against(
        "datasketch MinHashLSH",
        ("datasketch",),
        lambda: _compared(given, load, "datasketch MinHashLSH", lambda: _datasketch(given.corpus.texts)),
    )
    yield from against(
        "rensa RMinHashLSH",
        ("rensa",),
        lambda: _compared(given, load, "rensa RMinHashLSH", lambda: _rensa(given.corpus.texts)),
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


def _compared(given: Labelled, load: Load, peer_name: str, theirs: Labels) -> Comparison:
    texts = pa.array(given.corpus.texts, pa.large_string())

    def ours() -> np.ndarray:
        values = signatures(texts, SHINGLE, VALUES)
        return clusters(values, band_keys(values, BANDS, ROWS), SIMILARITY)

    seconds = interleaved([ours, theirs], load.rounds)
    found = {"ours": ours(), "peer": theirs()}
    return Comparison(
        NAME,
        "text to clusters",
        "MB/s",
        Spread.rate(given.corpus.megabytes, seconds[0]),
        Spread.rate(given.corpus.megabytes, seconds[1]),
        peer_name,
        given.corpus.label,
        quality_ours=_share(found["ours"], given.duplicates),
        quality_peer=_share(found["peer"], given.duplicates),
        quality="recall",
        notes={
            "survivors": {side: len(np.unique(labels)) for side, labels in found.items()},
            "negatives_joined": {side: _share(labels, given.negatives) for side, labels in found.items()},
        },
    )


def _share(labels: np.ndarray, pairs: np.ndarray) -> float:
    """Share of the pairs that are in one cluster; 1 for no pairs."""
    return float((labels[pairs[:, 0]] == labels[pairs[:, 1]]).mean()) if len(pairs) else 1.0


def _datasketch(texts: Sequence[str]) -> np.ndarray:
    from datasketch import MinHash, MinHashLSH

    batches = [[shingle.encode("utf-8") for shingle in word_shingles(text)] for text in texts]
    sketches = list(MinHash.bulk(batches, num_perm=VALUES, seed=SEED))
    index: Any = MinHashLSH(num_perm=VALUES, params=(BANDS, ROWS))
    groups = _Groups(len(texts))
    for row, sketch in enumerate(sketches):
        for other in index.query(sketch):
            if sketch.jaccard(sketches[other]) >= SIMILARITY:
                groups.join(row, other)
        index.insert(row, sketch, check_duplication=False)
    return groups.labels()


def _rensa(texts: Sequence[str]) -> np.ndarray:
    rensa = peer("rensa")
    sketches: list[Any] = rensa.RMinHash.from_token_sets([word_shingles(text) for text in texts], VALUES, SEED)
    index = rensa.RMinHashLSH(threshold=SIMILARITY, num_perm=VALUES, num_bands=BANDS)
    groups = _Groups(len(texts))
    for row, sketch in enumerate(sketches):
        for other in index.query(sketch):
            if sketch.jaccard(sketches[other]) >= SIMILARITY:
                groups.join(row, other)
        index.insert(row, sketch)
    return groups.labels()


class _Groups:
    """Union-find, for the peers' pairs."""

    def __init__(self, count: int) -> None:
        self._parents = list(range(count))

    def join(self, left: int, right: int) -> None:
        a, b = self._root(left), self._root(right)
        self._parents[max(a, b)] = min(a, b)

    def labels(self) -> np.ndarray:
        return np.array([self._root(row) for row in range(len(self._parents))])

    def _root(self, row: int) -> int:
        while self._parents[row] != row:
            self._parents[row] = self._parents[self._parents[row]]
            row = self._parents[row]
        return row
