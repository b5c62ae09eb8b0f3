"""What two segments, or two components of one, have in common: the same documents, near-duplicates, n-grams.

Contract: `shared_documents` is exact and counted in tokens. `sampled_overlap` looks at documents chosen by a hash of
their shard and row, the same in every run: near-duplicates by MinHash over 5-token shingles and locality-sensitive
hashing (datasketch), distinct 8-token n-grams by HyperLogLog++ (datasketch). A near-duplicate whose twin was not
sampled is not seen, so that share is a lower bound; the sample's sizes stand beside it.
Cost: the pieces once; of tokens the sampled documents, some seconds.

Shapes: P pieces, D documents, A and B components of two segments.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasketch import HyperLogLogPlusPlus, MinHash, MinHashLSH

from mixes.blocks import MappedTokens
from mixes.catalog import Catalogue, catalogue_of
from pipeline.core.plans import Plan, Segment, SegmentRows
from pipeline.core.rng import Permutation, derive_seed

SAMPLED_DOCUMENTS = 1000  # of each component
SAMPLED_TOKENS = 8192  # of each document, from its beginning
SHINGLE_TOKENS = 5  # as in the near-duplicate removal of FineWeb
NGRAM_TOKENS = 8
PERMUTATIONS = 128
THRESHOLD = 0.8  # Jaccard similarity from which two documents count as near-duplicates
PRECISION = 14  # of HyperLogLog++: 2^14 registers, 0.8 % error
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Shared:
    """Documents of the second that the first has too."""

    documents: int
    tokens: int  # of the second's planned tokens, repeats counted
    of_documents: int  # of the second
    of_tokens: int


def shared_documents(one: tuple[Plan, Segment], other: tuple[Plan, Segment]) -> dict[str, dict[str, Shared]]:
    """Component of `other` -> component of `one` (and `all`) -> what they share. The same shard has the same hash."""
    known = _documents_by_shard(one)
    plan, segment = other
    count, width = len(segment.components), len(one[1].components)
    tokens_BA, total_B = np.zeros((count, width + 1), np.int64), np.zeros(count, np.int64)
    documents: list[list[np.ndarray]] = [[] for _ in range(count)]
    for _, columns in SegmentRows(plan, segment).piece_batches():
        masks = _masks_of(known, segment, columns["shard"], columns["document"])
        for b in range(count):
            own = columns["component"] == b
            mask, length = masks[own], columns["length"][own].astype(np.int64)
            total_B[b] += int(length.sum())
            for a in range(width):
                tokens_BA[b, a] += int(length[(mask >> np.uint64(a)) & np.uint64(1) == 1].sum())
            tokens_BA[b, width] += int(length[mask != 0].sum())
            key = columns["shard"][own].astype(np.int64) << 40 | columns["document"][own]
            keys, first = np.unique(key, return_index=True)
            documents[b].append(np.stack([keys, mask[first].astype(np.int64)]))
    names = [*one[1].components, "all"]
    found: dict[str, dict[str, Shared]] = {}
    for b, component in enumerate(segment.components):
        distinct = np.concatenate(documents[b], axis=1) if documents[b] else np.empty((2, 0), np.int64)
        _, first = np.unique(distinct[0], return_index=True)
        mask = distinct[1, first]
        hits = [*(int(((mask >> a) & 1).sum()) for a in range(width)), int((mask != 0).sum())]
        found[component] = {
            name: Shared(hits[a], int(tokens_BA[b, a]), first.shape[0], int(total_B[b])) for a, name in enumerate(names)
        }
    return found


def _documents_by_shard(part: tuple[Plan, Segment]) -> dict[str, np.ndarray]:
    """Content hash of a shard -> [documents] uint64, bit a set where component a serves the document."""
    plan, segment = part
    assert len(segment.components) < 63, "a mix of that many components"
    catalogue = catalogue_of(plan.store, segment.tokenizer, segment.shards)
    mask_D = np.zeros(catalogue.documents, np.uint64)
    for _, columns in SegmentRows(plan, segment).piece_batches():
        row_P = catalogue.first_document_S[columns["shard"]] + columns["document"]
        np.bitwise_or.at(mask_D, row_P, np.uint64(1) << columns["component"].astype(np.uint64))
    bounds = catalogue.first_document_S.tolist()
    return {shard.content: mask_D[bounds[number] : bounds[number + 1]] for number, shard in enumerate(segment.shards)}


def _masks_of(
    known: Mapping[str, np.ndarray], segment: Segment, shard_P: np.ndarray, document_P: np.ndarray
) -> np.ndarray:
    mask_P = np.zeros(shard_P.shape[0], np.uint64)
    for number, shard in enumerate(segment.shards):
        if shard.content in known:
            own = shard_P == number
            mask_P[own] = known[shard.content][document_P[own]]
    return mask_P


@dataclass(frozen=True)
class Sample:
    """Sketches of some documents of one component."""

    component: str
    documents: int
    tokens: int
    signatures: tuple[MinHash, ...]
    ids: tuple[str, ...]  # content hash of the shard and row
    ngrams: HyperLogLogPlusPlus
    ngrams_seen: int  # repeats counted


def sample_components(plan: Plan, segment: Segment, documents: int = SAMPLED_DOCUMENTS) -> dict[str, Sample]:
    """Sketches of a sample of each component's documents."""
    catalogue = catalogue_of(plan.store, segment.tokenizer, segment.shards)
    tokens = MappedTokens(plan.store, segment)
    used = np.zeros((len(segment.components), catalogue.documents), bool)
    for _, columns in SegmentRows(plan, segment).piece_batches():
        used[columns["component"], catalogue.first_document_S[columns["shard"]] + columns["document"]] = True
    return {
        component: _sample(component, segment, catalogue, tokens, np.flatnonzero(used[number]), documents)
        for number, component in enumerate(segment.components)
    }


def _sample(
    component: str, segment: Segment, catalogue: Catalogue, tokens: MappedTokens, row_N: np.ndarray, documents: int
) -> Sample:
    order = Permutation(row_N.shape[0], derive_seed("overlap sample", component))
    chosen = row_N[order.take(np.arange(min(documents, row_N.shape[0]), dtype=np.int64))]
    ngrams = HyperLogLogPlusPlus(PRECISION)
    signatures, ids, seen, total = [], [], 0, 0
    for row in np.sort(chosen).tolist():
        shard = int(catalogue.shard_of(np.array([row]))[0])
        token_ids = tokens.read(shard, int(catalogue.start_D[row]), min(int(catalogue.length_D[row]), SAMPLED_TOKENS))
        signature = MinHash(PERMUTATIONS, hashfunc=int)
        signature.update_batch((_windows(token_ids, SHINGLE_TOKENS) >> np.uint64(32)).tolist())
        signatures.append(signature)
        ids.append(f"{segment.shards[shard].content}/{row - int(catalogue.first_document_S[shard])}")
        hashes = _windows(token_ids, NGRAM_TOKENS)
        count_ngrams(ngrams, hashes)
        seen, total = seen + hashes.shape[0], total + token_ids.shape[0]
    return Sample(component, len(ids), total, tuple(signatures), tuple(ids), ngrams, seen)


def _windows(token_ids: np.ndarray, width: int) -> np.ndarray:
    """[n] uint64 hash of every `width` tokens that follow each other; of a shorter document, of all of it."""
    ids = token_ids.astype(np.uint64)
    if ids.shape[0] < width:
        ids = np.concatenate([ids, np.zeros(width - ids.shape[0], np.uint64)])
    count = ids.shape[0] - width + 1
    mixed = np.zeros(count, np.uint64)
    for place in range(width):
        mixed = (mixed ^ ids[place : place + count]) * MULTIPLIER
        mixed ^= mixed >> np.uint64(29)
    return mixed


def count_ngrams(sketch: HyperLogLogPlusPlus, hashes: np.ndarray) -> None:
    """Add 64-bit hashes to the sketch's registers, all at once: as `update` does one by one."""
    register = hashes & np.uint64(sketch.m - 1)
    rest = hashes >> np.uint64(sketch.p)
    bits = 64 - sketch.p
    length = np.zeros(rest.shape[0], np.int64)  # of `rest` in bits, exactly: no logarithm
    for shift in (32, 16, 8, 4, 2, 1):
        high = rest >> np.uint64(shift)
        some = high > 0
        length[some] += shift
        rest = np.where(some, high, rest)
    length += rest > 0
    np.maximum.at(sketch.reg, register, (bits - length + 1).astype(sketch.reg.dtype))


def sampled_overlap(one: Sample, other: Sample) -> dict[str, Any]:
    """Near-duplicates of `other`'s sample in `one`'s, and the n-grams both have."""
    index = MinHashLSH(THRESHOLD, PERMUTATIONS)
    for identity, signature in zip(one.ids, one.signatures, strict=True):
        index.insert(identity, signature)
    hits = 0
    for identity, signature in zip(other.ids, other.signatures, strict=True):
        found = [key for key in index.query(signature) if key != identity]
        hits += bool(found)
    union = HyperLogLogPlusPlus(PRECISION, reg=np.maximum(one.ngrams.reg, other.ngrams.reg))
    both = max(0.0, one.ngrams.count() + other.ngrams.count() - union.count())
    return {
        "sampled": [one.documents, other.documents],
        "near_duplicates": hits,
        "near_duplicate_share": hits / max(other.documents, 1),
        "distinct_ngrams": [round(float(part.ngrams.count())) for part in (one, other)],
        "shared_ngram_share": float(both / max(other.ngrams.count(), 1.0)),
    }
