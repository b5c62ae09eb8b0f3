"""The merge loop of BPE training, compiled: the most frequent pair of neighbours becomes one token, over and over.

Contract: sequences of token ids with int64 weights (one column a class) are merged in place. Order is that of the
`tokenizers` library's BpeTrainer: highest weight first, among equals the smaller (left id, right id); a merge whose
bytes are a token already gives that token. One difference: a pair that was merged earlier and comes up again, because
its bytes were reached by another cut, is merged at once, as every encoder would do. The result does not depend on the
order of the sequences. Inherited merges are replayed first, in their order, and so are those of an earlier call that
was stopped: `Progress`.

How: each pair keeps a list of the sequences that hold it (some no longer do); a merge walks that list once, with the
next few sequences asked for ahead, and the changed pairs of one merge are found by neighbour in dense arrays, so that
hashing is done once a neighbour and merge and not once an occurrence. The heap is lazy: entries are corrected when they
come up. Cost: 8 bytes a token and 50 a distinct pair; a sequence is scanned once for each merge in it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from stages.tokenizer.merge_kernels import (
    DONE,
    HASH_BASE,
    MORE,
    Chosen,
    Neighbours,
    Vocabulary,
    known_or_noted,
    merge_slice,
)
from stages.tokenizer.merge_tables import MERGES, PAIRS, TOKENS, VETOED, Tables, counted, refused

UNBOUNDED = 1 << 40
SLICE_MERGES = 512  # between two reports of progress
SPARE_MERGES = 1024  # for merges that make no new token


@dataclass(frozen=True)
class Sequences:
    """What is merged: S sequences of token ids, one after the other, and their weights in C classes.

    Attributes:
        token_ids: [tokens] int32, overwritten by merging.
        starts: [S] int64 first place of each.
        lengths: [S] int32, overwritten.
        weights: [S, C] int64 how often it occurs in each column.
    """

    token_ids: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    weights: np.ndarray

    def of(self, sequence: int) -> np.ndarray:
        """Its token ids now."""
        start = int(self.starts[sequence])
        return self.token_ids[start : start + int(self.lengths[sequence])]


@dataclass(frozen=True)
class Rules:
    """What may be merged, after the inherited merges.

    Attributes:
        tokens: Number of tokens to reach.
        classes: For each column its class, from 0 on.
        quotas: How many new tokens each class may get; the class of a pair is the one with most of its weight.
        minimum_count: A pair of less weight is not merged.
        minimum_words: Words a new token must touch; from 2 on it must also be whole characters.
        maximum_words: Words it may touch.
    """

    tokens: int
    classes: tuple[int, ...] = (0,)
    quotas: tuple[int, ...] = (UNBOUNDED,)
    minimum_count: int = 1
    minimum_words: int = 0
    maximum_words: int = 1 << 30


@dataclass(frozen=True)
class Progress:
    """How far merging is: enough to go on as if it had never stopped.

    Attributes:
        merges: [M, 3] int32 those after the inherited ones.
        by_class: New tokens.
        by_column: New tokens.
        vetoed: int64 keys of the pairs that the rules have refused.
    """

    merges: np.ndarray
    by_class: np.ndarray
    by_column: np.ndarray
    vetoed: np.ndarray


@dataclass(frozen=True)
class Merged:
    """Merges by rank, inherited ones first, and the tokens after them."""

    tokens: list[bytes]
    merges: list[tuple[int, int, int]]  # left, right, result
    counts: list[int]  # weight at the time
    by_class: tuple[int, ...]  # new tokens
    by_column: tuple[int, ...]  # new tokens, each of the heaviest column of its class
    complete: bool

    def progress_after(self, inherited: int) -> Progress:
        """The end as progress, where the rules refuse no pair; `inherited` merges came before."""
        merges = np.array(self.merges[inherited:], np.int32).reshape(-1, 3)
        return Progress(merges, np.array(self.by_class), np.array(self.by_column), np.empty(0, np.int64))


Told = Callable[[int, Callable[[], Progress]], None]  # (tokens, gives how far it is)


def merge(
    sequences: Sequences,
    tokens: Sequence[bytes],
    inherited: Sequence[tuple[int, int, int]],
    rules: Rules,
    told: Told = lambda tokens, progress: None,
    reached: Progress | None = None,
) -> Merged:
    """Replay `inherited`, then go on to `rules.tokens` tokens.

    Args:
        sequences: Merged in place.
        tokens: Bytes of each id; empty for ids that text never has.
        inherited: Merges among `tokens`, in their order.
        rules: Where to go.
        told: Called now and then with the number of tokens reached.
        reached: Of the same sequences, tokens, inherited merges and rules, when they were merged before: these merges
            are replayed too.
    """
    columns = sequences.weights.shape[1]
    room = max(rules.tokens, len(tokens))
    most = len(inherited) + (room - len(tokens)) * 5 // 4 + SPARE_MERGES
    earlier = reached.merges.tolist() if reached else []
    known = _grown(tokens, earlier)
    vocabulary = _vocabulary(known, room + 1)
    chosen = Chosen(
        *(np.zeros(most, np.int32) for _ in range(3)),
        *(np.zeros(size, np.int64) for size in (most, len(rules.quotas), columns)),
    )
    replay = np.array([*inherited, *earlier], np.int32).reshape(-1, 3)
    numbers = np.zeros(8, np.int64)
    numbers[TOKENS] = len(known)
    limits = np.array([rules.tokens, rules.minimum_count, rules.minimum_words, rules.maximum_words], np.int64)
    classes, quotas = np.array(rules.classes, np.int64), np.array(rules.quotas, np.int64)
    # Start, length and weights of a sequence are needed together: side by side they are one access to memory.
    rows = np.column_stack([sequences.starts, sequences.lengths, sequences.weights])
    tables = counted(sequences.token_ids, rows, columns, numbers)
    if reached is not None:
        chosen.by_class[:], chosen.by_column[:] = reached.by_class, reached.by_column
        tables = refused(tables, columns, numbers, reached.vetoed)
    most_new = 2 * room + 8
    neighbours = Neighbours(
        places=np.zeros((2, room + 1), np.int64),
        beside=np.zeros((most_new, 2), np.int32),
        gains=np.zeros(most_new * columns, np.int64),
        last=np.zeros(most_new, np.int32),
        sizes=np.zeros(most_new, np.int32),
        touched=np.zeros(most_new, np.int32),
    )
    ended = MORE
    while ended == MORE:
        tables, ended = merge_slice(
            sequences.token_ids,
            rows,
            columns,
            tables,
            neighbours,
            vocabulary,
            chosen,
            replay,
            limits,
            classes,
            quotas,
            numbers,
            SLICE_MERGES,
        )
        told(int(numbers[TOKENS]), partial(_progress, tables, chosen, numbers, len(inherited)))
    sequences.lengths[:] = rows[:, 1]
    return _merged(tokens, chosen, int(numbers[MERGES]), complete=ended == DONE)


def _progress(tables: Tables, chosen: Chosen, numbers: np.ndarray, inherited: int) -> Progress:
    """A copy of how far it is; the merges of a replay that goes on are those that it has made again."""
    done = slice(inherited, int(numbers[MERGES]))
    refused_pairs = tables.ranks[: int(numbers[PAIRS])] == VETOED
    return Progress(
        np.column_stack([chosen.lefts[done], chosen.rights[done], chosen.results[done]]),
        chosen.by_class.copy(),
        chosen.by_column.copy(),
        tables.pairs[: int(numbers[PAIRS])][refused_pairs],
    )


def _grown(tokens: Sequence[bytes], merges: Sequence[Sequence[int]]) -> list[bytes]:
    """The tokens and, after them, those that the merges make."""
    made = list(tokens)
    for left, right, result in merges:
        joined = made[left] + made[right]
        if result == len(made):
            made.append(joined)
        assert made[result] == joined, "two tokens of one hash"
    return made


def _merged(tokens: Sequence[bytes], chosen: Chosen, merges: int, *, complete: bool) -> Merged:
    columns = (chosen.lefts, chosen.rights, chosen.results)
    triples = list(zip(*(column[:merges].tolist() for column in columns), strict=True))
    made = _grown(tokens, triples)
    counts = chosen.counts[:merges].tolist()
    by_class, by_column = tuple(chosen.by_class.tolist()), tuple(chosen.by_column.tolist())
    return Merged(made, triples, counts, by_class, by_column, complete)


def _vocabulary(tokens: Sequence[bytes], room: int) -> Vocabulary:
    hashes, powers = np.zeros(room, np.uint64), np.ones(room, np.uint64)
    traits = np.zeros((room, 5), np.int32)
    slots = 1 << max(10, (4 * room).bit_length())
    vocabulary = Vocabulary(hashes, powers, traits, np.full(slots, -1, np.int64), np.zeros(slots, np.int32))
    for number, token in enumerate(tokens):
        value, power = 0, 1
        for byte in token:
            value = (value * HASH_BASE + byte + 1) % 2**64
            power = power * HASH_BASE % 2**64
        hashes[number], powers[number] = value, power
        traits[number] = token_traits(token)
        if token:
            known_or_noted(vocabulary, np.int64(number))
    return vocabulary


def token_traits(token: bytes) -> tuple[int, int, int, int, int]:
    """(words touched, starts inside a character, ends inside one, starts with a space, ends with a space)."""
    words = sum(1 for part in token.split(b" ") if part)
    start_inside = int(bool(token) and 0x80 <= token[0] < 0xC0)
    return words, start_inside, int(ends_inside(token)), int(token[:1] == b" "), int(token[-1:] == b" ")


def ends_inside(token: bytes) -> bool:
    """Whether the last character of UTF-8 bytes is cut short."""
    for back, byte in enumerate(reversed(token[-4:]), start=1):
        if byte < 0x80:
            return False
        if byte >= 0xC0:
            return back < (2 if byte < 0xE0 else 3 if byte < 0xF0 else 4)
    return False
