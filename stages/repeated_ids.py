"""Ids that more than one document of a step has, found over all of its shards.

Contract: a count and the first few ids with their shards. Memory: `KEYS` keys of 16 bytes at a time; a larger corpus is
gone through once for each part of the key space, so that memory does not grow with it. Cost: reading the id columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

KEYS = 1 << 24  # held at once
NAMED = 20  # ids that are told


def repeated_ids(files: Sequence[Path], keys: int = KEYS) -> dict[str, Any]:
    """`{"ids": how many, "documents": that have them, "first": {id: shards}}`, or nothing when every id is unique."""
    total = sum(pq.read_metadata(path).num_rows for path in files)
    parts = max(1, -(-total // keys))
    ids = documents = 0
    first: dict[str, list[str]] = {}
    for part in range(parts):
        found, shards = _keys(files, part, parts)
        order = np.argsort(found, order=("high", "low"), kind="stable")
        found, shards = found[order], shards[order]
        starts = np.flatnonzero(np.concatenate([[True], found[1:] != found[:-1]])) if found.size else np.zeros(0, int)
        counts = np.diff(np.append(starts, found.size))
        for start, count in zip(starts[counts > 1], counts[counts > 1], strict=True):
            ids += 1
            documents += int(count)
            if len(first) < NAMED:
                name = f"{int(found['high'][start]):016x}{int(found['low'][start]):016x}"
                first[name] = sorted({files[shard].stem for shard in shards[start : start + count]})
    return {"ids": ids, "documents": documents, "first": first} if ids else {}


def _keys(files: Sequence[Path], part: int, parts: int) -> tuple[np.ndarray, np.ndarray]:
    """(keys, number of the file each is in) of one part of the key space."""
    kind = np.dtype([("high", ">u8"), ("low", ">u8")])
    keys, shards = [np.zeros(0, kind)], [np.zeros(0, np.int64)]
    for number, path in enumerate(files):
        names = pq.read_table(path, columns=["id"])["id"].to_pylist()
        found = np.frombuffer(bytes.fromhex("".join(names)), kind)
        chosen = found[found["high"] % parts == part] if parts > 1 else found
        keys.append(chosen)
        shards.append(np.full(chosen.size, number, np.int64))
    return np.concatenate(keys), np.concatenate(shards)
