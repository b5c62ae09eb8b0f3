"""Signatures to clusters, out of core: ours against datatrove's bucket and cluster stages on the same signatures.

Contract: signatures are random (`write_random`), a tenth of them near-copies of the one before with one value in eight
drawn anew, in signature files of `SHARD` documents; generating them is not measured. Ours is every task of the three
steps between signatures and survivors, one after the other. The growth exponent is between two sizes; memory is the
peak of a fresh process. 10^9 signatures follow from it: bytes on disk, key ranges of 2^19 documents each and nodes with
a duplicate (`notes`).
"""

from __future__ import annotations

import math
import struct
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from benchmarks.datatrove_peer import silence
from benchmarks.measure import Side, peak_memory, timed
from benchmarks.peers import against
from benchmarks.result import Comparison, Found, Spread
from benchmarks.settings import Settings, SizeName
from stages.dedup.clusters import Decided, part_count
from stages.dedup.forests import forest, forest_count
from stages.dedup.keyfiles import DOCUMENT, node_count, signed_folders, write_keys
from stages.dedup.pairs import range_count, range_pairs
from stages.dedup.signatures import band_keys

NAME = "clustering"
BANDS, ROWS = 14, 8
SIMILARITY = 0.65
SHARD = 250_000
COPIES = 10  # every tenth document is a near-copy of the one before
CHANGED = 8  # of which one value in eight is drawn anew: similarity 0.88


@dataclass(frozen=True)
class Load:
    against_peer: int  # documents
    sizes: tuple[int, int]  # documents, for the exponent and the memory


LOADS: dict[SizeName, Load] = {"full": Load(250_000, (1_000_000, 10_000_000)), "quick": Load(2_000, (2_000, 4_000))}


def run(settings: Settings) -> Iterator[Found]:
    """Against datatrove; then how time and memory grow, against growth in proportion."""
    load = LOADS[settings.size]
    yield from against("datatrove", ("datatrove",), lambda: _against_datatrove(load.against_peer))
    with tempfile.TemporaryDirectory() as folder:
        small, large = (write_random(Path(folder) / str(size), size) for size in load.sizes)
        seconds = [timed(lambda where=where: cluster(where)) for where in (small, large)]
        memory = [peak_memory(clustering_of, str(where)) for where in (small, large)]
        spread = Spread.of([math.log(seconds[1] / seconds[0]) / math.log(load.sizes[1] / load.sizes[0])])
        yield Comparison(
            NAME,
            "growth of time",
            "exponent",
            spread,
            Spread.of([1.0]),
            "growth in proportion",
            f"{load.sizes[0]} and {load.sizes[1]} random signatures",
            notes={
                "seconds": [round(one, 2) for one in seconds],
                "peak_mib": [round(one.median) for one in memory],
                "disk_bytes_a_document": sum(p.stat().st_size for p in large.rglob("*.npy")) / load.sizes[1],
            },
        )


def random_signatures(documents: int, seed: int = 1) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each shard: (records of `DOCUMENT`, [documents, values] uint32)."""
    generator = np.random.default_rng(seed)
    for first in range(0, documents, SHARD):
        count = min(SHARD, documents - first)
        values = generator.integers(0, 1 << 32, (count, BANDS * ROWS), np.uint32)
        copies = np.arange(1, count, COPIES)
        changed = generator.integers(0, CHANGED, (copies.shape[0], BANDS * ROWS)) == 0
        values[copies] = np.where(changed, values[copies], values[copies - 1])
        known = np.zeros(count, DOCUMENT)
        known["high"] = generator.integers(0, 1 << 63, count, np.uint64)
        known["size"] = generator.integers(100, 10_000, count)
        known["cluster_size"] = 1
        yield known, values


def write_random(folder: Path, documents: int) -> Path:
    """Signature files of random documents; returns the folder."""
    for shard, (known, values) in enumerate(random_signatures(documents)):
        keys = band_keys(values, BANDS, ROWS)
        write_keys(folder, shard, known, values.astype(np.uint8), keys, np.arange(known.shape[0]))
    return folder


def cluster(folder: Path) -> int:
    """Every key range, every range of documents, every part of the clusters; returns how many documents go."""
    signed = signed_folders([folder])
    ranges = range_count(signed)
    pairs = [range_pairs(signed, part, ranges, SIMILARITY)[0] for part in range(ranges)]
    forests = [forest(pairs, part) for part in range(forest_count(node_count(signed)))]
    parts = part_count(sum(map(len, forests)))
    decided = [Decided.of(signed, forests, part, parts).table() for part in range(parts)]
    return sum(table.num_rows - int(pc.sum(table["kept"]).as_py() or 0) for table in decided)


def clustering_of(folder: str) -> Side:
    """For `peak_memory`: nothing is made beforehand."""
    return lambda: lambda: cluster(Path(folder))


def _against_datatrove(documents: int) -> Comparison:
    from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster
    from datatrove.pipeline.dedup.minhash import MinhashConfig
    from datatrove.utils.hashing import HashConfig

    silence()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_random(folder / "ours", documents)
        _write_datatrove(documents, folder / "theirs")
        config = MinhashConfig(hash_config=HashConfig(precision=32))

        def theirs() -> None:
            for bucket in range(BANDS):
                MinhashDedupBuckets(str(folder / "theirs"), str(folder / "pairs"), config=config).run(
                    None, bucket, BANDS
                )
            MinhashDedupCluster(str(folder / "pairs"), str(folder / "removed"), config=config).run(None, 0, 1)

        started = time.process_time()
        kept_out = cluster(folder / "ours")
        ours = time.process_time() - started
        peer = timed(theirs)
        removed = sum(path.stat().st_size for path in (folder / "removed").glob("*.remove")) // struct.calcsize("<I")
    return Comparison(
        NAME,
        "signatures to survivors",
        "documents/s",
        Spread.rate(documents, [ours]),
        Spread.rate(documents, [peer]),
        "datatrove MinhashDedupBuckets, MinhashDedupCluster",
        f"{documents} random signatures, a tenth near-copies",
        notes={"removed": {"ours": kept_out, "peer": removed}},
    )


def _write_datatrove(documents: int, folder: Path) -> None:
    """The same values as datatrove's sorted signature files of 32-bit hashes."""
    record = np.dtype([(f"v{k}", "<u4") for k in range(ROWS)] + [("document", "<u4")])
    for shard, (_, values) in enumerate(random_signatures(documents)):
        for band in range(BANDS):
            rows = np.zeros(values.shape[0], record)
            for k in range(ROWS):
                rows[f"v{k}"] = values[:, band * ROWS + k]
            rows["document"] = np.arange(values.shape[0])
            rows.sort(order=record.names)
            bucket = folder / f"bucket_{band:03d}"
            bucket.mkdir(parents=True, exist_ok=True)
            rows.tofile(bucket / f"{shard:05d}.minhash.sig")
