"""All distinct words of the runs, counted together: what stage 1 merges, and the limit of what fits into memory.

Contract: runs are read one at a time and added up part by part, by the hash of the word, so that only a part's words
and those that are kept are in memory. A word seen less often than `minimum_count` is dropped: with 1 the merges are
exactly those of the whole text, which needs all distinct words; that more than `MOST_WORD_BYTES` of them are not
tried is an error which names the least count that fits. Memory of stage 1, measured with 1.1 and 4.2 million distinct
words of 20 bytes: 0.2 GB and 23 bytes a byte of distinct words, whatever the length of the text (1 GB of technical
text in six languages has 21 MB of them).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numba import njit

from pipeline.core.errors import ConfigError
from stages.tokenizer.counts import Group, Run
from stages.tokenizer.merging import Sequences
from stages.tokenizer.spelling import alphabet
from stages.tokenizer.tables import Integer, SequenceTable, hashed

Runs = Callable[[], Iterator[Run]]

PART_WORD_BYTES = 64_000_000  # of distinct words that are added up at once, with tables about 300 MB
MOST_WORD_BYTES = 300_000_000  # of distinct words in memory: 7 GB
RARE = 256  # the largest `minimum_count`


@dataclass(frozen=True)
class Words:
    """All distinct words, and their tokens after stage 1.

    Attributes:
        table: The words; a word's number is its sequence's.
        sequences: Their tokens.
        hangul: [words] bool whether they hold a Korean letter.
    """

    table: SequenceTable
    sequences: Sequences
    hangul: np.ndarray


def count_words(
    runs: Runs,
    minimum_count: int = 1,
    weigh: Callable[[Group], int] = lambda group: 1,
    most_bytes: int = MOST_WORD_BYTES,
) -> Words:
    """The words seen `minimum_count` times or more, as bytes; each group's counts are taken `weigh(group)` times.

    Raises `ConfigError` when they have more than `most_bytes`.
    """
    at_most = sum(int(run.word_bounds[-1]) for run in runs())
    parts = max(1, -(-at_most // PART_WORD_BYTES))
    table = SequenceTable(np.uint8)
    sizes = np.zeros(RARE + 1, np.int64)  # bytes of words by how often they occur
    for part in range(parts):
        added = added_up(runs, weigh, part, parts)
        bounds, weights = added.bounds, added.weights
        sizes += np.bincount(np.minimum(weights[:, 0], RARE), np.diff(bounds), RARE + 1).astype(np.int64)
        if sizes[minimum_count:].sum() <= most_bytes:
            kept = weights[:, 0] >= minimum_count
            table.add(*_chosen(added.items, bounds, kept), weights[kept, 1:])
    if sizes[minimum_count:].sum() > most_bytes:
        raise _too_many(sizes, minimum_count, most_bytes)
    ids = np.zeros(256, np.int32)
    for token_id, token in enumerate(alphabet()):
        if token:
            ids[token[0]] = token_id
    bounds = table.bounds
    sequences = Sequences(ids[table.items], bounds[:-1].copy(), np.diff(bounds).astype(np.int32), table.weights)
    return Words(table, sequences, _hangul(table.items, bounds))


def added_up(runs: Runs, weigh: Callable[[Group], int], part: int, parts: int) -> SequenceTable:
    """The words of a part with [occurrences, weight]."""
    table = SequenceTable(np.uint8, 2)
    for run in runs():
        items, bounds, counts = run.word_bytes, run.word_bounds, run.word_counts
        ends = bounds[1:]
        if parts > 1:
            chosen = _parts(items, bounds, parts) == part
            items, ends = _chosen(items, bounds, chosen)
            counts = counts[chosen]
        table.add(items, ends, np.column_stack([counts, counts * weigh(run.group)]))
    return table


def _too_many(sizes: np.ndarray, minimum_count: int, most_bytes: int) -> ConfigError:
    held = f"{int(sizes[minimum_count:].sum()):,} bytes of distinct words"
    fits = [count for count in range(minimum_count + 1, RARE + 1) if sizes[count:].sum() <= most_bytes]
    return ConfigError(
        f"{held} do not fit into memory, where {most_bytes:,} do",
        where="tokenizer",
        fix=f"set `minimum_word_count: {fits[0]}`" if fits else "set a smaller `maximum_bytes`",
    )


def _chosen(items: np.ndarray, bounds: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(items, ends) of the chosen sequences."""
    lengths = np.diff(bounds)
    return items[: bounds[-1]][np.repeat(chosen, lengths)], np.cumsum(lengths[chosen])


@njit(cache=True)
def _parts(items: np.ndarray, bounds: np.ndarray, parts: Integer):
    found = np.empty(bounds.size - 1, np.int32)
    for word in range(found.size):
        # Of the high half: the tables' slots go by the low bits.
        found[word] = np.int32((hashed(items, bounds[word], bounds[word + 1]) >> np.uint64(40)) % np.uint64(parts))
    return found


@njit(cache=True)
def _hangul(data: np.ndarray, bounds: np.ndarray):
    """UTF-8 of U+1100-11FF is E1 84-87, of U+3130-318F E3 84 B0 - E3 86 8F, of U+AC00-D7A3 EA B0 80 - ED 9E A3."""
    found = np.zeros(bounds.size - 1, np.bool_)
    for word in range(found.size):
        for place in range(bounds[word], bounds[word + 1] - 2):
            first, second = data[place], data[place + 1]
            if (
                (first == 0xEA and second >= 0xB0)
                or first == 0xEB
                or first == 0xEC
                or (first == 0xED and second <= 0x9E)
                or (first == 0xE1 and 0x84 <= second <= 0x87)
                or (first == 0xE3 and 0x84 <= second <= 0x86 and not (second == 0x84 and data[place + 2] < 0xB0))
            ):
                found[word] = True
                break
    return found
