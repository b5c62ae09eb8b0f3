"""The documents a mix may draw from: the tables of all token shards, side by side, without their text or ids.

Contract: documents stand in the order (role, shard, row of the shard's table); that number is a document's catalogue
row. Shards are named relative to the store and carry the content hashes their encode step recorded. What statistics
group by (source, language, domain, licence, maker) is one small number a document, the row of a table of kinds.
Memory: 14 to 20 bytes a document; other columns are read shard by shard when a condition asks for them.

Shapes: D documents, S shards, K kinds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numba import njit

from pipeline.core.documents import read_table
from pipeline.core.errors import InputError
from pipeline.core.plans import Plan, Segment, SegmentRows, ShardRef
from pipeline.core.shards import DOCUMENT_TABLE_SCHEMA, shard_stems, sidecar
from pipeline.core.steps import StepOutput

NO_LANGUAGE = "und"  # BCP-47: undetermined
NO_VALUE = "unknown"  # a document without a domain or licence
HUMAN = "none"  # the maker of a document nobody synthesised
MOST_TOKENS = 2**31 - 1  # of a document
ROWS_AT_ONCE = 1 << 20  # of a document table
THREADS = 2  # tables read, and sources drawn from, side by side: each more costs a batch of memory


class Kind(NamedTuple):
    """What is the same for many documents."""

    source: str
    lang: str
    domain: str
    license: str
    maker: str


ABSENT = Kind("", NO_LANGUAGE, NO_VALUE, NO_VALUE, HUMAN)


@dataclass(frozen=True)
class Catalogue:
    """Where every document lies, how long it is and of which kind."""

    store: Path
    tokenizer: str  # fingerprint
    shards: tuple[ShardRef, ...]
    sources: tuple[str, ...]  # sorted
    kinds: tuple[Kind, ...]  # sorted
    first_document_S: np.ndarray  # [S + 1] int64 catalogue row of each shard's first document, and the end
    start_D: np.ndarray  # uint32 or int64 tokens, in the shard
    length_D: np.ndarray  # int32 tokens
    kind_D: np.ndarray  # int16 or int32 index into kinds

    @property
    def documents(self) -> int:
        return self.length_D.shape[0]

    @cached_property
    def source_K(self) -> np.ndarray:
        """int32 index into sources of each kind."""
        return np.array([self.sources.index(kind.source) for kind in self.kinds], np.int32)

    @cached_property
    def of_source(self) -> tuple[np.ndarray, ...]:
        """Catalogue rows of each source, rising; int32 while they fit."""
        counts = np.zeros(len(self.sources), np.int64)
        np.add.at(counts, self.source_K, counted(self.kind_D, len(self.kinds)))
        rows = np.empty(self.documents, np.int32 if self.documents <= MOST_TOKENS else np.int64)
        ends = np.cumsum(counts)
        _by_source(self.kind_D, self.source_K, ends - counts, rows)
        return tuple(np.split(rows, ends[:-1]))

    def shard_of(self, row_N: np.ndarray) -> np.ndarray:
        """[N] int64 shard of each catalogue row."""
        return np.searchsorted(self.first_document_S, row_N, side="right") - 1

    def columns(self, names: Sequence[str]) -> Iterator[tuple[int, pl.DataFrame]]:
        """(catalogue row of the first, columns) of each shard's documents."""
        for first, shard in zip(self.first_document_S.tolist(), self.shards, strict=False):
            yield first, document_columns(self.store, (shard,), names)[0]


@njit(cache=True, nogil=True)
def counted(value_N: np.ndarray, values: int) -> np.ndarray:
    """[values] int64 how often each of 0..values-1 stands there, without a wider copy."""
    counts = np.zeros(values, np.int64)
    for value in value_N:
        counts[value] += 1
    return counts


@njit(cache=True, nogil=True)
def _by_source(kind_D: np.ndarray, source_K: np.ndarray, place_S: np.ndarray, rows: np.ndarray) -> None:
    for row in range(kind_D.shape[0]):
        source = source_K[kind_D[row]]
        rows[place_S[source]] = row
        place_S[source] += 1


def document_columns(store: Path, shards: Sequence[ShardRef], names: Sequence[str]) -> tuple[pl.DataFrame, np.ndarray]:
    """Columns of the shards' document tables, one shard after the other, and [S + 1] where each shard begins.

    Raises `InputError` naming the shard.
    """
    wanted = [name for name in DOCUMENT_TABLE_SCHEMA.names if name in set(names)]
    parts = [
        read_table(sidecar(store / shard.stem, ".docs.parquet"), DOCUMENT_TABLE_SCHEMA, wanted) for shard in shards
    ]
    first_document_S = np.cumsum([0, *(part.num_rows for part in parts)], dtype=np.int64)
    return pl.DataFrame(pl.from_arrow(pa.concat_tables(parts))), first_document_S


def open_catalogue(store: Path, encoded: Mapping[str, StepOutput]) -> Catalogue:
    """Read the document tables of all encode steps, by sorted role.

    Raises:
        InputError: nothing was encoded, a table is unreadable, a shard has no recorded hash, or the steps used
            different tokenizers (names both).
    """
    shards: list[ShardRef] = []
    tokenizers: dict[str, str] = {}
    for role in sorted(encoded):
        output = encoded[role]
        record = output.record
        if "tokenizer" not in record.inputs:
            raise InputError("encode step names no tokenizer", where=str(output.folder))
        tokenizers.setdefault(record.inputs["tokenizer"], output.name)
        for stem in shard_stems(output.folder):
            hashes: list[str] = []
            for ending in (".bin", ".sums"):
                file = sidecar(stem, ending).relative_to(output.folder).as_posix()
                if file not in record.files:
                    raise InputError(f"`{file}` is not in the step's record", where=str(output.folder))
                hashes.append(record.files[file])
            shards.append(ShardRef(stem.relative_to(store).as_posix(), hashes[0], hashes[1], -1))
    if not shards:
        raise InputError("no token shards to mix", where=", ".join(sorted(encoded)), fix="give the mix a source")
    if len(tokenizers) > 1:
        raise InputError(
            f"encoded with {len(tokenizers)} different tokenizers: {', '.join(sorted(tokenizers.values()))}",
            where="mix",
            fix="encode every source of a mix with one tokenizer",
        )
    return catalogue_of(store, next(iter(tokenizers)), shards)


def catalogue_of(store: Path, tokenizer: str, shards: Sequence[ShardRef]) -> Catalogue:
    """The catalogue of the documents in `shards`; their numbers of tokens are counted."""
    tables = [sidecar(store / shard.stem, ".docs.parquet") for shard in shards]
    lengths, kinds, starts, named, counted = [], [], [], [], []
    with ThreadPoolExecutor(THREADS, "catalogue") as threads:
        for shard, (length, kind, names) in zip(shards, threads.map(_table, tables), strict=True):
            ends = np.cumsum(length, dtype=np.int64)
            tokens = int(ends[-1]) if ends.size else 0
            lengths.append(length)
            kinds.append(kind)
            named.append(names)
            starts.append((ends - length).astype(np.uint32 if tokens < 1 << 32 else np.int64))
            counted.append(ShardRef(shard.stem, shard.content, shard.sums, tokens))
    known = sorted({kind for names in named for kind in names})
    number = {kind: place for place, kind in enumerate(known)}
    for place, names in enumerate(named):
        own = np.array([number[kind] for kind in names], np.int16 if len(known) < 1 << 15 else np.int32)
        kinds[place] = own[kinds[place]] if names else np.empty(0, own.dtype)
    return Catalogue(
        store=store,
        tokenizer=tokenizer,
        shards=tuple(counted),
        sources=tuple(sorted({kind.source for kind in known})),
        kinds=tuple(known),
        first_document_S=np.cumsum([0, *(part.shape[0] for part in lengths)], dtype=np.int64),
        start_D=_emptied(starts),
        length_D=_emptied(lengths),
        kind_D=_emptied(kinds),
    )


def _emptied(parts: list[np.ndarray]) -> np.ndarray:
    """The parts as one array; each is let go as soon as it is copied."""
    whole = np.empty(sum(part.shape[0] for part in parts), np.result_type(*parts))
    end = whole.shape[0]
    while parts:
        part = parts.pop()
        whole[end - part.shape[0] : end] = part
        end -= part.shape[0]
    return whole


def _table(path: Path) -> tuple[np.ndarray, np.ndarray, list[Kind]]:
    """(int32 lengths, int16 or int32 kinds, what these numbers stand for) of a document table."""
    names = list(Kind._fields)
    numbers: dict[Kind, int] = {}
    lengths: list[np.ndarray] = [np.empty(0, np.int32)]
    kinds: list[np.ndarray] = [np.empty(0, np.int16)]
    try:
        file = pq.ParquetFile(path, read_dictionary=names)
        missing = sorted({*names, "length"} - set(file.schema_arrow.names))
        if missing:
            raise InputError(f"columns differ from the contract: missing {missing}", where=str(path))
        for batch in file.iter_batches(ROWS_AT_ONCE, columns=[*names, "length"]):
            length = batch["length"].to_numpy()
            if int(length.max(initial=0)) > MOST_TOKENS:
                raise InputError(f"a document of {int(length.max())} tokens", where=str(path), fix="split the document")
            kind = _kinds(batch, numbers)
            lengths.append(length.astype(np.int32))
            kinds.append(kind.astype(np.int16 if len(numbers) < 1 << 15 else np.int32))
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"not a readable Parquet file: {error}", where=str(path)) from None
    return np.concatenate(lengths), np.concatenate(kinds), list(numbers)


def _kinds(batch: pa.RecordBatch, numbers: dict[Kind, int]) -> np.ndarray:
    """[rows] kind of each row: columns are joined two at a time, so that the codes stay few."""
    code, found = np.zeros(batch.num_rows, np.int64), [()]
    for name, absent in zip(Kind._fields, ABSENT, strict=True):
        column = batch[name]
        encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
        values = [*encoded.dictionary.to_pylist(), absent]
        index = encoded.indices.fill_null(len(values) - 1).to_numpy()
        joined = code * len(values) + index
        present = np.zeros(len(found) * len(values), bool)
        present[joined] = True
        kept = np.flatnonzero(present)
        dense = np.cumsum(present) - 1
        found = [(*found[k // len(values)], values[k % len(values)]) for k in kept.tolist()]
        code = dense[joined]
    place = np.array([numbers.setdefault(Kind(*kind), len(numbers)) for kind in found], np.int32)
    return place[code] if len(place) else np.empty(0, np.int32)


def draws_of(
    plan: Plan, segment: Segment, shards: Sequence[ShardRef], first_document_S: np.ndarray, start_D: np.ndarray
) -> np.ndarray:
    """[D] uint16: how often `segment` serves each document of `shards`; one in several pieces counts once a draw, by
    the piece that holds its beginning."""
    known = {shard.stem: index for index, shard in enumerate(shards)}
    own_S = np.array([known.get(shard.stem, -1) for shard in segment.shards], np.int64)
    uses_D = np.zeros(start_D.shape[0], np.uint16)
    for _, columns in SegmentRows(plan, segment).piece_batches():
        shard_P = own_S[columns["shard"]]
        held_P = shard_P >= 0
        row_P = first_document_S[shard_P[held_P]] + columns["document"][held_P]
        count_up(uses_D, row_P[columns["start"][held_P] == start_D[row_P]])
    return uses_D


@njit(cache=True, nogil=True)
def count_up(uses_D: np.ndarray, row_N: np.ndarray) -> None:
    """Add one for each time a row is named."""
    for row in row_N:
        uses_D[row] += 1


def draws_before(plan: Plan, segments: Sequence[Segment], catalogue: Catalogue) -> np.ndarray:
    """[D] uint16: draws of each document of the catalogue, added over `segments` of the plan."""
    uses_D = np.zeros(catalogue.documents, np.uint16)
    for segment in segments:
        uses_D += draws_of(plan, segment, catalogue.shards, catalogue.first_document_S, catalogue.start_D)
    return uses_D
