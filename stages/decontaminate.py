"""Decontamination: documents that quote an evaluation set go, with the item they quote.

Two methods over the same folded characters (`stages.dedup.segment`: nothing is decomposed, so Hangul, kana and
Vietnamese stay whole):
- `ngram`: overlap of 13 words (GPT-3, arXiv 2005.14165, appendix C). Words are weighed so that languages compare: a
  word 2, a Hangul word 3, a character of an unspaced script 1; a gram is the shortest run of weight 26 (ours). Items
  lighter than that but of at least 8 words are searched whole; lighter ones are too common and are counted.
- `substring`: every 50-character substring of an item, punctuation and spaces removed (EXAONE 3.5, arXiv 2412.04862,
  appendix C: S = 50, stride 1), against all positions of a document or, as published, 10 sampled ones.
Contract: drop reason `decontaminate.ngram` or `decontaminate.substring`, detail `file:line` of the first item found.
Cost: about 25 MB/s on one core with both methods; 16 bytes a benchmark character in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import orjson
import pyarrow as pa
import xxhash
from numba import njit
from pydantic import Field

from pipeline.core.config import Config
from pipeline.core.errors import InputError
from pipeline.core.files import hash_file, open_input
from pipeline.core.fingerprint import fingerprint
from pipeline.core.tokenizer import nfc
from stages.block import Dropped, Outcome, outcome
from stages.dedup.segment import WEIGHTS, code_point, mix64, segment, tables
from stages.dedup.signatures import compared_texts, text_buffers

VERSION = 1
AGAINST = "against"  # role in `paths`
WORD_WEIGHT = 2
_BASE = np.uint64(0x9E3779B97F4A7C15)
_LENGTHS = 64  # most tokens in a gram, plus one

Method = Literal["ngram", "substring"]


class DecontaminateConfig(Config):
    """Options of the `decontaminate` block."""

    against: tuple[str, ...] = ()  # globs of JSONL files, plain or compressed
    fields: tuple[str, ...] = ("question", "problem", "prompt", "instruction", "text", "passage", "context")
    methods: tuple[Method, ...] = Field(default=("ngram", "substring"), min_length=1)
    words: int = Field(default=13, ge=2, le=30)
    short_words: int = Field(default=8, ge=1, le=30)
    characters: int = Field(default=50, ge=10)
    positions: Literal["all", "sampled"] = "all"
    samples: int = Field(default=10, ge=1)  # positions a document when sampled


@dataclass(frozen=True)
class Item:
    """One text of a benchmark and where it stands."""

    place: str  # file:line
    text: str


@dataclass(frozen=True)
class Index:
    """What is searched for. Tables are open-addressing: keys [slots] uint64 (0 = free), items [slots] int32."""

    items: tuple[Item, ...]
    gram_keys: np.ndarray
    gram_items: np.ndarray
    lengths: np.ndarray  # [short lengths] int64 token counts of items searched whole
    part_keys: np.ndarray
    part_items: np.ndarray
    too_short: int  # items that no method can find


def content(paths: Sequence[str]) -> str:
    """The identity of benchmark files: their names and contents, in any order."""
    return fingerprint(sorted([Path(path).name, hash_file(Path(path))] for path in paths))


def read_items(paths: Sequence[str], fields: Sequence[str]) -> list[Item]:
    """The texts of JSONL benchmark files, in order of file name.

    Raises `InputError` for a missing or empty file, a line that is no JSON object, or one with none of the fields.
    """
    items: list[Item] = []
    for path in sorted(paths, key=lambda one: (Path(one).name, one)):
        if "://" not in path and not Path(path).is_file():
            raise InputError("no such benchmark file", where=path, fix="check `decontaminate.against`")
        before = len(items)
        for number, item in _records(path):
            found = [item[name] for name in fields if isinstance(item.get(name), str) and item[name].strip()]
            if not found:
                raise InputError(
                    f"no text in any of the fields {', '.join(fields)}",
                    where=f"{path}:{number}",
                    fix=f"name the text field in `decontaminate.fields`; this line has {', '.join(sorted(item))}",
                )
            items += [Item(f"{Path(path).name}:{number}", nfc(text)) for text in found]
        if len(items) == before:
            raise InputError("the benchmark file is empty", where=path, fix="remove it from `decontaminate.against`")
    if not items:
        raise InputError("no benchmark files", where="decontaminate", fix="name JSONL files in `against`")
    return items


def _records(path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    with open_input(path) as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                item = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                raise InputError(f"not JSON: {error}", where=f"{path}:{number}") from None
            if not isinstance(item, dict):
                raise InputError("not a JSON object", where=f"{path}:{number}")
            yield number, item


def build_index(items: Sequence[Item], config: DecontaminateConfig) -> Index:
    """Hash every gram and substring of the items; where two items share one, the first stands."""
    known = tables()
    grams, parts, lengths, too_short = [], [], set(), 0
    for number, item in enumerate(items):
        data = np.frombuffer(item.text.encode("utf-8"), np.uint8)
        hashes, kinds = segment(data, 0, data.shape[0], known.kind, known.fold)
        weights = WEIGHTS[kinds]
        item_grams, item_parts = np.empty(0, np.uint64), np.empty(0, np.uint64)
        if "ngram" in config.methods:
            item_grams = _grams(hashes, weights, config.words * WORD_WEIGHT)
            if item_grams.shape[0] == 0 and int(weights.sum()) >= config.short_words * WORD_WEIGHT:
                item_grams = _runs(hashes, hashes.shape[0])
                lengths.add(hashes.shape[0])
        if "substring" in config.methods:
            item_parts = _parts(_folded(data, 0, data.shape[0], known.kind, known.fold), config.characters)
        too_short += item_grams.shape[0] + item_parts.shape[0] == 0
        grams.append((item_grams, number))
        parts.append((item_parts, number))
    return Index(tuple(items), *_table(grams), np.array(sorted(lengths), np.int64), *_table(parts), too_short=too_short)


def _table(found: Sequence[tuple[np.ndarray, int]]) -> tuple[np.ndarray, np.ndarray]:
    total = sum(keys.shape[0] for keys, _ in found)
    slots = 1 << max(4, (2 * total).bit_length())
    keys, items = np.zeros(slots, np.uint64), np.zeros(slots, np.int32)
    for part, number in found:
        _insert(keys, items, part, number)
    return keys, items


@njit(cache=True)
def _insert(keys: np.ndarray, items: np.ndarray, part: np.ndarray, number: int) -> None:
    mask = np.uint64(keys.shape[0] - 1)
    for key in part:
        slot = key & mask
        while keys[slot] != 0 and keys[slot] != key:
            slot = (slot + np.uint64(1)) & mask
        if keys[slot] == 0:
            keys[slot] = key
            items[slot] = number


@njit(cache=True, inline="always")
def _find(keys: np.ndarray, items: np.ndarray, key: np.uint64) -> int:
    mask = np.uint64(keys.shape[0] - 1)
    slot = key & mask
    while keys[slot] != 0:
        if keys[slot] == key:
            return items[slot]
        slot = (slot + np.uint64(1)) & mask
    return -1


@njit(cache=True)
def _prefixes(values: np.ndarray) -> np.ndarray:
    """[values + 1] polynomial hashes modulo 2**64 of everything before each place."""
    out = np.zeros(values.shape[0] + 1, np.uint64)
    for place in range(values.shape[0]):
        out[place + 1] = out[place] * _BASE + values[place]
    return out


@njit(cache=True)
def _powers(count: int) -> np.ndarray:
    out = np.ones(count, np.uint64)
    for place in range(1, count):
        out[place] = out[place - 1] * _BASE
    return out


@njit(cache=True, inline="always")
def _window(prefixes: np.ndarray, power: np.uint64, first: int, length: int) -> np.uint64:
    key = mix64(prefixes[first + length] - prefixes[first] * power + np.uint64(length))
    return key if key != 0 else np.uint64(1)


@njit(cache=True)
def _grams(hashes: np.ndarray, weights: np.ndarray, wanted: int) -> np.ndarray:
    """Keys of the shortest run of at least `wanted` weight from each token on."""
    prefixes, powers = _prefixes(hashes), _powers(_LENGTHS)
    out = np.empty(hashes.shape[0], np.uint64)
    last, weight = 0, 0
    for first in range(hashes.shape[0]):
        while weight < wanted and last < hashes.shape[0]:
            weight += weights[last]
            last += 1
        if weight < wanted:
            return out[:first]
        out[first] = _window(prefixes, powers[last - first], first, last - first)
        weight -= weights[first]
    return out


@njit(cache=True)
def _runs(hashes: np.ndarray, length: int) -> np.ndarray:
    """Keys of every run of `length` tokens."""
    prefixes, powers = _prefixes(hashes), _powers(_LENGTHS)
    out = np.empty(max(hashes.shape[0] - length + 1, 0), np.uint64)
    for first in range(out.shape[0]):
        out[first] = _window(prefixes, powers[length], first, length)
    return out


@njit(cache=True)
def _folded(data: np.ndarray, start: int, end: int, kinds: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """[characters] uint64 folded code points of letters, marks and digits."""
    out = np.empty(end - start, np.uint64)
    count = 0
    at = start
    while at < end:
        point, size = code_point(data, at)
        at += size
        if point < kinds.shape[0] and kinds[point] != 0:
            out[count] = np.uint64(folds[point])
            count += 1
    return out[:count]


@njit(cache=True)
def _parts(characters: np.ndarray, length: int) -> np.ndarray:
    """Keys of every substring of `length` characters."""
    prefixes = _prefixes(characters)
    power = _powers(length + 1)[length]
    out = np.empty(max(characters.shape[0] - length + 1, 0), np.uint64)
    for first in range(out.shape[0]):
        out[first] = _window(prefixes, power, first, length)
    return out


@njit(cache=True)
def _search(keys: np.ndarray, items: np.ndarray, wanted: np.ndarray) -> int:
    for key in wanted:
        item = _find(keys, items, key)
        if item >= 0:
            return item
    return -1


@njit(cache=True)
def _search_sampled(keys: np.ndarray, items: np.ndarray, wanted: np.ndarray, samples: int, seed: np.uint64) -> int:
    for number in range(samples if wanted.shape[0] else 0):
        place = mix64(seed + np.uint64(number) * _BASE) % np.uint64(wanted.shape[0])
        item = _find(keys, items, wanted[place])
        if item >= 0:
            return item
    return -1


class Decontaminate:
    """The block."""

    def __init__(self, config: DecontaminateConfig, index: Index) -> None:
        self._config = config
        self.index = index

    def apply(self, documents: pa.Table) -> Outcome:
        data, offsets = text_buffers(compared_texts(documents))
        ids = documents["id"].to_pylist()
        dropped = []
        for row in range(documents.num_rows):
            found = self._judge(data, int(offsets[row]), int(offsets[row + 1]), ids[row])
            if found is not None:
                method, item = found
                dropped.append(Dropped(row, f"decontaminate.{method}", self.index.items[item].place))
        return outcome(documents, dropped)

    def _judge(self, data: np.ndarray, start: int, end: int, identity: str) -> tuple[Method, int] | None:
        config, index, known = self._config, self.index, tables()
        if "ngram" in config.methods:
            hashes, kinds = segment(data, start, end, known.kind, known.fold)
            wanted = [_grams(hashes, WEIGHTS[kinds], config.words * WORD_WEIGHT)]
            wanted += [_runs(hashes, int(length)) for length in index.lengths]
            for keys in wanted:
                item = _search(index.gram_keys, index.gram_items, keys)
                if item >= 0:
                    return "ngram", item
        if "substring" in config.methods:
            keys = _parts(_folded(data, start, end, known.kind, known.fold), config.characters)
            if config.positions == "all":
                item = _search(index.part_keys, index.part_items, keys)
            else:
                seed = np.uint64(xxhash.xxh3_64_intdigest(identity.encode()))
                item = _search_sampled(index.part_keys, index.part_items, keys, config.samples, seed)
            if item >= 0:
                return "substring", item
        return None


def make(config: DecontaminateConfig, paths: Mapping[str, tuple[str, ...]]) -> Decontaminate:
    """Read and hash the benchmark files `paths["against"]`. Raises `InputError`."""
    return Decontaminate(config, build_index(read_items(paths.get(AGAINST, ()), config.fields), config))
