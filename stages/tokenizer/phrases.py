"""What stage 2 merges: phrases as stage-1 tokens, without what is too rare to be merged, with a weight a language.

A phrase counts for `ko` when it holds Hangul, for `en` when it stands without Hangul in a Korean document, for `code`
in source code, else for its document's language. Contract: phrases are cut between two tokens that stand beside each
other less than `minimum_count` times in the whole text: what would be merged across such a place is not more frequent.
A word that was dropped as too rare cuts its phrase too. The neighbours are counted in a table of fixed size, where
different pairs may share a place: a place is then cut too late, never too early. So what is kept depends on the counts
alone, and only this is in memory. Cost: about 30 ns a word and pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit

from stages.tokenizer.counts import CODE, Group, Run
from stages.tokenizer.merging import Sequences
from stages.tokenizer.tables import Integer, SequenceTable
from stages.tokenizer.words import Runs, Words

ENGLISH, KOREAN, OTHERS = "en", "ko", "other"
MOST_COLUMNS = 8  # languages that are weighed apart; the smaller ones share one
NEIGHBOUR_SLOTS = 1 << 24  # 128 MiB
MOST_POSITIONS = 48_000_000  # tokens in memory, at 20 to 40 bytes each


@dataclass(frozen=True)
class Neighbours:
    """How often tokens stand beside each other.

    Attributes:
        weights: [slots] int64, each at least the weight of the pairs that share the slot.
        positions: [64] int64 places by the bit length of their weight.
    """

    weights: np.ndarray
    positions: np.ndarray

    def fitting_count(self, minimum_count: int, most_positions: int) -> int:
        """`minimum_count`, or the power of two above it that leaves no more than so many places."""
        bits = next(bits for bits in range(65) if int(self.positions[bits:].sum()) <= most_positions)
        return max(minimum_count, 1 << max(0, bits - 1))


def column_of(group: Group) -> str:
    """The language that phrases without Hangul count for."""
    if group.domain == CODE:
        return CODE
    language = group.language.split("-")[0] or OTHERS
    return ENGLISH if language == KOREAN else language


def language_columns(runs: Runs) -> tuple[str, ...]:
    """The languages to weigh apart: the heaviest, `ko` always among them, and `other` for the rest."""
    weights: dict[str, int] = {KOREAN: 0}
    for run in runs():
        name = column_of(run.group)
        weights[name] = weights.get(name, 0) + int(run.phrase_counts.sum())
    ranked = sorted((name for name in weights if name not in (KOREAN, OTHERS)), key=lambda name: (-weights[name], name))
    kept = sorted([KOREAN, *ranked[: MOST_COLUMNS - 2]])
    return (*kept, OTHERS) if OTHERS in weights or len(ranked) > MOST_COLUMNS - 2 else tuple(kept)


def count_neighbours(runs: Runs, words: Words) -> Neighbours:
    """Count the neighbours in all phrases."""
    weights, positions = np.zeros(NEIGHBOUR_SLOTS, np.int64), np.zeros(64, np.int64)
    sequences = words.sequences
    for kernel in (_count_neighbours, _count_positions):
        for run in runs():
            kernel(
                run.phrase_words, run.phrase_bounds, run.phrase_counts, _numbers(run, words),
                sequences.token_ids, sequences.starts, sequences.lengths, weights, positions,
            )  # fmt: skip
    return Neighbours(weights, positions)


def phrase_sequences(
    runs: Runs, words: Words, neighbours: Neighbours, minimum_count: int, columns: Sequence[str]
) -> Sequences:
    """The distinct pieces of phrases that hold something to merge.

    Args:
        runs: Gives the runs anew.
        words: What stage 1 made of the words.
        neighbours: Of the same runs and words.
        minimum_count: Cut where two tokens meet less often.
        columns: As `language_columns` gives them.
    """
    table = SequenceTable(np.int32, len(columns))
    place: Mapping[str, int] = {name: number for number, name in enumerate(columns)}
    sequences = words.sequences
    for run in runs():
        column = place.get(column_of(run.group), len(columns) - 1)
        items, ends, phrases, korean = _pieces(
            run.phrase_words, run.phrase_bounds, _numbers(run, words), sequences.token_ids, sequences.starts,
            sequences.lengths, words.hangul, neighbours.weights, minimum_count,
        )  # fmt: skip
        counts = np.zeros((ends.size, len(columns)), np.int64)
        counts[np.arange(ends.size), np.where(korean, place[KOREAN], column)] = run.phrase_counts[phrases]
        table.add(items, ends, counts)
    bounds = table.bounds
    return Sequences(table.items, bounds[:-1].copy(), np.diff(bounds).astype(np.int32), table.weights)


def _numbers(run: Run, words: Words) -> np.ndarray:
    """[run's words] int32 their numbers among all words, -1 for those that were dropped."""
    return words.table.find(run.word_bytes, run.word_bounds[1:])


@njit(cache=True, inline="always")
def _neighbour_slot(left: Integer, right: Integer, slots: Integer):
    mixed = ((np.uint64(left) << np.uint64(32)) | np.uint64(right)) * np.uint64(0x9E3779B97F4A7C15)
    return np.int64((mixed ^ (mixed >> np.uint64(29))) & np.uint64(slots - 1))


@njit(cache=True)
def _count_neighbours(
    phrase_words: np.ndarray,
    bounds: np.ndarray,
    counts: np.ndarray,
    numbers: np.ndarray,
    token_ids: np.ndarray,
    starts: np.ndarray,
    lengths: np.ndarray,
    weights: np.ndarray,
    positions: np.ndarray,
):
    for phrase in range(counts.size):
        before = np.int32(-1)
        for place in range(bounds[phrase], bounds[phrase + 1]):
            word = numbers[phrase_words[place]]
            if word < 0:
                before = np.int32(-1)
                continue
            for at in range(starts[word], starts[word] + lengths[word]):
                if before >= 0:
                    weights[_neighbour_slot(before, token_ids[at], weights.size)] += counts[phrase]
                before = token_ids[at]


@njit(cache=True)
def _count_positions(
    phrase_words: np.ndarray,
    bounds: np.ndarray,
    counts: np.ndarray,
    numbers: np.ndarray,
    token_ids: np.ndarray,
    starts: np.ndarray,
    lengths: np.ndarray,
    weights: np.ndarray,
    positions: np.ndarray,
):
    for phrase in range(counts.size):
        before = np.int32(-1)
        for place in range(bounds[phrase], bounds[phrase + 1]):
            word = numbers[phrase_words[place]]
            if word < 0:
                before = np.int32(-1)
                continue
            for at in range(starts[word], starts[word] + lengths[word]):
                if before >= 0:
                    weight, bits = weights[_neighbour_slot(before, token_ids[at], weights.size)], 0
                    while weight > 0:
                        weight, bits = weight >> 1, bits + 1
                    positions[bits] += 1
                before = token_ids[at]


@njit(cache=True)
def _pieces(
    phrase_words: np.ndarray,
    bounds: np.ndarray,
    numbers: np.ndarray,
    token_ids: np.ndarray,
    starts: np.ndarray,
    lengths: np.ndarray,
    hangul: np.ndarray,
    weights: np.ndarray,
    minimum_count: Integer,
):
    """(items, ends, phrase of each piece, whether its phrase is Korean); a piece reaches over at least one space."""
    items, ends = np.empty(1 << 16, np.int32), np.empty(1 << 12, np.int64)
    phrases, korean = np.empty(1 << 12, np.int64), np.empty(1 << 12, np.bool_)
    written, pieces = 0, 0
    for phrase in range(bounds.size - 1):
        first, last = bounds[phrase], bounds[phrase + 1]
        in_phrase, holds_hangul = 0, False
        for place in range(first, last):
            word = numbers[phrase_words[place]]
            if word >= 0:
                in_phrase += lengths[word]
                holds_hangul = holds_hangul or hangul[word]
        if written + in_phrase > items.size:
            items = _longer(items, 2 * items.size + in_phrase)
        if pieces + in_phrase > ends.size:
            size = 2 * ends.size + in_phrase
            ends, phrases, korean = _longer(ends, size), _longer(phrases, size), _longer(korean, size)
        start, words_in_piece, before = written, 0, np.int32(-1)
        for place in range(first, last + 1):
            word = numbers[phrase_words[place]] if place < last else np.int32(-1)
            is_end = word < 0  # one more round closes the piece before it
            size = 1
            if is_end:
                word, before = np.int32(0), np.int32(-1)
            else:
                size = lengths[word]
            for step in range(size):
                token = token_ids[starts[word] + step]
                cut = is_end or (before >= 0 and weights[_neighbour_slot(before, token, weights.size)] < minimum_count)
                if cut:
                    if words_in_piece > 1:
                        ends[pieces], phrases[pieces], korean[pieces] = written, phrase, holds_hangul
                        pieces += 1
                    else:
                        written = start
                    start, words_in_piece = written, 0
                if is_end:
                    break
                if words_in_piece == 0 or step == 0:
                    words_in_piece += 1
                items[written] = token
                written += 1
                before = token
    return items[:written], ends[:pieces], phrases[:pieces], korean[:pieces]


@njit(cache=True)
def _longer(array: np.ndarray, size: Integer):
    longer = np.empty(size, array.dtype)
    longer[: array.size] = array
    return longer
