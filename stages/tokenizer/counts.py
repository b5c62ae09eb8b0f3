"""Counting: texts to distinct words and phrases with how often they occur, spilled to disk in runs.

A word is a chunk of the word pattern; a phrase is a chunk of the superword pattern that holds several words, as the
numbers of its words. Every word boundary inside such a chunk is one of its single spaces, so one pass with the
superword pattern gives both. Contract: a run holds the counts of one group of documents (language and domain) and
needs nothing else; runs may be made of any documents in any order, their sums are the counts of the text. Cost: the
pattern scanner's and about as much again; memory is bounded by `RUN_WORDS` and `RUN_PHRASE_WORDS` whatever the text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
from numba import njit

from pipeline.core.errors import InputError
from pipeline.core.files import PARTIAL, atomic_path
from stages.tokenizer.prefetch import prefetch
from stages.tokenizer.scanner import LETTER, character, character_classes, scan
from stages.tokenizer.tables import HASH_FACTOR, NUMBER, Integer, SequenceTable, first_slot, found_or_added

FOLDER = "counts"
BATCH_BYTES = 1 << 20  # scanned at once; tables make room for as many new words as a batch may have
RUN_WORDS = 4_000_000  # distinct, about 120 MB
RUN_PHRASE_WORDS = 32_000_000  # words in distinct phrases, about 300 MB
GROUP = b"seodang.group"
AHEAD = 4  # words that are asked for before they are needed, for each of three accesses
CODE = "code"  # the domain of source code


@dataclass(frozen=True, order=True)
class Group:
    """Documents that are counted together."""

    language: str  # BCP-47, empty where it is not known
    domain: str  # empty where there is none

    @property
    def name(self) -> str:
        return f"{self.language or 'und'}/{self.domain}" if self.domain else self.language or "und"


@dataclass(frozen=True)
class Run:
    """Counts of one group: W words and P phrases.

    Attributes:
        group: Whose they are.
        word_bytes: uint8, the words one after the other.
        word_bounds: [W + 1] int64.
        word_counts: [W] int64.
        phrase_words: int32 numbers of words, the phrases one after the other.
        phrase_bounds: [P + 1] int64.
        phrase_counts: [P] int64.
    """

    group: Group
    word_bytes: np.ndarray
    word_bounds: np.ndarray
    word_counts: np.ndarray
    phrase_words: np.ndarray
    phrase_bounds: np.ndarray
    phrase_counts: np.ndarray


@dataclass
class Counter:
    """Counts texts of one group; `are_full` says when it is time to take a run and start anew."""

    group: Group
    words: SequenceTable = field(default_factory=lambda: SequenceTable(np.uint8))
    phrases: SequenceTable = field(default_factory=lambda: SequenceTable(np.int32))

    def add(self, data: np.ndarray, offsets: np.ndarray) -> None:
        """Count documents.

        Args:
            data: uint8, NFC text in UTF-8.
            offsets: [documents + 1] int64 where each begins and ends.
        """
        ends = scan(data, offsets, "superword")
        room = _word_room(data, ends)
        self.words.make_room(room, data.size)
        self.phrases.make_room(ends.size, room)
        words, phrases = self.words, self.phrases
        start = int(offsets[0])
        cut = _cut(data, ends, start, character_classes(), room)
        sizes = _count(
            data, start, *cut,
            words.slots, words.hashes, words.rows, words.arena, words.size,
            phrases.slots, phrases.hashes, phrases.rows, phrases.arena, phrases.size,
        )  # fmt: skip
        words.size, phrases.size = (int(size) for size in sizes)

    @property
    def phrase_words(self) -> int:
        """Words in distinct phrases."""
        return int(self.phrases.rows[self.phrases.size, 0])

    def run(self) -> Run:
        words, phrases = self.words, self.phrases
        return Run(
            self.group, words.items, words.bounds, words.weights[:, 0],
            phrases.items, phrases.bounds, phrases.weights[:, 0],
        )  # fmt: skip


def are_full(counters: Iterable[Counter]) -> bool:
    """Whether it is time to take a run of one of them."""
    sizes = [(counter.words.size, counter.phrase_words) for counter in counters]
    return sum(words for words, _ in sizes) >= RUN_WORDS or sum(words for _, words in sizes) >= RUN_PHRASE_WORDS


def count_texts(group: Group, texts: Iterable[bytes]) -> Iterator[Run]:
    """The runs of one group's texts, which are NFC in UTF-8."""
    counter = Counter(group)
    for data, offsets in batches(texts):
        counter.add(data, offsets)
        if are_full([counter]):
            yield counter.run()
            counter = Counter(group)
    if counter.words.size:
        yield counter.run()


def batches(texts: Iterable[bytes]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Texts as `Counter.add` takes them, not much more than `BATCH_BYTES` at once."""
    batch: list[bytes] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= BATCH_BYTES:
            yield _joined(batch)
            batch, size = [], 0
    if batch:
        yield _joined(batch)


def _joined(texts: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    offsets = np.cumsum([0, *map(len, texts)], dtype=np.int64)
    return np.frombuffer(b"".join(texts), np.uint8), offsets


def write_run(folder: Path, shard: int, number: int, run: Run) -> None:
    """Write run `number` of a shard as two Arrow files, the words last."""
    stem = folder / FOLDER / f"{shard:05d}-{number:03d}"
    phrases = pa.LargeListArray.from_arrays(run.phrase_bounds, pa.array(run.phrase_words))
    _write(stem, "phrases", [phrases, pa.array(run.phrase_counts)], ["words", "count"], run.group)
    bounds = np.ascontiguousarray(run.word_bounds)
    size = bounds.size - 1
    buffers = [None, pa.py_buffer(bounds), pa.py_buffer(np.ascontiguousarray(run.word_bytes))]
    words = pa.Array.from_buffers(pa.large_binary(), size, buffers)
    _write(stem, "words", [words, pa.array(run.word_counts)], ["word", "count"], run.group)


def _write(stem: Path, ending: str, columns: list[pa.Array], names: list[str], group: Group) -> None:
    schema = pa.schema(
        [pa.field(name, column.type) for name, column in zip(names, columns, strict=True)],
        metadata={GROUP: f"{group.language}/{group.domain}".encode()},
    )
    batch = pa.record_batch(columns, schema=schema)
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with (
        atomic_path(stem.with_name(f"{stem.name}.{ending}.arrow")) as partial,
        pa.OSFile(str(partial), "wb") as sink,
        pa.ipc.new_file(sink, schema, options=options) as writer,
    ):
        writer.write_batch(batch)


def run_files(folder: Path) -> list[Path]:
    """The words files of a step's runs, in order."""
    return sorted(p for p in (folder / FOLDER).glob("*.words.arrow") if not p.name.startswith(PARTIAL))


def read_run(words_file: Path) -> Run:
    """Read a run. Raises `InputError` for a file that is not one."""
    phrases_file = words_file.with_name(words_file.name.replace(".words.", ".phrases."))
    try:
        words, phrases = _read(words_file), _read(phrases_file)
        language, _, domain = words.schema.metadata[GROUP].decode().partition("/")
        word, listed = words.column("word"), phrases.column("words")
        bounds, data = word.buffers()[1:]
        return Run(
            Group(language, domain),
            np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8),
            np.frombuffer(bounds, np.int64)[: len(word) + 1],
            words.column("count").to_numpy(),
            listed.values.to_numpy(),
            listed.offsets.to_numpy(),
            phrases.column("count").to_numpy(),
        )
    except (pa.ArrowInvalid, OSError, KeyError, TypeError) as error:
        raise InputError(
            f"not a run of counts: {error}", where=str(words_file), fix="run the count step again"
        ) from None


def _read(path: Path) -> pa.RecordBatch:
    with pa.OSFile(str(path), "rb") as source:
        return pa.ipc.open_file(source).get_batch(0)


@njit(cache=True)
def _word_room(data: np.ndarray, ends: np.ndarray):
    """At most how many words there are: chunks and single spaces."""
    spaces = 0
    for place in range(data.size):
        spaces += data[place] == 32
    return ends.size + spaces


@njit(cache=True)
def _cut(data: np.ndarray, chunk_ends: np.ndarray, start: Integer, classes: np.ndarray, room: Integer):
    """(end and hash of each word, words and hash of each chunk)."""
    word_ends, word_values = np.empty(room, np.int64), np.empty(room, np.uint64)
    chunk_words, chunk_values = np.empty(chunk_ends.size, np.int64), np.empty(chunk_ends.size, np.uint64)
    words = 0
    for chunk in range(chunk_ends.size):
        end = chunk_ends[chunk]
        held = 0
        chunk_value = np.uint64(0)
        while start < end:
            value, stop = np.uint64(0), start
            while stop < end:
                # Of the chunks with a space inside, only words go on with a letter behind it; others are white space.
                inside = data[stop] == 32 and start < stop < end - 1
                if inside and (held > 0 or classes[character(data, stop + 1)[0]] == LETTER):
                    break
                value = (value ^ np.uint64(data[stop])) * np.uint64(HASH_FACTOR)
                value ^= value >> np.uint64(32)
                stop += 1
            word_ends[words], word_values[words] = stop, value
            words += 1
            held += 1
            chunk_value = (chunk_value ^ value) * np.uint64(HASH_FACTOR)
            chunk_value ^= chunk_value >> np.uint64(29)
            start = stop
        chunk_words[chunk], chunk_values[chunk] = held, chunk_value
    return word_ends[:words], word_values[:words], chunk_words, chunk_values


@njit(cache=True)
def _count(
    data: np.ndarray,
    start: Integer,
    word_ends: np.ndarray,
    word_values: np.ndarray,
    chunk_words: np.ndarray,
    chunk_values: np.ndarray,
    word_slots: np.ndarray,
    word_hashes: np.ndarray,
    word_rows: np.ndarray,
    word_arena: np.ndarray,
    words: Integer,
    phrase_slots: np.ndarray,
    phrase_hashes: np.ndarray,
    phrase_rows: np.ndarray,
    phrase_arena: np.ndarray,
    phrases: Integer,
):
    """Count the chunks; returns how many distinct words and phrases there are now."""
    numbers = np.empty(word_ends.size, np.int32)
    for word in range(word_ends.size):
        if word + 3 * AHEAD < word_ends.size:
            prefetch(word_slots, first_slot(word_slots, word_values[word + 3 * AHEAD]))
            number = word_slots[first_slot(word_slots, word_values[word + 2 * AHEAD])]
            if number >= 0:  # the word's own, most of the time
                prefetch(word_rows, (number & NUMBER) * 2)
            number = word_slots[first_slot(word_slots, word_values[word + AHEAD])]
            if number >= 0:
                prefetch(word_arena, word_rows[number & NUMBER, 0])
        end = word_ends[word]
        number, words = found_or_added(
            data, start, end, word_values[word], word_slots, word_hashes, word_rows, word_arena, words
        )
        word_rows[number, 1] += 1
        numbers[word] = number
        start = end
    first = 0
    for chunk in range(chunk_words.size):
        if chunk + AHEAD < chunk_words.size and chunk_words[chunk + AHEAD] > 1:
            prefetch(phrase_slots, first_slot(phrase_slots, chunk_values[chunk + AHEAD]))
        last = first + chunk_words[chunk]
        if chunk_words[chunk] > 1:
            number, phrases = found_or_added(
                numbers, first, last, chunk_values[chunk], phrase_slots, phrase_hashes, phrase_rows, phrase_arena,
                phrases,
            )  # fmt: skip
            phrase_rows[number, 1] += 1
        first = last
    return words, phrases
