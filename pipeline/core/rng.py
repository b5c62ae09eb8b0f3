"""Order as a pure function: keyed permutations of 0..n-1 and derived seeds, in integer arithmetic only.

`Permutation(n, seed)` is a balanced Feistel network (8 rounds, splitmix64 finaliser as round function) with cycle
walking: a bijection for every n up to 2**62, O(1) memory, about 10-60 million positions a second a core through
`take`. The same bits come out on every CPU and library version. Source of the construction: Luby & Rackoff 1988;
Black & Rogaway 2002 (cycle walking); Steele et al. 2014 (splitmix64).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numba import njit

ROUNDS = 8
_MASK64 = (1 << 64) - 1


def derive_seed(*parts: str | int) -> int:
    """A 63-bit seed from a master seed and names; stable for ever."""
    text = "\x1f".join(str(part) for part in parts).encode("utf-8")
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "little") >> 1


@njit(cache=True)
def _mix64(x: np.uint64) -> np.uint64:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@njit(cache=True)
def _permute(positions: np.ndarray, size: np.uint64, half_bits: np.uint64, keys: np.ndarray, out: np.ndarray) -> None:
    mask = (np.uint64(1) << half_bits) - np.uint64(1)
    for i in range(positions.shape[0]):
        x = np.uint64(positions[i])
        while True:
            left = x >> half_bits
            right = x & mask
            for r in range(keys.shape[0]):
                left, right = right, left ^ (_mix64(right ^ keys[r]) & mask)
            x = (left << half_bits) | right
            if x < size:
                break
        out[i] = np.int64(x)


@dataclass(frozen=True)
class Permutation:
    """A seeded bijection of range(size) onto itself."""

    size: int
    seed: int

    def take(self, positions: np.ndarray) -> np.ndarray:
        """int64 images of int64 positions, every one in [0, size)."""
        out = np.empty(positions.shape[0], np.int64)
        if self.size <= 1:
            out[:] = 0
            return out
        half_bits = (max(self.size - 1, 1).bit_length() + 1) // 2
        keys = np.array(
            [derive_seed("feistel", self.seed, round_number) for round_number in range(ROUNDS)], dtype=np.uint64
        )
        _permute(positions.astype(np.int64), np.uint64(self.size), np.uint64(half_bits), keys, out)
        return out

    def all(self) -> np.ndarray:
        """The whole permutation, for sizes that fit in memory."""
        return self.take(np.arange(self.size, dtype=np.int64))
