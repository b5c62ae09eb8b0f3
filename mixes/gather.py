"""The loader's inner loops: tokens and loss flags from wherever they lie in memory straight into the batch.

Contract: `gather` writes every element of its outputs once, padding included. Pieces are given by the address of their
first token, so that one call serves any number of shards, mapped files and fetched buffers alike; who calls keeps the
memory alive. Cost: about one nanosecond a token, the batch's memory once.

Shapes: R rows, T context tokens, P pieces, row by row.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numba.np.numpy_support import carray

from pipeline.core.pointers import int32_at, int64_at, prefetch, uint8_at, uint32_at

AHEAD_BYTES = 4096  # of the next piece: a quarter faster than none, more gains nothing (ours, measured)
LINE_BYTES = 64


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
        if p + 1 < row_P.shape[0]:  # the processor guesses what follows within a piece, not where the next one lies
            for byte in range(0, min(4 * np.int64(length_P[p + 1]), AHEAD_BYTES), LINE_BYTES):
                prefetch(token_address_P[p + 1] + np.uint64(byte))
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
def placed(
    address_CB: np.ndarray, entries: int, row_P: np.ndarray, piece_P: np.ndarray, language_K: np.ndarray,
    domain_K: np.ndarray,
) -> Any:  # fmt: skip
    """([9, P] int32, [2, P] int64) of pieces whose rows rise: ordinal and offset in the row,
    length, shard, source, component, language, domain and row; document and first token of the shard.

    Columns are those of `PIECES_SCHEMA`, in its order.
    """
    narrow, wide = np.empty((9, row_P.shape[0]), np.int32), np.empty((2, row_P.shape[0]), np.int64)
    ordinal, offset = 0, 0
    for p in range(row_P.shape[0]):
        number = piece_P[p] // entries
        place = piece_P[p] - number * entries
        if p > 0 and row_P[p] != row_P[p - 1]:
            ordinal, offset = 0, 0
        length = carray(int32_at(address_CB[2, number]), (entries,))[place]
        kind = carray(int32_at(address_CB[6, number]), (entries,))[place]
        narrow[0, p], narrow[1, p], narrow[2, p] = ordinal, offset, length
        narrow[3, p] = carray(int32_at(address_CB[0, number]), (entries,))[place]
        narrow[4, p] = carray(int32_at(address_CB[3, number]), (entries,))[place]
        narrow[5, p] = carray(int32_at(address_CB[5, number]), (entries,))[place]
        narrow[6, p], narrow[7, p], narrow[8, p] = language_K[kind], domain_K[kind], row_P[p]
        wide[0, p] = carray(int64_at(address_CB[4, number]), (entries,))[place]
        wide[1, p] = carray(int64_at(address_CB[1, number]), (entries,))[place]
        ordinal += 1
        offset += length
    return narrow, wide


@njit(cache=True, nogil=True, inline="always")
def _is_set(bits: np.ndarray, place: Any) -> Any:
    return bits[place >> 3] >> (place & 7) & 1 != 0


@njit(cache=True, nogil=True)
def addresses(
    shard_P: np.ndarray, start_P: np.ndarray, length_P: np.ndarray, address_S: np.ndarray, flag_address_S: np.ndarray,
    first_block_S: np.ndarray, first_flag_block_S: np.ndarray, checked: np.ndarray, flags_checked: np.ndarray,
    block_bytes: int,
) -> Any:  # fmt: skip
    """([P] addresses of tokens, [P] of loss flags, whether all are known): no shard unopened, no block unchecked."""
    pieces = shard_P.shape[0]
    token_address_P, flag_address_P = np.empty(pieces, np.uint64), np.zeros(pieces, np.uint64)
    for p in range(pieces):
        shard, start, end = shard_P[p], np.int64(start_P[p]), np.int64(start_P[p]) + length_P[p]
        if address_S[shard] == 0:
            return token_address_P, flag_address_P, False
        for block in range(start * 4 // block_bytes, (end * 4 - 1) // block_bytes + 1):
            if not _is_set(checked, first_block_S[shard] + block):
                return token_address_P, flag_address_P, False
        token_address_P[p] = address_S[shard] + np.uint64(start * 4)
        if flag_address_S[shard] != 0:
            for block in range(start // block_bytes, (end - 1) // block_bytes + 1):
                if not _is_set(flags_checked, first_flag_block_S[shard] + block):
                    return token_address_P, flag_address_P, False
            flag_address_P[p] = flag_address_S[shard] + np.uint64(start)
    return token_address_P, flag_address_P, True


@njit(cache=True, nogil=True)
def spread(
    value_P: np.ndarray, row_P: np.ndarray, offset_P: np.ndarray, length_P: np.ndarray, padding: int, out_RT: np.ndarray
) -> None:
    """Give each token its piece's value, and what no piece covers `padding`."""
    context = np.int64(out_RT.shape[1])
    out = out_RT.reshape(-1)
    end = np.int64(0)
    for p in range(row_P.shape[0]):
        start: Any = row_P[p] * context + offset_P[p]
        out[end:start] = padding
        end = start + length_P[p]
        out[start:end] = value_P[p]
    out[end:] = padding


@njit(cache=True, nogil=True)
def blocks_to_check(
    first_block_S: np.ndarray, shard_P: np.ndarray, start_P: np.ndarray, end_P: np.ndarray, block_bytes: int,
    checked: np.ndarray, found: np.ndarray,
) -> int:  # fmt: skip
    """Blocks that the byte ranges touch and that are not in the bits of `checked` yet; they are marked there.

    Writes (shard, block of the shard) into `found` and returns how many; stops when it is full.
    """
    count = 0
    for p in range(shard_P.shape[0]):
        shard = shard_P[p]
        for block in range(start_P[p] // block_bytes, (end_P[p] - 1) // block_bytes + 1):
            place = first_block_S[shard] + block
            if not _is_set(checked, place):
                if count == found.shape[0]:
                    return count
                checked[place >> 3] |= np.uint8(1 << (place & 7))
                found[count, 0] = shard
                found[count, 1] = block
                count += 1
    return count
