"""Text to token ids: chunks from the scanner, tokens from the cache, or merged by rank, lowest first, leftmost first.

Contract: `encode` gives the ids that `tokenizers` gives for the same tables. A chunk that is not in the cache is cut
into words, each word into the tokens of its own rules, and the whole then merged under all rules (see
`stages.tokenizer.encoder_tables`). Short pieces are merged by scanning their ranks, long ones with a heap and a linked
list. Cost: about 10 ns a byte where the cache knows the chunk; O(n log n) for a chunk of n bytes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from stages.tokenizer.borrowed import borrowed
from stages.tokenizer.encoder_cache import WHOLE, WORD, chunk_hash, recall, remember
from stages.tokenizer.encoder_tables import NO_RANK, MergeTables, rank_of
from stages.tokenizer.scanner import WORDS, Integer, chunk_end

LONG = 64  # tokens from which on the heap is faster than scanning; measured
_RANK_SHIFT = np.int64(32)
_POSITION = np.int64(0xFFFFFFFF)


@njit(cache=True, nogil=True)
def encode(
    data: np.ndarray, offsets: np.ndarray, tables: MergeTables, cache: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """([tokens] uint32 ids, [documents + 1] int64 places of the documents in them).

    Args:
        data: [bytes] uint8, NFC text as valid UTF-8.
        offsets: [documents + 1] int64 places of the documents in `data`, ascending.
        tables: Of the tokenizer.
        cache: Of `encoder_cache`, changed in place; never shared between tokenizers.
    """
    all_tokens = np.empty(offsets[-1] - offsets[0] + 1, np.uint32)  # no token is shorter than a byte
    scratch = np.empty(max(256, _longest(offsets)), np.int32)
    # Views that own nothing: else every call below would count references to each array, a third of the time.
    data, cache, tokens, ranks = borrowed(data), borrowed(cache), borrowed(all_tokens), borrowed(scratch)
    classes, byte_ids, byte_ranks = borrowed(tables.classes), borrowed(tables.byte_ids), borrowed(tables.byte_ranks)
    rules, merged = borrowed(tables.rules), borrowed(tables.merged)
    starts_late, ends_late = borrowed(tables.starts_late), borrowed(tables.ends_late)
    word_rules, pattern = tables.word_rules, tables.pattern
    token_offsets = np.zeros(offsets.shape[0], np.int64)
    all_rules = merged.shape[0]
    count = np.int64(0)
    for document in range(offsets.shape[0] - 1):
        at, stop = offsets[document], offsets[document + 1]
        while at < stop:
            end = chunk_end(data, at, stop, classes, pattern)
            if end - at == 1:
                tokens[count] = byte_ids[data[at]]
                count += 1
                at = end
                continue
            start = at
            code = chunk_hash(data, at, end)
            last = recall(cache, WHOLE, code, data, at, end, tokens, count)
            if last < 0:
                last = count
                while at < end:
                    word_end = chunk_end(data, at, end, classes, WORDS)
                    last = _word(
                        data, at, word_end, byte_ids, byte_ranks, rules, merged, word_rules, cache, tokens, last, ranks
                    )
                    at = word_end
                if word_rules < all_rules and _can_merge(tokens, count, last, rules, starts_late, ends_late, ranks):
                    last = _merged(rules, merged, tokens, count, last, ranks, all_rules)
                remember(cache, WHOLE, code, data, start, end, tokens, count, last)
            count = last
            at = end
        token_offsets[document + 1] = count
    scratch[0] = 0  # a use after the loop: numba frees an array after its last one, and `ranks` does not count
    return all_tokens[:count].copy(), token_offsets


@njit(cache=True, nogil=True)
def merge_alone(data: np.ndarray, offsets: np.ndarray, tables: MergeTables) -> tuple[np.ndarray, np.ndarray]:
    """What each piece of `data`, no empty one among them, is merged into by all rules, cut nowhere.

    Gives ([pieces] int64 the token, or -1 where several are left; [pieces] int64 rank of the last rule, -1 for none).
    """
    pieces = offsets.shape[0] - 1
    made, last_ranks = np.full(pieces, -1), np.full(pieces, -1)
    longest = _longest(offsets)
    tokens, ranks = np.empty(longest + 1, np.uint32), np.empty(longest + 1, np.int32)
    for piece in range(pieces):
        count = offsets[piece + 1] - offsets[piece]
        for i in range(count):
            tokens[i] = tables.byte_ids[data[offsets[piece] + i]]
        while count > 1:
            for i in range(count - 1):
                ranks[i] = rank_of(tables.rules, tokens[i], tokens[i + 1])
            best, place = _lowest(ranks, count - 1)
            if best == NO_RANK:
                break
            tokens[place] = tables.merged[best]
            last_ranks[piece] = best
            count -= 1
            for i in range(place + 1, count):
                tokens[i] = tokens[i + 1]
        if count == 1:
            made[piece] = tokens[0]
    return made, last_ranks


@njit(cache=True, nogil=True)
def _longest(offsets: np.ndarray) -> np.int64:
    """Bytes of the longest document, and so of the longest chunk."""
    longest = np.int64(0)
    for document in range(offsets.shape[0] - 1):
        longest = max(longest, offsets[document + 1] - offsets[document])
    return longest


@njit(cache=True, nogil=True)
def _can_merge(
    tokens: np.ndarray, first: Integer, last: Integer, rules: np.ndarray,
    starts_late: np.ndarray, ends_late: np.ndarray, ranks: np.ndarray,
) -> bool:  # fmt: skip
    """Set the ranks of all pairs that are left when the word rules are done; whether there is any rule among them."""
    found = False
    for i in range(first, last - 1):
        rank = NO_RANK
        if starts_late[tokens[i]] and ends_late[tokens[i + 1]]:
            rank = rank_of(rules, tokens[i], tokens[i + 1])
            found |= rank != NO_RANK
        ranks[i - first] = rank
    return found


@njit(cache=True, nogil=True)
def _word(
    data: np.ndarray, at: Integer, end: Integer, byte_ids: np.ndarray, byte_ranks: np.ndarray, rules: np.ndarray,
    merged: np.ndarray, limit: int, cache: np.ndarray, tokens: np.ndarray, count: Integer, ranks: np.ndarray,
) -> Integer:  # fmt: skip
    """Write a word's tokens under the rules below `limit` to `tokens` from `count` on; gives the new count."""
    code = chunk_hash(data, at, end)
    last = recall(cache, WORD, code, data, at, end, tokens, count)
    if last < 0:
        tokens[count] = byte_ids[data[at]]
        for i in range(1, end - at):
            tokens[count + i] = byte_ids[data[at + i]]
            rank = byte_ranks[data[at + i - 1], data[at + i]]
            ranks[i - 1] = rank if rank < limit else NO_RANK
        last = _merged(rules, merged, tokens, count, count + end - at, ranks, limit)
        remember(cache, WORD, code, data, at, end, tokens, count, last)
    return last


@njit(cache=True, nogil=True)
def _merged(
    rules: np.ndarray, merged: np.ndarray, tokens: np.ndarray, first: Integer, last: Integer,
    ranks: np.ndarray, limit: int,
) -> Integer:  # fmt: skip
    """Merge tokens[first:last] in place, `ranks[i]` the rank of the pair that begins at first + i; the new end."""
    if last - first > LONG:
        last = _merge_long(rules, merged, tokens, first, last, ranks, limit)
    else:
        last = _merge_short(rules, merged, tokens, first, last, ranks, limit)
    return last


@njit(cache=True, nogil=True)
def _merge_short(
    rules: np.ndarray, merged: np.ndarray, tokens: np.ndarray, first: Integer, last: Integer,
    ranks: np.ndarray, limit: int,
) -> Integer:  # fmt: skip
    best, place = _lowest(ranks, last - first - 1)
    while best != NO_RANK:
        last -= 1
        joined = first + place
        tokens[joined] = merged[best]
        for i in range(joined + 1, last):
            tokens[i] = tokens[i + 1]
            ranks[i - first - 1] = ranks[i - first]
        if place > 0:
            ranks[place - 1] = _rank_below(rules, tokens[joined - 1], tokens[joined], limit)
        if joined < last - 1:
            ranks[place] = _rank_below(rules, tokens[joined], tokens[joined + 1], limit)
        best, place = _lowest(ranks, last - first - 1)
    return last


@njit(cache=True, nogil=True)
def _lowest(ranks: np.ndarray, count: Integer) -> tuple[np.int32, np.int64]:
    """(the lowest rank, where it is first)."""
    best, place = NO_RANK, np.int64(0)
    for i in range(count):
        if ranks[i] < best:
            best, place = ranks[i], np.int64(i)
    return best, place


@njit(cache=True, nogil=True)
def _rank_below(rules: np.ndarray, left: Any, right: Any, limit: int) -> np.int32:
    rank = rank_of(rules, left, right)
    return rank if rank < limit else NO_RANK


@njit(cache=True, nogil=True)
def _merge_long(
    rules: np.ndarray, merged: np.ndarray, tokens: np.ndarray, first: Integer, last: Integer,
    ranks: np.ndarray, limit: int,
) -> Integer:  # fmt: skip
    """Heap entries are rank << 32 | position; one is stale when its position has another rank by now."""
    count = last - first
    after = np.arange(1, count + 1)
    before = np.arange(-1, count - 1)
    ranks[count - 1] = NO_RANK  # the last token begins no pair
    heap = np.empty(3 * count, np.int64)  # every merge adds at most two
    size = np.int64(0)
    for i in range(count - 1):
        if ranks[i] != NO_RANK:
            size = _push(heap, size, np.int64(ranks[i]) << _RANK_SHIFT | i)
    while size > 0:
        top = heap[0]
        size = _pop(heap, size)
        place, rank = top & _POSITION, top >> _RANK_SHIFT
        if ranks[place] != rank:
            continue
        gone = after[place]
        tokens[first + place] = merged[rank]
        ranks[gone] = ranks[place] = NO_RANK
        following = after[gone]
        after[place] = following
        if following < count:
            before[following] = place
            ranks[place] = _rank_below(rules, tokens[first + place], tokens[first + following], limit)
            if ranks[place] != NO_RANK:
                size = _push(heap, size, np.int64(ranks[place]) << _RANK_SHIFT | place)
        ahead = before[place]
        if ahead >= 0:
            ranks[ahead] = _rank_below(rules, tokens[first + ahead], tokens[first + place], limit)
            if ranks[ahead] != NO_RANK:
                size = _push(heap, size, np.int64(ranks[ahead]) << _RANK_SHIFT | ahead)
    place = np.int64(0)
    end = first
    while place < count:
        tokens[end] = tokens[first + place]
        end += 1
        place = after[place]
    return end


@njit(cache=True, nogil=True)
def _push(heap: np.ndarray, size: Integer, entry: Any) -> Integer:
    place = size
    while place > 0 and heap[(place - 1) >> 1] > entry:
        heap[place] = heap[(place - 1) >> 1]
        place = (place - 1) >> 1
    heap[place] = entry
    return size + 1


@njit(cache=True, nogil=True)
def _pop(heap: np.ndarray, size: Integer) -> Integer:
    size -= 1
    entry = heap[size]
    place = np.int64(0)
    while 2 * place + 1 < size:
        child = 2 * place + 1
        if child + 1 < size and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= entry:
            break
        heap[place] = heap[child]
        place = child
    heap[place] = entry
    return size
