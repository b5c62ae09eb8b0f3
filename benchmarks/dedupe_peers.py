"""Near-duplicate removal by other libraries: datatrove's four stages, LSH pipelines over datasketch and rensa.

Contract: texts to a cluster label each. Bands, rows and shingles are ours (`stages.dedup.methods`); datatrove signs the
documents of each language with its own words of it, and joins all that share a bucket; the LSH pipelines' shingles are
words split at what is no letter or digit, and pairs need the same estimated similarity as ours.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.datatrove_peer import CODES, silence
from benchmarks.minhash import BANDS, ROWS, SEED, SHINGLE, VALUES, word_shingles
from benchmarks.peers import peer
from stages.dedup.methods import MinhashConfig

SIMILARITY = MinhashConfig().minimum_similarity


class Datatrove:
    """Its words are loaded when it is made."""

    def __init__(self, texts: Sequence[str], languages: Sequence[str]) -> None:
        from datatrove.data import Document
        from datatrove.pipeline.dedup.minhash import MinhashConfig as Config
        from datatrove.utils.word_tokenizers import load_word_tokenizer

        silence()
        self._config = Config(n_grams=SHINGLE, num_buckets=BANDS, hashes_per_bucket=ROWS)
        self._rows = {found: [row for row, one in enumerate(languages) if one == found] for found in CODES}
        self._documents = {
            found: [Document(text=texts[row], id=str(row)) for row in rows] for found, rows in self._rows.items()
        }
        for found, rows in self._rows.items():
            if rows:
                load_word_tokenizer(CODES[found]).word_tokenize("2025")
        self._count = len(texts)

    def __call__(self) -> np.ndarray:
        from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupSignature

        with tempfile.TemporaryDirectory() as name:
            signed, pairs, found = (str(Path(name) / step) for step in ("signatures", "pairs", "found"))
            ranks = [language for language, rows in self._rows.items() if rows]
            for rank, language in enumerate(ranks):
                stage = MinhashDedupSignature(signed, self._config, CODES[language])
                stage.run(iter(self._documents[language]), rank, len(ranks))
            for bucket in range(BANDS):
                MinhashDedupBuckets(signed, pairs, config=self._config).run(None, bucket, BANDS)
            MinhashDedupCluster(pairs, found, self._config, save_cluster_id=True).run(None, 0, 1)
            labels = np.arange(self._count) + self._count  # those in no cluster
            for rank, language in enumerate(ranks):
                file = Path(found) / f"{rank:06d}.clusters"
                if file.is_file():
                    clusters = np.fromfile(file, "<u4").reshape(-1, 2)
                    labels[np.array(self._rows[language])[clusters[:, 0]]] = clusters[:, 1]
        return labels


def datasketch_labels(texts: Sequence[str]) -> np.ndarray:
    """MinHash and MinHashLSH."""
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


def rensa_labels(texts: Sequence[str]) -> np.ndarray:
    """RMinHash and RMinHashLSH."""
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
