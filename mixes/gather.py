"""The loader's inner loops: tokens and loss flags from wherever they lie in memory straight into the batch.

Contract: `gather` writes every element of its outputs once, padding included. Pieces are given by the address of their
first token, so that one call serves any number of shards, mapped files and fetched buffers alike; who calls keeps the
memory alive. Cost: about one nanosecond a token, the batch's memory once.

Shapes: R rows, T context tokens, P pieces, row by row.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray, njit

from pipeline.core.pointers import uint8_at, uint32_at


@njit(cache=True, nogil=True)
def gather(
    token_address_P: np.ndarray, flag_address_P: np.ndarray, row_P: np.ndarray, offset_P: np.ndarray,
    length_P: np.ndarray, token_ids_RT: np.ndarray, loss_mask_RT: np.ndarray,
) -> None:  # fmt: skip
    """Args: addresses of uint32 tokens and of uint8 loss flags (0: every token counts), where they go, and how many."""
    context = np.int64(token_ids_RT.shape[1])
    token_ids, counts = token_ids_RT.reshape(-1), loss_mask_RT.reshape(-1)  # flat: the copies below become vectors
    end = np.int64(0)
    for p in range(row_P.shape[0]):
        start: Any = row_P[p] * context + offset_P[p]
        length: Any = np.int64(length_P[p])
        token_ids[end:start] = 0
        counts[end:start] = False
        end = start + length
        tokens, into = carray(uint32_at(token_address_P[p]), (length,)), token_ids[start:end]
        for t in range(length):
            into[t] = tokens[t]
        counted = counts[start:end]
        if flag_address_P[p] == 0:
            counted[:] = True
        else:
            flags = carray(uint8_at(flag_address_P[p]), (length,))
            for t in range(length):
                counted[t] = flags[t] != 0
    token_ids[end:] = 0
    counts[end:] = False


@njit(cache=True, nogil=True)
def places(row_P: np.ndarray, length_P: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """([P] int32 ordinal of each piece in its row, [P] int32 tokens before it there); rows rise."""
    ordinal_P, offset_P = np.empty(row_P.shape[0], np.int32), np.empty(row_P.shape[0], np.int32)
    ordinal, offset = 0, 0
    for p in range(row_P.shape[0]):
        if p > 0 and row_P[p] != row_P[p - 1]:
            ordinal, offset = 0, 0
        ordinal_P[p], offset_P[p] = ordinal, offset
        ordinal += 1
        offset += length_P[p]
    return ordinal_P, offset_P


@njit(cache=True, nogil=True)
def spread(
    value_P: np.ndarray, row_P: np.ndarray, offset_P: np.ndarray, length_P: np.ndarray, padding: int, out_RT: np.ndarray
) -> None:
    """Give each token its piece's value; rows hold at least one piece."""
    out_RT[:, :] = padding
    for p in range(row_P.shape[0]):
        out_RT[row_P[p], offset_P[p] : offset_P[p] + length_P[p]] = value_P[p]


@njit(cache=True, nogil=True)
def blocks_to_check(
    first_block_S: np.ndarray, shard_P: np.ndarray, start_P: np.ndarray, end_P: np.ndarray, block_bytes: int,
    checked: np.ndarray, found: np.ndarray,
) -> int:  # fmt: skip
    """Blocks that the byte ranges touch and that are not in `checked` yet; they are marked there.

    Writes (shard, block of the shard) into `found` and returns how many; stops when it is full.
    """
    count = 0
    for p in range(shard_P.shape[0]):
        shard = shard_P[p]
        for block in range(start_P[p] // block_bytes, (end_P[p] - 1) // block_bytes + 1):
            place = first_block_S[shard] + block
            if not checked[place]:
                if count == found.shape[0]:
                    return count
                checked[place] = True
                found[count, 0] = shard
                found[count, 1] = block
                count += 1
    return count
