"""Decontamination: documents that quote an evaluation set go, with the items they quote.

Two methods over the same folded characters (`stages.dedup.segment`: nothing is decomposed, so Hangul, kana and
Vietnamese stay whole):
- `ngram`: overlap of 13 words (GPT-3, arXiv 2005.14165, appendix C). Words are weighed so that languages compare: a
  word 2, a Hangul word 3, a character of an unspaced script 1; a gram is the shortest run of weight 26 (ours). Items
  lighter than that but of at least 8 words are searched whole; lighter ones are too common and are counted.
- `substring`: every 50-character substring of an item, punctuation and spaces removed (EXAONE 3.5, arXiv 2412.04862,
  appendix C: S = 50, stride 1), against all positions of a document or, as published, 10 sampled ones.
Contract: drop reason `decontaminate.ngram` or `decontaminate.substring`, detail `file:line` of the first item found;
every item that a dropped document quotes is a row of its evidence (`stages.contamination`).
Cost: about 30 MB/s on one core with both methods, more where documents quote much; 24 bytes a benchmark character in
memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import xxhash
from pydantic import Field

from pipeline.core.config import Config
from stages.benchmark_files import TEXT_FIELDS, BenchmarkFields, Item, read_items
from stages.block import Dropped, Outcome, outcome
from stages.contamination import TABLE, Hit, evidence_table, report_items
from stages.dedup.segment import WEIGHTS, segment, tables
from stages.dedup.signatures import compared_texts, text_buffers
from stages.quotation import (
    Keys,
    character_starts,
    find_all,
    folded_characters,
    gram_keys,
    keys_of,
    part_keys,
    run_keys,
    search_keys,
    search_parts,
    search_sampled,
    token_starts,
)

VERSION = 2
AGAINST = "against"  # role in `paths`
WORD_WEIGHT = 2
EXCERPT_BYTES = 240

Method = Literal["ngram", "substring"]
METHODS: tuple[Method, ...] = ("ngram", "substring")


class DecontaminateConfig(Config):
    """Options of the `decontaminate` block."""

    against: tuple[str, ...] = ()  # globs of JSONL files, plain or compressed, and of Parquet files
    fields: tuple[str, ...] = Field(default=TEXT_FIELDS, min_length=1)
    mapping: dict[str, BenchmarkFields] = Field(default={})  # pattern over file names -> what their fields mean
    methods: tuple[Method, ...] = Field(default=METHODS, min_length=1)
    words: int = Field(default=13, ge=2, le=30)
    short_words: int = Field(default=8, ge=1, le=30)
    characters: int = Field(default=50, ge=10)
    positions: Literal["all", "sampled"] = "all"
    samples: int = Field(default=10, ge=1)  # positions a document when sampled


@dataclass(frozen=True)
class Index:
    """What is searched for."""

    items: tuple[Item, ...]
    grams: Keys
    lengths: np.ndarray  # [short lengths] int64 token counts of items searched whole
    parts: Keys
    searched: tuple[str, ...]  # [items] `ngram`, `whole`, `substring`, joined by `+`; empty: no method can find it

    @property
    def too_short(self) -> int:
        return sum(not how for how in self.searched)


def build_index(items: Sequence[Item], config: DecontaminateConfig) -> Index:
    """Hash every gram and substring of the items; where two items share one, the first stands in the table."""
    known = tables()
    grams: list[np.ndarray] = []
    parts: list[np.ndarray] = []
    searched: list[str] = []
    lengths: set[int] = set()
    for item in items:
        data = np.frombuffer(item.text.encode("utf-8"), np.uint8)
        hashes, kinds = segment(data, 0, data.shape[0], known.kind, known.fold)
        weights = WEIGHTS[kinds]
        own_grams, own_parts, how = np.empty(0, np.uint64), np.empty(0, np.uint64), list[str]()
        if "ngram" in config.methods:
            own_grams = gram_keys(hashes, weights, config.words * WORD_WEIGHT)
            if own_grams.shape[0]:
                how.append("ngram")
            elif int(weights.sum()) >= config.short_words * WORD_WEIGHT:
                own_grams = run_keys(hashes, hashes.shape[0])
                lengths.add(hashes.shape[0])
                how.append("whole")
        if "substring" in config.methods:
            own_parts = part_keys(folded_characters(data, 0, data.shape[0], known.kind, known.fold), config.characters)
            how += ["substring"] if own_parts.shape[0] else []
        grams.append(np.unique(own_grams))
        parts.append(np.unique(own_parts))
        searched.append("+".join(how))
    return Index(tuple(items), keys_of(grams), np.array(sorted(lengths), np.int64), keys_of(parts), tuple(searched))


class Decontaminate:
    """The block."""

    def __init__(self, config: DecontaminateConfig, index: Index) -> None:
        self._config = config
        self.index = index

    def apply(self, documents: pa.Table) -> Outcome:
        data, offsets = text_buffers(compared_texts(documents))
        ids = documents["id"].to_pylist()
        dropped: list[Dropped] = []
        hits: list[tuple[int, Hit]] = []
        for row in range(documents.num_rows):
            found = self._judge(data, int(offsets[row]), int(offsets[row + 1]), ids[row])
            if found is not None:
                method, item = found
                dropped.append(Dropped(row, f"decontaminate.{method}", self.index.items[item].place))
                hits += [(row, hit) for hit in self.hits(data, int(offsets[row]), int(offsets[row + 1]))]
        evidence = {TABLE: evidence_table(documents, hits)} if hits else {}
        return outcome(documents, dropped, evidence=evidence)

    def _judge(self, data: np.ndarray, start: int, end: int, identity: str) -> tuple[Method, int] | None:
        config, index = self._config, self.index
        if "ngram" in config.methods:
            for keys in self._gram_keys(data, start, end):
                item = search_keys(index.grams.keys, index.grams.items, index.grams.filter, keys)
                if item >= 0:
                    return "ngram", item
        if "substring" in config.methods:
            parts, known = index.parts, tables()
            table = (parts.keys, parts.items, parts.filter)
            if config.positions == "all":
                item = search_parts(data, start, end, known.kind, known.fold, config.characters, *table)
            else:
                keys = self._part_keys(data, start, end)
                seed = np.uint64(xxhash.xxh3_64_intdigest(identity.encode()))
                item = search_sampled(*table, keys, config.samples, seed)
            if item >= 0:
                return "substring", item
        return None

    def _gram_keys(self, data: np.ndarray, start: int, end: int) -> list[np.ndarray]:
        """Keys by token: of the grams, and of runs as long as each item that is searched whole."""
        known = tables()
        hashes, kinds = segment(data, start, end, known.kind, known.fold)
        grams = gram_keys(hashes, WEIGHTS[kinds], self._config.words * WORD_WEIGHT)
        return [grams, *(run_keys(hashes, int(length)) for length in self.index.lengths)]

    def _part_keys(self, data: np.ndarray, start: int, end: int) -> np.ndarray:
        """Keys by folded character."""
        known = tables()
        return part_keys(folded_characters(data, start, end, known.kind, known.fold), self._config.characters)

    def hits(self, data: np.ndarray, start: int, end: int) -> list[Hit]:
        """Every item that the text quotes, by method and item."""
        known, found = tables(), list[Hit]()
        if "ngram" in self._config.methods:
            starts = token_starts(data, start, end, known.kind)
            for keys in self._gram_keys(data, start, end):
                found += self._hits_of("ngram", self.index.grams, keys, data[:end], starts)
        if "substring" in self._config.methods:
            starts = character_starts(data, start, end, known.kind)
            keys = self._part_keys(data, start, end)
            found += self._hits_of("substring", self.index.parts, keys, data[:end], starts)
        return found

    def _hits_of(
        self, method: Method, table: Keys, keys: np.ndarray, data: np.ndarray, starts: np.ndarray
    ) -> list[Hit]:
        places, firsts = find_all(table.keys, table.items, table.filter, keys)
        quoted: dict[int, dict[int, int]] = {}  # item -> key -> its first place
        for place, key, first in zip(places.tolist(), keys[places].tolist(), firsts.tolist(), strict=True):
            for item in (first, *table.others.get(key, ())):
                quoted.setdefault(item, {}).setdefault(key, place)
        hits: list[Hit] = []
        for item, own in sorted(quoted.items()):
            at = int(starts[min(own.values())])
            text = data[at : at + EXCERPT_BYTES].tobytes().decode("utf-8", "ignore")
            hits.append(Hit(self.index.items[item], method, len(own), int(table.counts[item]), text))
        return hits


def make(config: DecontaminateConfig, paths: Mapping[str, tuple[str, ...]]) -> Decontaminate:
    """Read and hash the benchmark files `paths["against"]`. Raises `InputError`."""
    items = read_items(paths.get(AGAINST, ()), BenchmarkFields(fields=config.fields), config.mapping)
    return Decontaminate(config, build_index(items, config))


def report(folder: Path, config: DecontaminateConfig, paths: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    """What a finished step's evidence says of every item of the benchmark files `paths["against"]`."""
    index = make(config, paths).index
    return report_items(folder, index.items, index.searched)
