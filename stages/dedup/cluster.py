"""Buckets to pairs, pairs to clusters, and the best document of each.

Contract: the clusters are a function of the set of documents only: inside a bucket documents stand in an order of
their own (age, id), each is compared with the `WINDOW` before it, and joining is the same for any order of pairs. Two
documents of a bucket are a pair when the share of equal signature values (an unbiased estimate of their Jaccard
similarity, standard error 0.04 at 112 values) reaches the asked minimum. Of the pairs of a bucket a spanning forest
is given: joining gives the same clusters. Cost: a sort of the keys; memory for pairs, never for documents without one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numba import njit

WINDOW = 32  # comparisons a document and bucket (ours): boilerplate families are chained, not compared pair by pair
FEW = 32  # equal keys that are put in order by insertion


@njit(cache=True)
def root(parents: np.ndarray, node: int) -> int:
    """The representative of a node, halving the path to it."""
    while parents[node] != node:
        parents[node] = parents[parents[node]]
        node = parents[node]
    return node


@njit(cache=True)
def _roots(parents: np.ndarray) -> np.ndarray:
    out = np.empty_like(parents)
    for node in range(parents.shape[0]):
        out[node] = root(parents, node)
    return out


@njit(cache=True)
def _bucket_pairs(keys: np.ndarray, values: np.ndarray, needed: int, window: int) -> tuple[np.ndarray, np.int64]:
    parents = np.arange(keys.shape[0])
    pairs = np.empty((keys.shape[0], 2), np.int64)
    count = 0
    compared = np.int64(0)
    first = 0
    for place in range(keys.shape[0]):
        if keys[place] != keys[first]:
            first = place
        for other in range(place - 1, max(first, place - window) - 1, -1):
            a, b = root(parents, place), root(parents, other)
            if a == b:
                continue
            compared += 1
            equal = 0
            for k in range(values.shape[1]):
                equal += values[place, k] == values[other, k]
            if equal >= needed:
                parents[max(a, b)] = min(a, b)
                pairs[count, 0] = other
                pairs[count, 1] = place
                count += 1
    return pairs[:count], compared


def bucket_pairs(keys: np.ndarray, values: np.ndarray, needed: int) -> tuple[np.ndarray, int]:
    """([pairs, 2] int64 places of documents to join, comparisons made).

    Args:
        keys: [members] uint64, equal ones side by side and in bucket order.
        values: [members, V] their signature values or checks.
        needed: Equal values that make a pair.
    """
    pairs, compared = _bucket_pairs(keys, values, needed, WINDOW)
    return pairs, int(compared)


def values_needed(minimum_similarity: float, count: int) -> int:
    """Equal values out of `count` that reach a similarity."""
    return int(np.ceil(minimum_similarity * count - 1e-9))


@njit(cache=True)
def _join(parents: np.ndarray, left: np.ndarray, right: np.ndarray) -> None:
    for k in range(left.shape[0]):
        a, b = root(parents, left[k]), root(parents, right[k])
        if a != b:
            parents[max(a, b)] = min(a, b)


def components(pairs: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(nodes, labels): the nodes that pairs name, ascending, and the place of the smallest node of each one's cluster.

    Args:
        pairs: Arrays [pairs, 2] of node numbers; may be mapped files, each is read twice.
    """
    nodes = distinct(pairs)
    parents = np.arange(nodes.shape[0], dtype=np.int64)
    for part in pairs:
        for first in range(0, part.shape[0], 1 << 20):
            few, places = ranked(np.asarray(part[first : first + (1 << 20)]).ravel())
            pair_places = np.searchsorted(nodes, few)[places].reshape(-1, 2)
            _join(parents, pair_places[:, 0], pair_places[:, 1])
    return nodes, _roots(parents)


def distinct(pairs: Iterable[np.ndarray]) -> np.ndarray:
    """[nodes] int64 ascending; memory stays within a few times the answer's."""
    found = np.empty(0, np.int64)
    waiting: list[np.ndarray] = []
    for part in pairs:
        waiting.append(sorted_distinct(np.asarray(part).ravel()))
        if sum(map(len, waiting)) > len(found) + (1 << 20):
            found = sorted_distinct(np.concatenate([found, *waiting]))
            waiting = []
    return sorted_distinct(np.concatenate([found, *waiting]))


def sorted_distinct(nodes: np.ndarray) -> np.ndarray:
    """Like `numpy.unique`, by sorting: ten times as fast as its hashing (numpy 2.4)."""
    ascending = np.sort(nodes)
    first = np.ones(ascending.shape[0], bool)
    first[1:] = ascending[1:] != ascending[:-1]
    return ascending[first]


def ranked(nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(distinct nodes, ascending; the place of each of `nodes` among them)."""
    order = np.argsort(nodes)
    ascending = nodes[order]
    first = np.ones(nodes.shape[0], bool)
    first[1:] = ascending[1:] != ascending[:-1]
    places = np.empty(nodes.shape[0], np.int64)
    places[order] = np.cumsum(first) - 1
    return ascending[first], places


def clusters(values: np.ndarray, keys: np.ndarray, minimum_similarity: float) -> np.ndarray:
    """[documents] int64 cluster labels (the smallest row of each cluster), all in memory.

    Args:
        values: [documents, V] signatures, rows in bucket order.
        keys: [documents, bands] uint64 bucket keys.
        minimum_similarity: Share of equal values two documents of a bucket need; 0 joins all of a bucket.
    """
    needed = values_needed(minimum_similarity, values.shape[1])
    pairs: list[np.ndarray] = []
    for column in np.ascontiguousarray(keys.T):
        members = shared(column)
        found, _ = bucket_pairs(column[members], values[members], needed)
        pairs.append(members[found])
    nodes, labels = components(pairs)
    out = np.arange(values.shape[0], dtype=np.int64)
    out[nodes] = nodes[labels]
    return out


def shared(keys: np.ndarray) -> np.ndarray:
    """[members] int64 places of keys that occur more than once, equal keys side by side, in order of key and place."""
    order = ascending_order(keys)
    ascending = keys[order]
    same = np.zeros(keys.shape[0] + 1, bool)
    same[1:-1] = ascending[1:] == ascending[:-1]
    return order[same[1:] | same[:-1]]


def ascending_order(keys: np.ndarray) -> np.ndarray:
    """A stable argsort: numpy's fast one, whose order of equal keys is the processor's, put right afterwards."""
    order = np.argsort(keys)
    _order_ties(keys[order], order)
    return order


@njit(cache=True)
def _order_ties(ascending: np.ndarray, order: np.ndarray) -> None:
    first = 0
    for place in range(1, order.shape[0] + 1):
        if place < order.shape[0] and ascending[place] == ascending[first]:
            continue
        if place - first > FEW:
            order[first:place].sort()
        else:
            for k in range(first + 1, place):  # insertion
                moved = order[k]
                hole = k
                while hole > first and order[hole - 1] > moved:
                    order[hole] = order[hole - 1]
                    hole -= 1
                order[hole] = moved
        first = place


def best_of(labels: np.ndarray, *criteria: np.ndarray) -> np.ndarray:
    """[nodes] int64 place of the best node of each node's cluster: the least by the criteria, the first leading."""
    order = np.lexsort((*reversed(criteria), labels))
    first = np.ones(order.shape[0], bool)
    first[1:] = labels[order[1:]] != labels[order[:-1]]
    leaders = order[first]
    best = np.empty(order.shape[0], np.int64)
    best[order] = leaders[np.cumsum(first) - 1]
    return best
