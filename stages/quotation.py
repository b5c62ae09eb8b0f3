"""Finding known word sequences and substrings in texts: hashes of windows, a table of them, and the looking.

Contract: a window of tokens or folded characters is a 64-bit polynomial hash, mixed; two different windows are taken
for one with a chance of about 1e-12 for a million windows against a million keys. All kernels run over UTF-8 as
`stages.dedup.segment` reads it. Cost: about 30 million windows a second on one core; 12 bytes a slot of the table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit

from stages.characters import mix64, point_at, size_at
from stages.dedup.segment import LONE, MARK

_BASE = np.uint64(0x9E3779B97F4A7C15)
_LENGTHS = 64  # most tokens in a gram, plus one
_FILTER_BITS = 8  # a key, at least: at most one key in eight that is not there has its bit set


@dataclass(frozen=True)
class Keys:
    """Hashes of one method, open-addressing: keys [slots] uint64 (0 = free), items [slots] int32 (the first that has
    it); `others` has the items that share a key with an earlier one. `filter` is a bit for each key's lowest bits."""

    keys: np.ndarray
    items: np.ndarray
    filter: np.ndarray  # uint64
    counts: np.ndarray  # [items] int32 distinct keys of each item
    others: Mapping[int, tuple[int, ...]]


def keys_of(found: Sequence[np.ndarray]) -> Keys:
    counts = np.array([keys.shape[0] for keys in found], np.int32)
    total = int(counts.sum())
    slots = 1 << max(4, (2 * total).bit_length())
    keys, items = np.zeros(slots, np.uint64), np.zeros(slots, np.int32)
    bits = np.zeros(max(slots // 2 * _FILTER_BITS // 64, 1), np.uint64)
    others: dict[int, tuple[int, ...]] = {}
    for number, part in enumerate(found):
        for key in _insert(keys, items, bits, part, number).tolist():
            others[key] = (*others.get(key, ()), number)
    return Keys(keys, items, bits, counts, others)


@njit(cache=True)
def _insert(keys: np.ndarray, items: np.ndarray, bits: np.ndarray, part: np.ndarray, number: int) -> np.ndarray:
    """Put the distinct keys of an item in; returns those that an earlier item has already."""
    mask = np.uint64(keys.shape[0] - 1)
    shared = np.empty(part.shape[0], np.uint64)
    count = 0
    for key in part:
        slot = key & mask
        while keys[slot] != 0 and keys[slot] != key:
            slot = (slot + np.uint64(1)) & mask
        if keys[slot] == 0:
            keys[slot] = key
            items[slot] = number
            place = (key >> np.uint64(6)) & np.uint64(bits.shape[0] - 1)
            bits[place] |= np.uint64(1) << (key & np.uint64(63))
        else:
            shared[count] = key
            count += 1
    return shared[:count]


@njit(cache=True, inline="always")
def _find(keys: np.ndarray, items: np.ndarray, bits: np.ndarray, key: np.uint64) -> int:
    # The filter is small enough to stay near the processor, the table is not: most keys end here.
    place = (key >> np.uint64(6)) & np.uint64(bits.shape[0] - 1)
    if (bits[place] >> (key & np.uint64(63))) & np.uint64(1) == 0:
        return -1
    mask = np.uint64(keys.shape[0] - 1)
    slot = key & mask
    while keys[slot] != 0:
        if keys[slot] == key:
            return items[slot]
        slot = (slot + np.uint64(1)) & mask
    return -1


@njit(cache=True)
def _prefixes(values: np.ndarray) -> np.ndarray:
    """[values + 1] polynomial hashes modulo 2**64 of everything before each place."""
    out = np.zeros(values.shape[0] + 1, np.uint64)
    for place in range(values.shape[0]):
        out[place + 1] = out[place] * _BASE + values[place]
    return out


@njit(cache=True)
def _powers(count: int) -> np.ndarray:
    out = np.ones(count, np.uint64)
    for place in range(1, count):
        out[place] = out[place - 1] * _BASE
    return out


@njit(cache=True, inline="always")
def _window(prefixes: np.ndarray, power: np.uint64, first: int, length: int) -> np.uint64:
    key = mix64(prefixes[first + length] - prefixes[first] * power + np.uint64(length))
    return key if key != 0 else np.uint64(1)


@njit(cache=True)
def gram_keys(hashes: np.ndarray, weights: np.ndarray, wanted: int) -> np.ndarray:
    """Keys of the shortest run of at least `wanted` weight from each token on."""
    prefixes, powers = _prefixes(hashes), _powers(_LENGTHS)
    out = np.empty(hashes.shape[0], np.uint64)
    last, weight = 0, 0
    for first in range(hashes.shape[0]):
        while weight < wanted and last < hashes.shape[0]:
            weight += weights[last]
            last += 1
        if weight < wanted:
            return out[:first]
        out[first] = _window(prefixes, powers[last - first], first, last - first)
        weight -= weights[first]
    return out


@njit(cache=True)
def run_keys(hashes: np.ndarray, length: int) -> np.ndarray:
    """Keys of every run of `length` tokens."""
    prefixes, powers = _prefixes(hashes), _powers(_LENGTHS)
    out = np.empty(max(hashes.shape[0] - length + 1, 0), np.uint64)
    for first in range(out.shape[0]):
        out[first] = _window(prefixes, powers[length], first, length)
    return out


@njit(cache=True)
def folded_characters(data: np.ndarray, start: int, end: int, kinds: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """[characters] uint64 folded code points of letters, marks and digits."""
    out = np.empty(end - start, np.uint64)
    count = 0
    at = start
    while at < end:
        point, size = point_at(data, at), size_at(data, at)
        at += size
        if point < kinds.shape[0] and kinds[point] != 0:
            out[count] = np.uint64(folds[point])
            count += 1
    return out[:count]


@njit(cache=True)
def part_keys(characters: np.ndarray, length: int) -> np.ndarray:
    """Keys of every substring of `length` characters."""
    prefixes = _prefixes(characters)
    power = _powers(length + 1)[length]
    out = np.empty(max(characters.shape[0] - length + 1, 0), np.uint64)
    for first in range(out.shape[0]):
        out[first] = _window(prefixes, power, first, length)
    return out


@njit(cache=True)
def search_keys(keys: np.ndarray, items: np.ndarray, bits: np.ndarray, wanted: np.ndarray) -> int:
    """The item of the first key that is in the table, or -1."""
    for key in wanted:
        item = _find(keys, items, bits, key)
        if item >= 0:
            return item
    return -1


@njit(cache=True)
def search_parts(
    data: np.ndarray,
    start: int,
    end: int,
    kinds: np.ndarray,
    folds: np.ndarray,
    length: int,
    keys: np.ndarray,
    items: np.ndarray,
    bits: np.ndarray,
) -> int:
    """`search_keys` over `part_keys` of data[start:end], without writing the keys down: the window's hash rolls."""
    power = _powers(length + 1)[length]
    window = np.zeros(length, np.uint64)
    state = np.uint64(0)
    count, place = 0, 0
    at = start
    while at < end:
        point, size = point_at(data, at), size_at(data, at)
        at += size
        if point < kinds.shape[0] and kinds[point] != 0:
            character = np.uint64(folds[point])
            state = state * _BASE + character - window[place] * power
            window[place] = character
            place = place + 1 if place + 1 < length else 0
            count += 1
            if count >= length:
                key = mix64(state + np.uint64(length))
                item = _find(keys, items, bits, key if key != 0 else np.uint64(1))
                if item >= 0:
                    return item
    return -1


@njit(cache=True)
def search_sampled(
    keys: np.ndarray, items: np.ndarray, bits: np.ndarray, wanted: np.ndarray, samples: int, seed: np.uint64
) -> int:
    for number in range(samples if wanted.shape[0] else 0):
        place = mix64(seed + np.uint64(number) * _BASE) % np.uint64(wanted.shape[0])
        item = _find(keys, items, bits, wanted[place])
        if item >= 0:
            return item
    return -1


@njit(cache=True)
def find_all(
    keys: np.ndarray, items: np.ndarray, bits: np.ndarray, wanted: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(places in `wanted` of the keys that are in the table, the first item of each)."""
    places = np.empty(wanted.shape[0], np.int64)
    found = np.empty(wanted.shape[0], np.int64)
    count = 0
    for place in range(wanted.shape[0]):
        item = _find(keys, items, bits, wanted[place])
        if item >= 0:
            places[count] = place
            found[count] = item
            count += 1
    return places[:count], found[:count]


@njit(cache=True)
def token_starts(data: np.ndarray, start: int, end: int, kinds: np.ndarray) -> np.ndarray:
    """[tokens] int64: where in `data` each token of `segment` begins."""
    out = np.empty((end - start) // 2 + 2, np.int64)
    count = 0
    before = 0
    at = start
    while at < end:
        point, size = point_at(data, at), size_at(data, at)
        kind = np.int64(kinds[point]) if point < kinds.shape[0] else 0
        kind = before if kind == MARK else kind
        if kind != 0 and (kind != before or kind == LONE) and not (kind == LONE and kinds[point] == MARK):
            out[count] = at
            count += 1
        before = kind
        at += size
    return out[:count]


@njit(cache=True)
def character_starts(data: np.ndarray, start: int, end: int, kinds: np.ndarray) -> np.ndarray:
    """[characters] int64: where in `data` each folded character begins."""
    out = np.empty(end - start, np.int64)
    count = 0
    at = start
    while at < end:
        point, size = point_at(data, at), size_at(data, at)
        if point < kinds.shape[0] and kinds[point] != 0:
            out[count] = at
            count += 1
        at += size
    return out[:count]
