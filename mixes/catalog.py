"""The documents a mix may draw from: the tables of all token shards, side by side, without their text or ids.

Contract: documents stand in the order (role, shard, row of the shard's table); that number is a document's catalogue
row. Shards are named relative to the store and carry the content hash their encode step recorded. Memory: 28 bytes a
document; other columns are read when a condition or a statistic asks for them.

Shapes: D documents, S shards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from pipeline.core.documents import read_table
from pipeline.core.errors import InputError
from pipeline.core.plans import Plan, Segment, ShardRef, read_rows
from pipeline.core.shards import DOCUMENT_TABLE_SCHEMA, shard_stems, sidecar
from pipeline.core.steps import StepOutput

NO_LANGUAGE = "und"  # BCP-47: undetermined
NO_VALUE = "unknown"  # a document without a domain or licence
HUMAN = "none"  # the maker of a document nobody synthesised


@dataclass(frozen=True)
class Catalogue:
    """Where every document lies and how long it is."""

    store: Path
    tokenizer: str  # fingerprint
    shards: tuple[ShardRef, ...]
    sources: tuple[str, ...]  # sorted
    first_document_S: np.ndarray  # [S + 1] int64 catalogue row of each shard's first document, and the end
    start_D: np.ndarray  # int64 tokens, in the shard
    length_D: np.ndarray  # int64 tokens
    source_D: np.ndarray  # int32 index into sources

    @property
    def documents(self) -> int:
        return self.length_D.shape[0]

    @cached_property
    def shard_D(self) -> np.ndarray:
        """int32 shard of each document."""
        return np.repeat(np.arange(len(self.shards), dtype=np.int32), np.diff(self.first_document_S))

    @cached_property
    def of_source(self) -> tuple[np.ndarray, ...]:
        """Catalogue rows of each source, rising."""
        order = np.argsort(self.source_D, kind="stable")
        ends = np.cumsum(np.bincount(self.source_D, minlength=len(self.sources)))
        return tuple(np.split(order, ends[:-1]))

    def columns(self, names: Sequence[str]) -> pl.DataFrame:
        """[D] columns of the document tables, in catalogue order."""
        return document_columns(self.store, self.shards, names)[0]


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
            file = sidecar(stem, ".bin").relative_to(output.folder).as_posix()
            if file not in record.files:
                raise InputError(f"`{file}` is not in the step's record", where=str(output.folder))
            shards.append(ShardRef(stem.relative_to(store).as_posix(), record.files[file]))
    if not shards:
        raise InputError("no token shards to mix", where=", ".join(sorted(encoded)), fix="give the mix a source")
    if len(tokenizers) > 1:
        raise InputError(
            f"encoded with {len(tokenizers)} different tokenizers: {', '.join(sorted(tokenizers.values()))}",
            where="mix",
            fix="encode every source of a mix with one tokenizer",
        )
    return _catalogue(store, next(iter(tokenizers)), tuple(shards))


def _catalogue(store: Path, tokenizer: str, shards: tuple[ShardRef, ...]) -> Catalogue:
    table, first_document_S = document_columns(store, shards, ["source", "start", "length"])
    sources = tuple(sorted(table["source"].unique()))
    return Catalogue(
        store=store,
        tokenizer=tokenizer,
        shards=shards,
        sources=sources,
        first_document_S=first_document_S,
        start_D=table["start"].to_numpy(),
        length_D=table["length"].to_numpy(),
        source_D=table["source"].cast(pl.Enum(sources)).to_physical().cast(pl.Int32).to_numpy(),
    )


def draws_of(
    plan: Plan, segment: Segment, shards: Sequence[ShardRef], first_document_S: np.ndarray, start_D: np.ndarray
) -> np.ndarray:
    """[D] int64: how often `segment` serves each document of `shards`; one in several pieces counts once a draw, by
    the piece that holds its beginning."""
    known = {shard.stem: index for index, shard in enumerate(shards)}
    own_S = np.array([known.get(shard.stem, -1) for shard in segment.shards], np.int64)
    _, pieces = read_rows(plan, segment)
    shard_P = own_S[pieces["shard"].to_numpy()]
    held_P = shard_P >= 0
    row_P = first_document_S[shard_P[held_P]] + pieces["document"].to_numpy()[held_P]
    begins_P = pieces["start"].to_numpy()[held_P] == start_D[row_P]
    return np.bincount(row_P[begins_P], minlength=start_D.shape[0])


def draws_before(
    plan: Plan,
    segments: Sequence[Segment],
    shards: Sequence[ShardRef],
    first_document_S: np.ndarray,
    start_D: np.ndarray,
) -> np.ndarray:
    """[D] int64: draws of each document, added over `segments` of the plan."""
    uses_D = np.zeros(start_D.shape[0], np.int64)
    for segment in segments:
        uses_D += draws_of(plan, segment, shards, first_document_S, start_D)
    return uses_D
