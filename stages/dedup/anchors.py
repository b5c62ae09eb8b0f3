"""Kernels of exact substring search: anchors of byte windows, hashes of windows, and what is to be cut.

Contract: every window of `window` bytes has one anchor, the leftmost least of the hashes of the `gram`-byte strings in
it, so that equal windows have equal anchors at equal places (winnowing, Schleimer, Wilkerson, Aiken 2003): windows
occur twice only where their anchors do. The windows of one anchor are neighbours, a run; its region is all their bytes,
and where two regions are equal all windows of the runs are. Anchors are 2 in (window - gram + 2) places on average; an
anchor that repeats the one before it, region and all, as in a text with a short period, is counted with it. Hashes are
polynomials mod 2^64 over random byte values (strings below 2,048 bytes: no Thue-Morse collisions), mixed.
Cost: `anchors` about 150 MB/s; memory: the rings of one window, and 22 bytes an anchor.

I items, N windows or ranges, R texts.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numba import njit

from pipeline.core.rng import derive_seed
from stages.characters import Integer, mix64

BASE = 0x9E3779B97F4A7C15 | 1
RING = 2048  # more than the bytes of the longest region: two windows
MASK = RING - 1
KEPT, COPY, MIXED = 0, 1, 2  # kinds of anchors: nothing to cut; all windows; those that are listed


@lru_cache(maxsize=1)
def byte_values() -> np.ndarray:
    """[256] uint64, the same for ever."""
    return np.array([derive_seed("substring", "byte", value) for value in range(256)], np.uint64)


@lru_cache(maxsize=1)
def powers() -> np.ndarray:
    """[RING] uint64 powers of `BASE`."""
    return np.array([pow(BASE, count, 1 << 64) for count in range(RING)], np.uint64)


@njit(cache=True)
def anchors(
    data: np.ndarray,
    offsets: np.ndarray,
    gram: int,
    window: int,
    values: np.ndarray,
    powers: np.ndarray,
    keys: np.ndarray,
    checks: np.ndarray,
    lengths: np.ndarray,
    spans: np.ndarray,
    counts: np.ndarray,
) -> int:
    """Anchors of the texts data[offsets[r] : offsets[r + 1]]; returns I.

    Fills `keys` [I] (the anchor's hash), `checks` [I] (its region's), `lengths` [I] (windows of its run), `spans` [I]
    (windows up to the next item: the same run again and again) and `counts` [R]. Where there are more than `keys` has
    room for, the rest is only counted, and may be counted too often.
    """
    width = window - gram + 1  # grams of a window
    assert 2 * window < RING
    prefixes = np.zeros(RING, np.uint64)  # rings by place: hash of all bytes before it,
    hashes = np.empty(RING, np.uint64)  # hash of the gram there,
    least_hashes = np.empty(RING, np.uint64)  # the least from there to the end of the front, and where it is
    least_places = np.empty(RING, np.int64)
    nothing = np.uint64(0xFFFFFFFFFFFFFFFF)
    total = 0
    for row in range(offsets.shape[0] - 1):
        base, size = offsets[row], offsets[row + 1] - offsets[row]
        own = total
        state = np.uint64(0)
        front_end = -1  # a window's grams are a front with least hashes of its ends, and a back with one least hash
        back_hash, back_place = nothing, -1
        key, place_of_key, run_start = np.uint64(0), -1, 0
        for at in range(size if size >= window else 0):
            state = state * np.uint64(BASE) + values[data[base + at]]
            prefixes[(at + 1) & MASK] = state
            place = at - gram + 1
            if place < 0:
                continue
            hashed = mix64(state - prefixes[place & MASK] * powers[gram])
            hashes[place & MASK] = hashed
            start = place - width + 1
            if start < 0:
                continue
            if start > front_end:
                least, least_place = hashed, place
                for other in range(place, start - 1, -1):
                    if hashes[other & MASK] <= least:
                        least, least_place = hashes[other & MASK], other
                    least_hashes[other & MASK], least_places[other & MASK] = least, least_place
                front_end = place
                back_hash, back_place = nothing, -1
            elif hashed < back_hash:
                back_hash, back_place = hashed, place
            least, least_place = least_hashes[start & MASK], least_places[start & MASK]
            if back_hash < least:
                least, least_place = back_hash, back_place
            if least_place != place_of_key:
                if place_of_key >= 0:
                    check = _region_hash(prefixes, run_start, start - 1 + window, powers)
                    total = _put(total, own, key, check, start - run_start, keys, checks, lengths, spans)
                key, place_of_key, run_start = least, least_place, start
        if place_of_key >= 0:
            check = _region_hash(prefixes, run_start, size, powers)
            total = _put(total, own, key, check, size - window + 1 - run_start, keys, checks, lengths, spans)
        counts[row] = total - own
        prefixes[0] = 0
    return total


@njit(cache=True)
def _region_hash(prefixes: np.ndarray, start: int, end: int, powers: np.ndarray) -> np.uint64:
    return mix64(prefixes[end & MASK] - prefixes[start & MASK] * powers[end - start])


@njit(cache=True)
def _put(
    count: int,
    own: int,
    key: np.uint64,
    check: np.uint64,
    length: int,
    keys: np.ndarray,
    checks: np.ndarray,
    lengths: np.ndarray,
    spans: np.ndarray,
) -> int:
    """Add a run to the items of a text, which begin at `own`; returns how many items there are."""
    last = count - 1
    if own < count <= keys.shape[0] and keys[last] == key and checks[last] == check and lengths[last] == length:
        spans[last] += np.uint32(length)
        return count
    if count < keys.shape[0]:
        keys[count], checks[count], lengths[count], spans[count] = key, check, length, length
    return count + 1


@njit(cache=True)
def window_hashes(
    data: np.ndarray,
    window: int,
    starts: np.ndarray,
    lengths: np.ndarray,
    values: np.ndarray,
    powers: np.ndarray,
    out: np.ndarray,
) -> int:
    """Fill `out` [N] with hashes of the `lengths` [I] windows from each of `starts` [I], ascending; returns N."""
    count = 0
    state = np.uint64(0)
    rolled = -2  # start of the window that `state` is of
    for k in range(starts.shape[0]):
        for start in range(starts[k], starts[k] + np.int64(lengths[k])):
            if rolled == start - 1:
                leaving, coming = data[start - 1], data[start + window - 1]
                state = state * np.uint64(BASE) + values[coming] - values[leaving] * powers[window]
            else:
                state = np.uint64(0)
                for at in range(start, start + window):
                    state = state * np.uint64(BASE) + values[data[at]]
            rolled = start
            out[count] = mix64(np.uint64(state))
            count += 1
    return count


@njit(cache=True)
def cut_ranges(
    data: np.ndarray,
    offsets: np.ndarray,
    window: int,
    firsts: np.ndarray,
    lengths: np.ndarray,
    spans: np.ndarray,
    kinds: np.ndarray,
    listed: np.ndarray,
    out: np.ndarray,
) -> int:
    """Fill `out` [N, 3] with row, start and end of the bytes that windows to cut cover; returns N.

    Args:
        data: The texts' bytes.
        offsets: [R + 1] of the texts in `data`.
        window: Bytes.
        firsts: [R + 1] the first item of each text.
        lengths: [I] windows of each item's run.
        spans: [I] windows up to the next item.
        kinds: [I] `KEPT`, `COPY` or `MIXED`; what repeats a run right after it is cut in each case.
        listed: [windows] ascending numbers of those to cut, over the windows of all `MIXED` runs.
        out: Room for two ranges an item and one a listed window.
    """
    count = 0
    seen = 0  # windows of mixed runs
    at = 0  # in `listed`
    for row in range(offsets.shape[0] - 1):
        base, size = offsets[row], offsets[row + 1] - offsets[row]
        start = 0
        open_first = open_last = 0
        for item in range(firsts[row], firsts[row + 1]):
            length, span = np.int64(lengths[item]), np.int64(spans[item])
            if kinds[item] == MIXED:
                while at < listed.shape[0] and listed[at] < seen + length:
                    first = start + listed[at] - seen
                    if first > open_last:
                        count = _put_range(data, base, size, row, open_first, open_last, out, count)
                        open_first = first
                    open_last = first + window
                    at += 1
                seen += length
            first = start if kinds[item] == COPY else start + length
            if first < start + span:
                if first > open_last:
                    count = _put_range(data, base, size, row, open_first, open_last, out, count)
                    open_first = first
                open_last = start + span - 1 + window
            start += span
        count = _put_range(data, base, size, row, open_first, open_last, out, count)
    return count


@njit(cache=True)
def _put_range(
    data: np.ndarray, base: int, size: int, row: int, first: Integer, last: Integer, out: np.ndarray, count: int
) -> int:
    """Add the whole characters in [first, last) of a text."""
    while first < last and (data[base + first] & 0xC0) == 0x80:
        first += 1
    if last < size:
        while last > first and (data[base + last] & 0xC0) == 0x80:
            last -= 1
    if first >= last:
        return count
    out[count, 0], out[count, 1], out[count, 2] = row, first, last
    return count + 1
