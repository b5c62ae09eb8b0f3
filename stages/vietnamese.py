"""Vietnamese words of two syllables: spaces part syllables, so that only a list knows that `thông tin` is one word.

Contract: `vietnamese_words.txt` holds the commonest such words, lower case, one a line; `vietnamese()` is their hash
table, `has_compound` looks two syllables with the space between them up, whatever the case of ASCII letters and Đ.
Cost: one hash of at most `LONGEST_BYTES` a syllable. Of pyvi's two-syllable words in documents that the list was not
made from 92 % are in it (mostly law and technical manuals); the rest counts as two.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from numba import njit

from stages.characters import Integer, mix64

LIST = Path(__file__).with_name("vietnamese_words.txt")
LONGEST_BYTES = 32
_SLOTS = 8192


@lru_cache(maxsize=1)
def vietnamese() -> np.ndarray:
    """[slots] uint64 hashes of the list, 0 = empty."""
    slots = np.zeros(_SLOTS, np.uint64)
    words = LIST.read_text(encoding="utf-8").split("\n")[:-1]
    assert len(words) < _SLOTS // 2
    for word in words:
        data = np.frombuffer(word.encode(), np.uint8)
        assert data.size <= LONGEST_BYTES, word
        if not has_compound(slots, data, 0, data.size):
            key = _folded_hash(data, 0, data.size)
            at = int(key) & (_SLOTS - 1)
            while slots[at]:
                at = (at + 1) & (_SLOTS - 1)
            slots[at] = key
    return slots


@njit(cache=True)
def has_compound(slots: np.ndarray, data: np.ndarray, start: Integer, end: Integer) -> bool:
    """Whether data[start:end] is in the table."""
    key = _folded_hash(data, start, end)
    slot = np.int64(key) & (slots.shape[0] - 1)
    while slots[slot] != 0:
        if slots[slot] == key:
            return True
        slot = (slot + 1) & (slots.shape[0] - 1)
    return False


@njit(cache=True)
def _folded_hash(data: np.ndarray, start: Integer, end: Integer) -> np.uint64:
    state = np.uint64(0xCBF29CE484222325)
    last = np.uint8(0)
    for i in range(start, end):
        byte = data[i]
        if 65 <= byte <= 90:
            byte = np.uint8(byte | 0x20)
        elif byte == 0x90 and last == 0xC4:  # Đ -> đ
            byte = np.uint8(0x91)
        state = (state ^ np.uint64(byte)) * np.uint64(0x100000001B3)
        last = byte
    return mix64(state) | np.uint64(1)
