"""Clusters of documents from LSH buckets, and the best document of each.

Contract: the clusters are a function of the set of documents only: documents are numbered by ascending id before
anything else, edges are found in that order, and union-find gives the same partition for any order of edges. Two
documents that share a bucket are joined when the share of equal signature values (an unbiased estimate of their
Jaccard similarity, standard error 0.04 at 112 values) reaches the asked minimum. Cost: one sort a band; each document
is compared with at most `WINDOW` earlier ones of its bucket, so that huge buckets stay linear.
"""

from __future__ import annotations

import numpy as np
from numba import njit

WINDOW = 32  # comparisons a document and bucket (ours): boilerplate families are chained, not compared pair by pair


@njit(cache=True)
def _root(parents: np.ndarray, node: int) -> int:
    while parents[node] != node:
        parents[node] = parents[parents[node]]
        node = parents[node]
    return node


@njit(cache=True)
def _roots(parents: np.ndarray) -> np.ndarray:
    out = np.empty_like(parents)
    for node in range(parents.shape[0]):
        out[node] = _root(parents, node)
    return out


@njit(cache=True)
def _join_buckets(
    keys: np.ndarray, order: np.ndarray, values: np.ndarray, needed: int, window: int, parents: np.ndarray
) -> None:
    first = 0
    for place in range(order.shape[0]):
        here = order[place]
        if keys[here] != keys[order[first]]:
            first = place
        for other_place in range(max(first, place - window), place):
            other = order[other_place]
            a, b = _root(parents, here), _root(parents, other)
            if a == b:
                continue
            equal = 0
            for k in range(values.shape[1]):
                equal += values[here, k] == values[other, k]
            if equal >= needed:
                parents[max(a, b)] = min(a, b)


def clusters(values: np.ndarray, keys: np.ndarray, minimum_similarity: float) -> np.ndarray:
    """[documents] int64 cluster labels (the smallest row of each cluster).

    Args:
        values: [documents, values] uint32 signatures, rows in ascending order of id.
        keys: [documents, bands] uint64 bucket keys.
        minimum_similarity: Share of equal values two documents of a bucket need; 0 joins all of a bucket.
    """
    count = values.shape[0]
    parents = np.arange(count, dtype=np.int64)
    needed = int(np.ceil(minimum_similarity * values.shape[1] - 1e-9))
    for band in range(keys.shape[1]):
        column = np.ascontiguousarray(keys[:, band])
        order = np.argsort(column, kind="stable")
        _join_buckets(column, order, values, needed, WINDOW, parents)
    return _roots(parents)


def best_of(labels: np.ndarray, quality: np.ndarray, sizes: np.ndarray, id_ranks: np.ndarray) -> np.ndarray:
    """[documents] int64 row of the survivor of each document's cluster.

    The best has the highest `quality` (integers), then the largest size in bytes, then the smallest id.
    """
    order = np.lexsort((id_ranks, -sizes, -quality, labels))
    first = np.ones(order.shape[0], bool)
    first[1:] = labels[order[1:]] != labels[order[:-1]]
    leaders = order[first]
    keeper = np.empty(order.shape[0], np.int64)
    keeper[order] = leaders[np.cumsum(first) - 1]
    return keeper
