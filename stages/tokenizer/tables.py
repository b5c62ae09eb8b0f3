"""Distinct sequences with their counts: an open hash table over one arena, for words as bytes and for runs of ids.

Contract: sequences are numbered as they come; `counts` has one int64 column a class. Two sequences of one hash are kept
apart by comparing them. Cost: the sequences once, and 32 + 8 a column bytes each, at most
twice that while growing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numba import njit

Integer = Any  # inside kernels: of any width, which the type checker does not follow

FIRST_SLOTS = 1 << 12
FIRST_BYTES = 1 << 16
# Hash of a sequence: h ← (h ⊕ item) · HASH_FACTOR, as FNV-1a does, with a 64-bit odd factor; then its high bits.
HASH_FACTOR = 0x9E3779B97F4A7C15
NUMBER = 0xFFFFFFFF  # the part of a slot that is a sequence's number


@dataclass
class SequenceTable:
    """A growing table of sequences of `dtype`.

    Attributes:
        dtype: Of the items, uint8 or int32.
        columns: Classes that are counted apart.
        slots: [slots] int64 upper half of a hash and number of its sequence, or -1; twice as many as sequences.
        hashes: [room] uint64.
        rows: [room + 1, 1 + columns] int64: where a sequence begins in the arena (and the one before it ends), and its
            counts; side by side, because both are needed at once.
        arena: The items of all sequences, one after the other.
        size: Sequences held.
    """

    dtype: type[np.generic]
    columns: int = 1
    slots: np.ndarray = field(init=False)
    hashes: np.ndarray = field(init=False)
    rows: np.ndarray = field(init=False)
    arena: np.ndarray = field(init=False)
    size: int = 0

    def __post_init__(self) -> None:
        self.slots = np.full(FIRST_SLOTS, -1, np.int64)
        self.hashes = np.zeros(FIRST_SLOTS // 2, np.uint64)
        self.rows = np.zeros((FIRST_SLOTS // 2 + 1, 1 + self.columns), np.int64)
        self.arena = np.zeros(FIRST_BYTES, self.dtype)

    def make_room(self, sequences: int, items: int) -> None:
        """Grow so that so many new sequences of so many items in all fit."""
        wanted = self.size + sequences
        if wanted > self.hashes.size:
            room = max(wanted, self.hashes.size * 3 // 2)
            self.hashes, self.rows = _longer(self.hashes, room), _longer(self.rows, room + 1)
        if 2 * wanted > self.slots.size:
            slots = 1 << (2 * wanted - 1).bit_length()
            self.slots = np.full(slots, -1, np.int64)
            _place(self.slots, self.hashes, self.size)
        used = int(self.rows[self.size, 0])
        if used + items > self.arena.size:
            self.arena = _longer(self.arena, max(used + items, self.arena.size * 3 // 2))

    def add(self, items: np.ndarray, ends: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """[sequences] int32 numbers of sequences, the counts added up.

        Args:
            items: All items, one sequence after the other.
            ends: [sequences] int64.
            counts: [sequences, columns] int64.
        """
        self.make_room(ends.size, items.size)
        numbers = np.empty(ends.size, np.int32)
        self.size = int(_add(items, ends, counts, self.slots, self.hashes, self.rows, self.arena, self.size, numbers))
        return numbers

    def find(self, items: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """[sequences] int32 numbers of sequences given as for `add`, -1 for those that are not held."""
        return _find(items, ends, self.slots, self.rows, self.arena)

    @property
    def items(self) -> np.ndarray:
        """The items of all sequences."""
        return self.arena[: self.rows[self.size, 0]]

    @property
    def bounds(self) -> np.ndarray:
        """[size + 1] int64 where each begins and ends; a copy."""
        return self.rows[: self.size + 1, 0].copy()

    @property
    def weights(self) -> np.ndarray:
        """[size, columns] int64; a copy."""
        return self.rows[: self.size, 1:].copy()


def _longer(array: np.ndarray, size: int) -> np.ndarray:
    longer = np.zeros((size, *array.shape[1:]), array.dtype)
    longer[: array.shape[0]] = array
    return longer


@njit(cache=True)
def _place(slots: np.ndarray, hashes: np.ndarray, size: Integer):
    mask = slots.size - 1
    for number in range(size):
        place = np.int64(hashes[number]) & mask
        while slots[place] >= 0:
            place = (place + 1) & mask
        slots[place] = tagged(hashes[number], number)


@njit(cache=True, inline="always")
def tagged(value: Integer, number: Integer):
    """What a slot holds: 31 bits of the hash above the number."""
    return (np.int64(value >> np.uint64(33)) << 32) | np.int64(number)


@njit(cache=True, inline="always")
def first_slot(slots: np.ndarray, value: Integer):
    """Where the search for a hash begins."""
    return np.int64(value) & (slots.size - 1)


@njit(cache=True, inline="always")
def hashed(items: np.ndarray, start: Integer, end: Integer):
    value = np.uint64(0)
    for place in range(start, end):
        value = (value ^ np.uint64(items[place])) * np.uint64(HASH_FACTOR)
        value ^= value >> np.uint64(32)
    return value


@njit(cache=True, inline="always")
def slot_found(
    items: np.ndarray,
    start: Integer,
    end: Integer,
    value: Integer,
    slots: np.ndarray,
    rows: np.ndarray,
    arena: np.ndarray,
):
    """(slot, number) of items[start:end], whose hash is `value`; an empty slot and -1 when it is not held."""
    mask = slots.size - 1
    place = first_slot(slots, value)
    tag = tagged(value, 0)
    while slots[place] >= 0:
        number = slots[place] & NUMBER
        if slots[place] - number == tag:
            first = rows[number, 0]
            same = rows[number + 1, 0] - first == end - start
            step = 0
            while same and step < end - start:
                same = arena[first + step] == items[start + step]
                step += 1
            if same:
                return place, number
        place = (place + 1) & mask
    return place, np.int64(-1)


@njit(cache=True)
def _find(items: np.ndarray, ends: np.ndarray, slots: np.ndarray, rows: np.ndarray, arena: np.ndarray):
    numbers = np.empty(ends.size, np.int32)
    start = 0
    for sequence in range(ends.size):
        end = ends[sequence]
        _, number = slot_found(items, start, end, hashed(items, start, end), slots, rows, arena)
        numbers[sequence] = number
        start = end
    return numbers


@njit(cache=True, inline="always")
def found_or_added(
    items: np.ndarray,
    start: Integer,
    end: Integer,
    value: Integer,
    slots: np.ndarray,
    hashes: np.ndarray,
    rows: np.ndarray,
    arena: np.ndarray,
    size: Integer,
):
    """(number, sequences now) of items[start:end], whose hash is `value`; there must be room."""
    place, number = slot_found(items, start, end, value, slots, rows, arena)
    if number >= 0:
        return number, size
    slots[place], hashes[size] = tagged(value, size), value
    first = rows[size, 0]
    for step in range(end - start):
        arena[first + step] = items[start + step]
    rows[size + 1, 0] = first + end - start
    return np.int64(size), size + 1


@njit(cache=True)
def _add(
    items: np.ndarray,
    added_ends: np.ndarray,
    added_counts: np.ndarray,
    slots: np.ndarray,
    hashes: np.ndarray,
    rows: np.ndarray,
    arena: np.ndarray,
    size: Integer,
    numbers: np.ndarray,
):
    start = 0
    for sequence in range(added_ends.size):
        end = added_ends[sequence]
        value = hashed(items, start, end)
        number, size = found_or_added(items, start, end, value, slots, hashes, rows, arena, size)
        for column in range(added_counts.shape[1]):
            rows[number, 1 + column] += added_counts[sequence, column]
        numbers[sequence] = number
        start = end
    return size
