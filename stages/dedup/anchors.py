"""Kernels of exact substring search: anchors of byte windows, and hashes of the windows that an anchor stands for.

Contract: every window of `window` bytes has one anchor, the leftmost least of the hashes of the `gram`-byte strings in
it, so that equal windows have equal anchors at equal places (winnowing, Schleimer, Wilkerson, Aiken 2003): windows
occur twice only where their anchors do. Anchors are 2 in (window - gram + 2) places on average, many more only in runs
of one repeated pattern. Hashes are polynomials mod 2^64 over random byte values (strings below 1,024 bytes: no
Thue-Morse collisions), mixed. Cost: about 70 MB/s; memory: the ring of one window.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numba import njit

from pipeline.core.rng import derive_seed
from stages.dedup.segment import mix64

BASE = 0x9E3779B97F4A7C15 | 1
RING = 1024  # more than the grams of the longest window


@lru_cache(maxsize=1)
def byte_values() -> np.ndarray:
    """[256] uint64, the same for ever."""
    return np.array([derive_seed("substring", "byte", value) for value in range(256)], np.uint64)


@njit(cache=True)
def _power(count: int) -> np.uint64:
    power = np.uint64(1)
    for _ in range(count):
        power *= np.uint64(BASE)
    return power


@njit(cache=True)
def anchors(text: np.ndarray, gram: int, window: int, values: np.ndarray, keys: np.ndarray, runs: np.ndarray) -> int:
    """Fill keys [N] and runs [N, 2] (first and last start of the windows each stands for); returns N.

    Where there are more than `keys` has room for, the rest is only counted.
    """
    if text.shape[0] < window:
        return 0
    assert window - gram + 1 < RING
    power = _power(gram)
    places = np.empty(RING, np.int64)  # a ring: the candidates for least, hashes ascending
    hashes = np.empty(RING, np.uint64)
    head = size = 0
    state = np.uint64(0)
    count = 0
    current = -1
    for at in range(text.shape[0]):
        state = state * np.uint64(BASE) + values[text[at]]
        if at >= gram:
            state -= values[text[at - gram]] * power
        gram_start = at - gram + 1
        if gram_start < 0:
            continue
        hashed = mix64(np.uint64(state))
        while size > 0 and hashes[(head + size - 1) & (RING - 1)] > hashed:
            size -= 1
        tail = (head + size) & (RING - 1)
        places[tail], hashes[tail] = gram_start, hashed
        size += 1
        start = at - window + 1
        if start < 0:
            continue
        while places[head] < start:
            head = (head + 1) & (RING - 1)
            size -= 1
        if places[head] != current:
            current = places[head]
            if count < keys.shape[0]:
                keys[count] = hashes[head]
                runs[count, 0] = start
            count += 1
        if count <= keys.shape[0]:
            runs[count - 1, 1] = start
    return count


@njit(cache=True)
def window_hashes(text: np.ndarray, window: int, runs: np.ndarray, values: np.ndarray, out: np.ndarray) -> int:
    """Fill `out` with the hash of each window that starts in `runs` [N, 2], ascending; returns how many."""
    power = _power(window)
    count = 0
    state = np.uint64(0)
    rolled = -2  # start of the window that `state` is of
    for k in range(runs.shape[0]):
        for start in range(runs[k, 0], runs[k, 1] + 1):
            if rolled == start - 1:
                leaving, coming = text[start - 1], text[start + window - 1]
                state = state * np.uint64(BASE) + values[coming] - values[leaving] * power
            else:
                state = np.uint64(0)
                for at in range(start, start + window):
                    state = state * np.uint64(BASE) + values[text[at]]
            rolled = start
            out[count] = mix64(np.uint64(state))
            count += 1
    return count


@njit(cache=True)
def covered(starts: np.ndarray, window: int, text: np.ndarray, out: np.ndarray) -> int:
    """Fill `out` [N, 2] with the byte ranges that windows at ascending `starts` cover, whole characters only."""
    count = 0
    k = 0
    while k < starts.shape[0]:
        first = starts[k]
        last = first + window
        while k + 1 < starts.shape[0] and starts[k + 1] <= last:
            k += 1
            last = starts[k] + window
        k += 1
        while first < last and (text[first] & 0xC0) == 0x80:
            first += 1
        if last < text.shape[0]:
            while last > first and (text[last] & 0xC0) == 0x80:
                last -= 1
        if first < last:
            out[count, 0], out[count, 1] = first, last
            count += 1
    return count
